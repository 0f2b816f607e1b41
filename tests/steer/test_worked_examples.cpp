// Examples that can be followed by hand, and what scores, signs and errors must be.

#include <cmath>
#include <string>
#include <vector>

#include <anybit/steer/intervention.hpp>
#include <anybit/steer/projection.hpp>

#include "support/catch.hpp"

using namespace anybit;
using namespace anybit::steer;

namespace {

Matrix matrix(Index rows, Index cols, std::initializer_list<float> values) {
  Matrix m(rows, cols);
  std::copy(values.begin(), values.end(), m.data());
  return m;
}

}  // namespace

TEST_CASE("projection by hand: (1 2 3) without (0.6 0.8 0)") {
  const std::vector<float> r{0.6f, 0.8f, 0}, twice{1.2f, 1.6f, 0};
  for (const auto* c : {&r, &twice}) {  // the length of c does not matter
    std::vector<float> x{1, 2, 3};
    apply(Operator::projection, x, *c);
    CHECK(x[0] == Approx(-0.32));
    CHECK(x[1] == Approx(0.24));
    CHECK(x[2] == 3);
    CHECK(std::abs(dot(x, r)) < 1e-6);
  }
  Matrix w = matrix(3, 1, {1, 2, 3});
  const std::vector<double> unit_r{0.6, 0.8, 0};
  project_columns(w.view(), unit_r);
  CHECK(w(0, 0) == Approx(-0.32));
  CHECK(w(1, 0) == Approx(0.24));
  CHECK(w(2, 0) == 3);
}

TEST_CASE("piecewise and linear by hand, and a zero that has no side") {
  const std::vector<float> c{1, 0, 0};
  std::vector<float> x{1, 2, 3};
  apply(Operator::piecewise, x, c);
  CHECK((x == std::vector<float>{2, 2, 3}));
  x = {-1, 2, 3};
  apply(Operator::piecewise, x, c);
  CHECK((x == std::vector<float>{-2, 2, 3}));
  x = {0, 2, 3};
  apply(Operator::piecewise, x, c);
  CHECK((x == std::vector<float>{0, 2, 3}));
  apply(Operator::linear, x, c);
  CHECK((x == std::vector<float>{1, 2, 3}));
  x = {3, 4, 0};
  apply(Operator::linear, x, c, true);  // (4 4 0) back to length 5
  CHECK(x[0] == Approx(5 / std::sqrt(2.0)));
  CHECK(dot(x, x) == Approx(25));
  x = {-1, 0, 0};
  apply(Operator::linear, x, c, true);  // a zero has no length to give back
  CHECK((x == std::vector<float>{0, 0, 0}));
}

TEST_CASE("intervention by hand: theta of (1 1) and (0 -1) and both standard deviations") {
  // Means (1 1) and (0 -1), from two rows each.
  const Matrix x = matrix(4, 2, {1, 0, 1, 2, 0, -2, 0, 0});
  const std::vector<Label> labels{1, 1, 0, 0};
  const Direction d = mean_difference(x.view(), labels).value();
  CHECK((d.vector == std::vector<double>{1, 2}));
  const std::vector<double> theta{1 / std::sqrt(5.0), 2 / std::sqrt(5.0)};
  const Matrix tuning = matrix(3, 2, {0, 0, 1, 0, 0, 1});
  const double population = projection_deviation(tuning.view(), theta);
  CHECK(population == Approx(0.365148).epsilon(1e-5));
  CHECK(projection_deviation(tuning.view(), theta, true) == Approx(0.447214).epsilon(1e-5));
  const Intervention s{.head_dim = 2, .heads = {{.block = 1, .head = 1, .theta = theta, .sigma = population}}};
  const std::vector<double> shift = displacement(s, 1, 6, 15);
  CHECK(shift[2] == Approx(2.449490).epsilon(1e-6));
  CHECK(shift[3] == Approx(4.898979).epsilon(1e-6));
  CHECK((shift[0] == 0 && shift[1] == 0 && shift[4] == 0 && shift[5] == 0));
  CHECK(norm(displacement(s, 0, 6, 15)) == 0);
}

TEST_CASE("the principal component of differences, its sign, scores and accuracies") {
  // The concept lies along (1 1 0) and is 2 long; pairs are in mixed order, the second channel of the noise is small.
  const Matrix h = matrix(8, 3, {1, 1, 0, -1, -1, 0.1f, -1, -1, 0, 1, 1, 0.2f, 1, 1, 0.1f, -1, -1, 0, -1, -1, 0.1f, 1, 1, 0.1f});
  const std::vector<Label> labels{1, 0, 0, 1, 1, 0, 0, 1};
  const Direction d = pca_direction(h.view(), labels).value();
  const std::vector<double> concept_direction{1, 1, 0};
  CHECK(d.sign * cosine(d.vector, concept_direction) > 0.999);
  CHECK(norm(d.vector) == Approx(1));
  CHECK(d.explained > 0.99);
  const std::vector<double> s = scores(d, h.view());
  CHECK(pair_accuracy(s, labels) == 1);
  CHECK(row_accuracy(s, labels, d.threshold) == 1);
  // Other labels turn the sign and nothing else.
  std::vector<Label> other;
  for (const Label l : labels) other.push_back(1 - l);
  const Direction turned = pca_direction(h.view(), other).value();
  CHECK(turned.sign == -d.sign);
  CHECK(turned.vector == d.vector);
  // A tie of the signs is +1: equal scores in every pair.
  Direction tie{.vector = {0, 0, 1}, .center = {0, 0, 0}};
  const Matrix flat(4, 3);
  steer::detail::set_sign_and_threshold(tie, flat.view(), std::span(labels).first(4), true);
  CHECK(tie.sign == 1);
  // More pairs than channels take the other Gram matrix: the same direction.
  Matrix many(24, 3);
  std::vector<Label> many_labels;
  for (Index r = 0; r < 24; ++r) {
    std::copy_n(h.view().row(r % 8).data(), 3, many.data() + 3 * r);
    many_labels.push_back(labels[static_cast<std::size_t>(r % 8)]);
  }
  CHECK(std::abs(cosine(pca_direction(many.view(), many_labels).value().vector, d.vector)) > 1 - 1e-12);
}

TEST_CASE("data that give no direction are errors that say why and what to do") {
  const Matrix h = matrix(4, 2, {1, 0, 0, 0, 3, 1, 0, 1});
  const auto message = [&](std::vector<Label> labels) { return pca_direction(h.view(), labels).error().message; };
  CHECK(message({1, 0, 1, 0}) ==
        "steer: pca: the row with label 1 comes first in 2 of 2 pairs, so the mean of the differences is the concept and is "
        "subtracted: shuffle the order inside each pair");
  CHECK(message({1, 0, 1}) == "steer: pca: 3 labels for 4 rows of activations: give one label per row");
  CHECK(message({1, 0, 1, 1}) == "steer: pca: both rows of pair 1 have the label 1: a pair is one row of each label");
  CHECK(message({1, 0, 2, 1}) == "steer: pca: label 2 is 2: a label is 0 or 1");
  const std::vector<Label> labels{1, 0, 0, 1};
  CHECK(pca_direction(matrix(2, 2, {1, 0, 0, 1}).view(), std::span(labels).first(2)).error().message ==
        "steer: pca: 1 pairs: give at least 2");
  CHECK(pca_direction(matrix(3, 1, {1, 0, 0}).view(), std::span(labels).first(3)).error().message ==
        "steer: pca: 3 rows are no pairs: rows 2i and 2i + 1 belong together");
  CHECK(pca_direction(Matrix(4, 2).view(), labels).error().code == ErrorCode::numerical);
  Matrix bad(h.view());
  bad(2, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK(pca_direction(bad.view(), labels).error().message ==
        "steer: pca: row 2 of the activations is not finite at channel 1: the model overflows on this text, leave it out or use "
        "another model");
  CHECK(mean_difference(h.view(), std::vector<Label>{1, 1, 1, 1}).error().message ==
        "steer: mean difference: all 4 labels are 1: give rows of both");
  CHECK(mean_difference(h.view(), std::vector<Label>{1, 0, 1, 1}).error().message ==
        "steer: mean difference: one of 4 labels is 0: give at least two rows of each");
  // One pair of 21 in the other order leaves next to nothing of the concept; two of 20 pass.
  for (const auto& [pairs, turned] : {std::pair<Index, Index>{21, 1}, {20, 2}}) {
    Matrix nearly(2 * pairs, 2);
    std::vector<Label> order;
    for (Index i = 0; i < pairs; ++i)
      for (const Label label : {static_cast<Label>(i < turned), static_cast<Label>(i >= turned)}) {
        nearly(static_cast<Index>(order.size()), 0) = static_cast<float>(label);
        nearly(static_cast<Index>(order.size()), 1) = 0.01f * static_cast<float>(order.size() % 5);
        order.push_back(label);
      }
    const auto d = pca_direction(nearly.view(), order);
    CHECK(d.ok() == (turned == 2));
    if (!d) CHECK(d.error().message.find("label 0 comes first in 20 of 21 pairs") != std::string::npos);
  }
  std::vector<Label> rare(40, 1);
  rare[0] = rare[1] = rare[2] = 0;
  CHECK(mean_difference(Matrix(40, 2).view(), rare).error().message ==
        "steer: mean difference: 3 of 40 labels are 0, under a tenth: give about as many rows of each label");
  // Differences along two axes alike leave the component open.
  CHECK(pca_direction(matrix(8, 2, {1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1}).view(),
                      std::vector<Label>{1, 0, 0, 1, 1, 0, 0, 1})
            .error()
            .code == ErrorCode::numerical);
}

TEST_CASE("a probe at the optimum: the gradient vanishes and ties are ranked in order") {
  const Matrix x = matrix(6, 2, {2, 1, 1, 3, 0, 1, -1, 0, -2, 1, 1, -1});
  const std::vector<Label> labels{1, 1, 1, 0, 0, 0};
  const Probe p = fit_probe(x.view(), labels).value();
  CHECK(accuracy(p, x.view(), labels) == 1);
  // d/dw: w = C sum y (1 - p) x; d/db: sum y (1 - p) = 0.
  std::vector<double> gradient{p.weight[0], p.weight[1], 0};
  const std::vector<double> z = decisions(p, x.view());
  for (std::size_t i = 0; i < 6; ++i) {
    const double off = labels[i] - 1 / (1 + std::exp(-z[i]));
    for (std::size_t j = 0; j < 2; ++j) gradient[j] -= off * static_cast<double>(x.view().row(static_cast<Index>(i))[j]);
    gradient[2] -= off;
  }
  for (const double g : gradient) CHECK(std::abs(g) < 1e-7);
  const std::vector<double> values{0.5, 0.75, 0.5, 0.75, 0.25};
  CHECK((ranking(values) == std::vector<std::size_t>{1, 3, 0, 2, 4}));
  CHECK(fit_probe(x.view(), labels, {.c = 0}).error().message == "steer: probe: C is 0.000000: it must be above 0");
  CHECK(fit_probe(x.view(), std::vector<Label>(6, 0)).error().message == "steer: probe: all 6 labels are 0: give rows of both");
  // One channel that is a thousand times as large, and a separable set with a weak penalty.
  Matrix large(x.view());
  for (Index r = 0; r < 6; ++r) large(r, 0) *= 1000;
  CHECK(fit_probe(large.view(), labels).ok());
  CHECK(fit_probe(x.view(), labels, {.c = 1e6}).ok());
}
