// The arithmetic of bench/studies/scaling: least squares with intervals against published examples, the file of points.

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "scaling/nets.hpp"
#include "scaling/points.hpp"
#include "scaling/regression.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace study;

namespace {

/// Anscombe, Graphs in Statistical Analysis (1973), the first of four.
Table anscombe() {
  const double x[] = {10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5};
  const double y[] = {8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68};
  Table t{{"constant", "x"}};
  for (std::size_t i = 0; i < 11; ++i) t.add({1, x[i]}, y[i]);
  return t;
}

/// Longley (1967): 16 years of employment, columns that nearly depend on each other.
Table longley() {
  const double rows[][7] = {{60323, 83.0, 234289, 2356, 1590, 107608, 1947},  {61122, 88.5, 259426, 2325, 1456, 108632, 1948},
                            {60171, 88.2, 258054, 3682, 1616, 109773, 1949},  {61187, 89.5, 284599, 3351, 1650, 110929, 1950},
                            {63221, 96.2, 328975, 2099, 3099, 112075, 1951},  {63639, 98.1, 346999, 1932, 3594, 113270, 1952},
                            {64989, 99.0, 365385, 1870, 3547, 115094, 1953},  {63761, 100.0, 363112, 3578, 3350, 116219, 1954},
                            {66019, 101.2, 397469, 2904, 3048, 117388, 1955}, {67857, 104.6, 419180, 2822, 2857, 118734, 1956},
                            {68169, 108.4, 442769, 2936, 2798, 120445, 1957}, {66513, 110.8, 444546, 4681, 2637, 121950, 1958},
                            {68655, 112.6, 482704, 3813, 2552, 123366, 1959}, {69564, 114.2, 502601, 3931, 2514, 125368, 1960},
                            {69331, 115.7, 518173, 4806, 2572, 127852, 1961}, {70551, 116.9, 554894, 4007, 2827, 130081, 1962}};
  Table t{{"constant", "deflator", "product", "unemployed", "armed forces", "population", "year"}};
  for (const auto& r : rows) t.add({1, r[1], r[2], r[3], r[4], r[5], r[6]}, r[0]);
  return t;
}

double standard_error(const Fit& f, std::size_t j) { return std::sqrt(f.covariance[j][j]); }

}  // namespace

TEST_CASE("Student's quantiles are those of the tables", "[studies]") {
  CHECK(student_quantile(0.95, 1) == Approx(12.7062).epsilon(1e-4));
  CHECK(student_quantile(0.95, 2) == Approx(4.30265).epsilon(1e-5));
  CHECK(student_quantile(0.95, 3) == Approx(3.18245).epsilon(1e-5));
  CHECK(student_quantile(0.95, 9) == Approx(2.26216).epsilon(1e-5));
  CHECK(student_quantile(0.90, 9) == Approx(1.83311).epsilon(1e-5));
  CHECK(student_quantile(0.95, 30) == Approx(2.04227).epsilon(1e-5));
  CHECK(student_quantile(0.95, 1000) == Approx(1.96234).epsilon(1e-5));
  CHECK(student_quantile(0.95, 100000) == Approx(1.95999).epsilon(1e-5));
}

TEST_CASE("least squares and its intervals are those of a published example", "[studies]") {
  const auto f = fit_linear(anscombe());
  REQUIRE(f);
  CHECK(f->coefficients[0] == Approx(3.00009091));
  CHECK(f->coefficients[1] == Approx(0.50009091));
  CHECK(standard_error(*f, 0) == Approx(1.12474679));
  CHECK(standard_error(*f, 1) == Approx(0.11790550));
  CHECK(f->residual == Approx(1.23660332));
  CHECK(f->r_squared == Approx(0.66654246));
  const Interval slope = f->interval(1);
  CHECK(slope.low == Approx(0.50009091 - 2.26215716 * 0.11790550).epsilon(1e-5));
  CHECK(slope.high == Approx(0.50009091 + 2.26215716 * 0.11790550).epsilon(1e-5));
  CHECK(slope.above(0));
  CHECK(slope.holds(0.5));
  CHECK_FALSE(slope.holds(1));

  // Where y is 0: the delta method with derivatives by hand, -1 / b1 and b0 / b1^2.
  const auto root = f->interval([](std::span<const double> b) { return -b[0] / b[1]; });
  const double g0 = -1 / f->coefficients[1], g1 = f->coefficients[0] / (f->coefficients[1] * f->coefficients[1]);
  const double variance = g0 * g0 * f->covariance[0][0] + 2 * g0 * g1 * f->covariance[0][1] + g1 * g1 * f->covariance[1][1];
  CHECK(root.high - root.value == Approx(2.26215716 * std::sqrt(variance)).epsilon(1e-4));

  // Of one more run at the mean of x: s sqrt(1 + 1 / n); of the line there: s sqrt(1 / n).
  const std::vector<double> middle{1, 9};
  CHECK(f->value_at(middle, true).high - f->at(middle) == Approx(2.26215716 * 1.23660332 * std::sqrt(12.0 / 11)).epsilon(1e-5));
  CHECK(f->value_at(middle, false).high - f->at(middle) == Approx(2.26215716 * 1.23660332 / std::sqrt(11.0)).epsilon(1e-5));
}

TEST_CASE("least squares keeps its digits where columns nearly depend on each other", "[studies]") {
  const auto f = fit_linear(longley());  // certified values of NIST's StRD
  REQUIRE(f);
  const double certified[][2] = {{-3482258.63459582, 890420.383607373},     {15.0618722713733, 84.9149257747669},
                                 {-0.0358191792925910, 0.0334910077722432}, {-2.02022980381683, 0.488399681651699},
                                 {-1.03322686717359, 0.214274163161675},    {-0.0511041056535807, 0.226073200069370},
                                 {1829.15146461355, 455.478499142212}};
  for (std::size_t j = 0; j < 7; ++j) {
    CAPTURE(j);
    CHECK(f->coefficients[j] == Approx(certified[j][0]).epsilon(1e-7));
    CHECK(standard_error(*f, j) == Approx(certified[j][1]).epsilon(1e-7));
  }
  CHECK(f->residual == Approx(304.854073561965).epsilon(1e-9));
  CHECK(f->r_squared == Approx(0.995479004577296).epsilon(1e-12));
}

TEST_CASE("least squares says what runs are missing", "[studies]") {
  Table t{{"constant", "size"}};
  t.add({1, 2}, 3);
  CHECK(fit_linear(t).error().message == "1 runs for 2 coefficients: add runs, or fit a smaller law");
  t.add({1, 2}, 4);
  CHECK(fit_linear(t).error().message ==
        "the runs cannot tell size from the terms before it: add runs in which it varies by itself");
  t.add({1, std::nan("")}, 4);
  CHECK(fit_linear(t).error().message == "run 2 has a value that is not finite: leave it out");
  CHECK_FALSE(fit_linear(Table{}));
}

TEST_CASE("as many runs as coefficients leave no interval", "[studies]") {
  Table t{{"constant", "size"}};
  t.add({1, 2}, 3), t.add({1, 4}, 7);
  const auto f = fit_linear(t);
  REQUIRE(f);
  CHECK(f->coefficients[1] == Approx(2));
  CHECK(std::isinf(f->interval(1).high));
  CHECK(f->interval(1).holds(-1e300));
}

TEST_CASE("a logistic curve is found again", "[studies]") {
  const Logistic truth{.floor = 0.2, .top = 0.7, .k = 2.3, .middle = 3.79};
  std::vector<double> x, y;
  for (const double bits : {2.0, 3.0, 4.0, 5.0, 6.0, 8.0}) x.push_back(bits), y.push_back(truth.at(bits));
  const auto l = fit_logistic(x, y);
  REQUIRE(l);
  CHECK(l->floor == Approx(truth.floor).epsilon(1e-3));
  CHECK(l->top == Approx(truth.top).epsilon(1e-3));
  CHECK(l->k == Approx(truth.k).epsilon(1e-2));
  CHECK(l->middle == Approx(truth.middle).epsilon(1e-3));
  CHECK(fit_logistic(std::span(x).first(3), std::span(y).first(3)).error().message ==
        "a logistic curve needs four points, these are 3");
}

TEST_CASE("rank correlation shares the ranks of ties", "[studies]") {
  const std::vector<double> a{1, 2, 3, 4, 5}, up{10, 20, 30, 40, 1000}, down{5, 4, 3, 2, 1}, same(5, 1.0);
  CHECK(rank_correlation(a, up) == Approx(1));
  CHECK(rank_correlation(a, down) == Approx(-1));
  CHECK(rank_correlation(a, same) == 0);
  // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
  CHECK(rank_correlation(std::vector<double>{1, 2, 2, 3}, std::vector<double>{1, 2, 3, 4}) == Approx(4.5 / std::sqrt(22.5)));
}

TEST_CASE("the mean of a few runs has the interval of Student", "[studies]") {
  const std::vector<double> x{1, 2, 4};  // standard deviation sqrt(7 / 3)
  const Interval i = mean_interval(x);
  CHECK(i.value == Approx(7.0 / 3));
  CHECK(i.high - i.value == Approx(4.30265 * std::sqrt(7.0 / 9)).epsilon(1e-5));
  CHECK(std::isinf(mean_interval(std::vector<double>{1}).high));
}

TEST_CASE("points outlive the program, and a line that was cut short is measured again", "[studies]") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "points.txt";
  {
    PointFile points(path);
    CHECK(points.find("a") == nullptr);
    REQUIRE(points.add("a", {1.5, -2}));
    REQUIRE(points.add("b, seed 1", {}));
  }
  std::ofstream(path, std::ios::app) << "c\t12.";  // of 12.75
  {
    PointFile points(path);
    REQUIRE(points.find("a"));
    CHECK(*points.find("a") == Values{1.5, -2});
    REQUIRE(points.find("b, seed 1"));
    CHECK(points.find("b, seed 1")->empty());
    CHECK(points.find("c") == nullptr);
    int measured = 0;
    const std::vector<Job> jobs{{"a", [&] { return ++measured, anybit::Result<Values>(Values{0}); }},
                                {"c", [&] { return ++measured, anybit::Result<Values>(Values{12.75}); }}};
    REQUIRE(measure_points(points, jobs, 1));
    CHECK(measured == 1);
  }
  PointFile points(path);
  CHECK(*points.find("a") == Values{1.5, -2});
  REQUIRE(points.find("c"));
  CHECK(*points.find("c") == Values{12.75});
}

TEST_CASE("the first point that fails ends a study and is named", "[studies]") {
  const test_support::TemporaryFolder folder;
  PointFile points(folder / "points.txt");
  const auto fails = [] { return anybit::Result<Values>(anybit::Error{anybit::ErrorCode::not_finite, "the loss is nan"}); };
  const auto works = [] { return anybit::Result<Values>(Values{1}); };
  const anybit::Status done = measure_points(points, {{"good", works}, {"bad", fails}, {"never", works}}, 1);
  REQUIRE_FALSE(done);
  CHECK(done.error().message == "bad: the loss is nan");
  CHECK(points.find("good") != nullptr);
  CHECK(points.find("never") == nullptr);
}

TEST_CASE("a corpus is cut into parts that do not meet", "[studies]") {
  const Corpus c = corpus_of(std::string(6, 'a') + "b" + "\xFF");
  CHECK(c.train().size() == 6);
  CHECK(c.tune().size() == 1);
  CHECK(c.tune()[0] == 'b');
  CHECK(c.test()[0] == 255);
}

TEST_CASE("nets have the weights that the laws count, from the distribution whose dead share is known", "[studies]") {
  using namespace anybit;
  const model::Decoder d = make_net(64, 1);
  Index weights = 0;
  for (const model::WeightId id : d.blueprint->linears) {
    const Matrix& w = *d[id].linear.dense();
    weights += w.extents().size();
    const float reach = 1 / std::sqrt(static_cast<float>(w.cols()));
    for (Index i = 0; i < w.extents().size(); ++i) REQUIRE(std::abs(w.data()[i]) <= reach);
  }
  CHECK(weights == block_weights(64));
  // min(1, 2^-b sqrt(inputs)): at SF3 all of the layers of 64 and 192 inputs; at SF5 a quarter of 10 shares of 64 inputs and .433
  // of 3 shares of 192.
  const auto dead = [&](Use use, int bits) {
    const auto q = rounded(d, {use, bits});
    REQUIRE(q);
    return dead_share(*q);
  };
  CHECK(dead(Use::plain, 3) > 0.9999);
  CHECK(dead(Use::plain, 5) == Approx((10 * 0.25 + 3 * std::sqrt(192.0) / 32) / 13).margin(0.01));
  CHECK(dead(Use::floats, 5) == 0);
  CHECK(dead(Use::rows, 5) < 0.1);
  CHECK(dead(Use::exact, 5) < 0.2);
  CHECK_FALSE(rounded(d, {Use::published, 5}));
}

TEST_CASE("a net learns on every grid, the same from the same seed, and a kept run is not run again", "[studies]") {
  using namespace anybit;
  std::string text;
  while (text.size() < 4096) text += "abcdefgh";
  const Corpus c = corpus_of(text);
  Training how;
  how.tokens = 8192, how.context = 64, how.batch = 128, how.rate = 1e-2;
  const auto loss = [&](const Grid& grid) {
    model::Decoder d = make_net(8, 3);
    REQUIRE(train_net(d, c.train(), grid, how));
    const auto m = measure(d, c.test(), 64, 3);
    REQUIRE(m);
    CHECK(m->by_window.size() == 3);
    return m->loss;
  };
  const auto before = measure(make_net(8, 3), c.test(), 64, 3);
  REQUIRE(before);
  for (const Grid& g : {Grid{}, Grid{Use::plain, 8}, Grid{Use::norms, 6}, Grid{Use::rows, 4}}) {
    CAPTURE(g.name());
    CHECK(loss(g) < before->loss - 1);
  }
  CHECK(loss({Use::rows, 4}) == loss({Use::rows, 4}));
  const test_support::TemporaryFolder folder;
  how.state = folder / "run.state";
  Index steps = 0;
  const double first = loss({});
  how.behind = [&](Index) { ++steps; };
  CHECK(loss({}) == first);
  CHECK(steps == 64);  // told again, not taken: the file holds them
  CHECK_FALSE(measure(make_net(8, 3), c.test(), 4096, 1));
}
