#include <anybit/transform/hadamard.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/exec/thread_pool.hpp>

#include "support/catch.hpp"
#include "support/hostile_executor.hpp"

using namespace anybit;

namespace {

std::vector<float> random_vector(Index n, unsigned seed) {
  std::mt19937 gen(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = normal(gen);
  return v;
}

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

/// H(i, j) of the Kronecker product that the plan names, Sylvester's matrix innermost.
int entry(const anybit::detail::HadamardPlan& plan, const std::vector<std::vector<float>>& factors, Index i, Index j) {
  int sign = std::popcount(static_cast<std::size_t>((i % plan.power) & (j % plan.power))) % 2 ? -1 : 1;
  i /= plan.power, j /= plan.power;
  for (std::size_t f = factors.size(); f-- > 0;) {
    const Index order = plan.orders[f];
    if (factors[f][static_cast<std::size_t>(i % order * order + j % order)] < 0) sign = -sign;
    i /= order, j /= order;
  }
  return sign;
}

}  // namespace

TEST_CASE("paley: every order that is built is a Hadamard matrix") {
  int orders = 0;
  for (Index n = 1; n <= paley::max_order; ++n) {
    if (paley::construction(n) == paley::Construction::none) continue;
    CAPTURE(n);
    ++orders;
    const std::vector<float> h = paley::matrix(n);
    REQUIRE(static_cast<Index>(h.size()) == n * n);
    for (const float x : h)
      if (x != 1 && x != -1) FAIL("an entry is " << x);
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j <= i; ++j) {
        const auto row = [&](Index r) {
          return std::span(h).subspan(static_cast<std::size_t>(r * n), static_cast<std::size_t>(n));
        };
        if (dot(row(i), row(j)) != (i == j ? static_cast<double>(n) : 0)) FAIL("rows " << i << " and " << j);
      }
  }
  CHECK(orders > 60);
  // By hand: 27 = 3^3, 25 = 5^2, 343 = 7^3 and 49 = 7^2 need fields that are no integers mod p.
  for (const Index n : {12, 20, 28, 36, 44, 52, 60, 100, 108, 140, 344})
    CHECK(paley::construction(n) != paley::Construction::none);
  for (const Index n : {0, 1, 2, 6, 13, 92, 116, 1024, -4}) CHECK(paley::construction(n) == paley::Construction::none);
}

TEST_CASE("paley: characters of a field are multiplicative, and half of them are squares") {
  for (const Index q : {3, 7, 9, 25, 27, 49, 121, 125, 343, 361}) {
    CAPTURE(q);
    const paley::Field field(q);
    Index sum = 0;
    for (Index a = 0; a < q; ++a) sum += field.character_of_difference(a, 0);
    CHECK(sum == 0);
    // chi(a - b) = chi(-1) chi(b - a), and -1 is a square exactly for q = 1 mod 4.
    for (Index a = 0; a < q; ++a)
      for (Index b = 0; b < a; ++b)
        if (field.character_of_difference(a, b) != (q % 4 == 1 ? 1 : -1) * field.character_of_difference(b, a))
          FAIL(a << " - " << b);
  }
  for (const Index q : {1, 2, 4, 15, 21, 81, 243, 91}) CHECK(paley::prime_power(q).prime == 0);
}

TEST_CASE("hadamard: every size in use has a transform, most multiples of 4 do") {
  // Widths of published models, and small ones: 11008 is Llama 2's, 29568 Qwen 2's.
  for (const Index n : {1,    2,    4,    8,    12,   16,   20,   24,   28,   36,    64,    80,    96,    128,   576,   896,  960,
                        1536, 2560, 2816, 3584, 4864, 5632, 6912, 8960, 9216, 11008, 13824, 14336, 17920, 18944, 28672, 29568})
    CHECK(Hadamard::exists(n));
  for (const Index n : {-4, -1, 0, 3, 5, 6, 7, 9, 10, 14, 18, 92, 577, 1537}) CHECK_FALSE(Hadamard::exists(n));
  for (Index n = 4; n <= 200; n += 4) {
    CAPTURE(n);
    CHECK(Hadamard::exists(n) == !std::set<Index>{92, 116, 156, 172, 184, 188}.contains(n));
  }
}

TEST_CASE("hadamard: the transform is the matrix, its inverse the transpose") {
  for (const Index n : {1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 96, 128, 144, 240, 256, 336, 512, 576, 960, 1024, 1536}) {
    for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{3}}) {
      CAPTURE(n, seed);
      const Hadamard h = Hadamard::make(n, seed).value();
      CHECK(h.size() == n);
      const auto plan = anybit::detail::plan_hadamard(n).value();
      std::vector<std::vector<float>> factors;
      for (const Index order : plan.orders) factors.push_back(paley::matrix(order));
      CHECK(std::accumulate(plan.orders.begin(), plan.orders.end(), plan.power, std::multiplies<>()) == n);

      for (Index j = 0; j < n; j += 1 + n / 40) {
        std::vector<float> unit(static_cast<std::size_t>(n));
        unit[static_cast<std::size_t>(j)] = 1;
        h.forward(unit);
        for (const float x : unit)
          if (std::abs(std::abs(x) - 1 / std::sqrt(static_cast<float>(n))) > 1e-6f) FAIL("column " << j << " has " << x);
      }
      const std::vector<float> v = random_vector(n, 5);
      std::vector<float> y = v;
      h.forward(y);
      if (seed == 0) {
        double worst = 0;
        for (Index i = 0; i < n; ++i) {
          double truth = 0;
          for (Index j = 0; j < n; ++j) truth += entry(plan, factors, i, j) * static_cast<double>(v[static_cast<std::size_t>(j)]);
          worst = std::max(
              worst, std::abs(truth / std::sqrt(static_cast<double>(n)) - static_cast<double>(y[static_cast<std::size_t>(i)])));
        }
        CHECK(worst < 1e-5);
      }
      CHECK(dot(y, y) == Approx(dot(v, v)).epsilon(1e-5));
      const std::vector<float> w = random_vector(n, 6);
      std::vector<float> z = w;
      h.forward(z);
      CHECK(std::abs(dot(y, z) - dot(v, w)) < 1e-5 * std::sqrt(dot(v, v) * dot(w, w)));
      // <R v, w> = <v, R^T w>
      std::vector<float> back = w;
      h.inverse(back);
      CHECK(std::abs(dot(y, w) - dot(v, back)) < 1e-5 * std::sqrt(dot(v, v) * dot(w, w)));
      h.inverse(y);
      for (std::size_t i = 0; i < y.size(); ++i)
        if (std::abs(y[i] - v[i]) > 1e-5f) FAIL("round trip: " << y[i] << " was " << v[i]);
    }
  }
}

TEST_CASE("hadamard: large sizes keep lengths and come back") {
  for (const Index n : {2816, 11008, 14336, 29568, 32768}) {
    CAPTURE(n);
    const Hadamard h = Hadamard::make(n, 9).value();
    const std::vector<float> v = random_vector(n, 7);
    std::vector<float> y = v;
    h.forward(y);
    CHECK(dot(y, y) == Approx(dot(v, v)).epsilon(1e-5));
    CHECK(std::abs(dot(y, v)) < 0.1 * dot(v, v));
    h.inverse(y);
    for (std::size_t i = 0; i < y.size(); ++i)
      if (std::abs(y[i] - v[i]) > 2e-5f) FAIL("round trip: " << y[i] << " was " << v[i]);
  }
}

TEST_CASE("hadamard: the worked example of an outlier that is spread") {
  std::vector<float> v{8, 1, -1, 0.5f};
  Hadamard::make(4).value().forward(v);
  CHECK(v == std::vector<float>{4.25f, 2.75f, 4.75f, 4.25f});
  v = {4, 0, 0, 0};
  Hadamard::make(4).value().forward(v);
  CHECK(v == std::vector<float>{2, 2, 2, 2});
}

// Files store the size and the seed alone. The sums are of the signs of R, row by row (FNV-1a, one byte each, 1 for negative),
// from an independent program.
TEST_CASE("hadamard: what a size and a seed mean stays the same forever") {
  struct Known {
    Index n;
    std::uint64_t seed, sum;
  };
  for (const Known& k : {Known{12, 1, 0xdfd06a302832af55u}, Known{36, 5, 0x8544f53306f88371u}, Known{64, 7, 0x1fc5474b351d3a5u},
                         Known{240, 3, 0xbd1562e302d3ede5u}, Known{576, 1, 0x9666ec610c4d6225u},
                         Known{1536, 1, 0x9edc8617c447a525u}, Known{960, 2, 0xb096ee858e61eca5u}}) {
    CAPTURE(k.n, k.seed);
    const Hadamard h = Hadamard::make(k.n, k.seed).value();
    Matrix columns(k.n, k.n);  // row j: R's column j
    for (Index j = 0; j < k.n; ++j) columns(j, j) = 1;
    h.forward(columns.view());
    std::uint64_t sum = 0xcbf29ce484222325u;
    for (Index i = 0; i < k.n; ++i)
      for (Index j = 0; j < k.n; ++j) sum = (sum ^ (columns(j, i) < 0 ? 1u : 0u)) * 0x100000001b3u;
    CHECK(sum == k.sum);
  }
}

TEST_CASE("hadamard: rows of a view, by any number of threads, leave what lies between them alone") {
  for (const Index n : {1, 12, 24, 36, 256, 576}) {
    CAPTURE(n);
    const Hadamard h = Hadamard::make(n, 2).value();
    const Index stride = n + 5, rows = 41;
    Matrix whole(rows, stride);
    const std::vector<float> filling = random_vector(rows * stride, 8);
    std::copy(filling.begin(), filling.end(), whole.data());
    Matrix threaded(whole.view());
    h.forward(whole.view().col_range(3, 3 + n));
    ThreadPool pool(3);
    h.forward(threaded.view().col_range(3, 3 + n), pool);
    CHECK(std::memcmp(whole.data(), threaded.data(), static_cast<std::size_t>(rows * stride) * sizeof(float)) == 0);
    Matrix sliced(rows, stride);
    std::copy(filling.begin(), filling.end(), sliced.data());
    test_support::HostileExecutor hostile;
    h.forward(sliced.view().col_range(3, 3 + n), hostile);
    CHECK(std::memcmp(whole.data(), sliced.data(), static_cast<std::size_t>(rows * stride) * sizeof(float)) == 0);
    for (Index r = 0; r < rows; ++r) {
      std::vector<float> one(filling.begin() + r * stride + 3, filling.begin() + r * stride + 3 + n);
      h.forward(one);
      CHECK(std::equal(one.begin(), one.end(), &whole(r, 3)));
      for (const Index c : {Index{0}, Index{2}, n + 3, n + 4})
        CHECK(whole(r, c) == filling[static_cast<std::size_t>(r * stride + c)]);
    }
    h.inverse(threaded.view().col_range(3, 3 + n), pool);
    for (Index i = 0; i < rows * stride; ++i)
      if (std::abs(threaded.data()[i] - filling[static_cast<std::size_t>(i)]) > 1e-5f) FAIL("element " << i);
  }
  const Hadamard h = Hadamard::make(16).value();
  h.forward(MutableMatrix(nullptr, 0, 16));
}

TEST_CASE("hadamard: seeds give other signs, and equality is size and seed") {
  const Hadamard a = Hadamard::make(64, 1).value(), b = Hadamard::make(64, 2).value();
  CHECK(a == Hadamard::make(64, 1).value());
  CHECK_FALSE(a == b);
  CHECK_FALSE(a == Hadamard::make(32, 1).value());
  std::vector<float> x(64, 1), y(64, 1);
  a.forward(x), b.forward(y);
  CHECK(x != y);
}

TEST_CASE("hadamard: not finite values spoil their own vector") {
  const Hadamard h = Hadamard::make(36).value();
  Matrix m(2, 36);
  m(0, 7) = std::numeric_limits<float>::infinity();
  m(1, 7) = 1;
  h.forward(m.view());
  for (Index j = 0; j < 36; ++j) {
    CHECK(std::isinf(m(0, j)));
    CHECK(std::isfinite(m(1, j)));
  }
}

TEST_CASE("hadamard: sizes without a matrix are errors that name the nearest") {
  const auto message = [](Index n) {
    const auto made = Hadamard::make(n);
    return made ? std::string() : made.error().message;
  };
  CHECK(message(577) == "hadamard: there is no matrix of order 577; nearest to it are 576 and 592");
  CHECK(message(3) == "hadamard: there is no matrix of order 3; nearest to it are 2 and 4");
  CHECK(message(92) == "hadamard: there is no matrix of order 92; nearest to it are 88 and 96");
  CHECK(message(0) == "hadamard: there is no matrix of order 0");
  CHECK(message(-7) == "hadamard: there is no matrix of order -7");
  CHECK(message(std::numeric_limits<Index>::max()).find("there is no matrix of order") != std::string::npos);
}
