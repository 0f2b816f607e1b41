// The search for loops of a trellis against the readable twin and the reference's optima.

#include <anybit/simd/trellis_search.hpp>

#include <cmath>
#include <fstream>
#include <random>
#include <vector>

#include <nlohmann/json.hpp>

#include <anybit/io/safetensors.hpp>
#include <anybit/reference/trellis.hpp>
#include <anybit/scheme/trellis_code.hpp>
#include <anybit/scheme/trellis_codebooks.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;
namespace ref = anybit::reference;

namespace {

std::vector<float> normal(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(n);
  for (float& v : x) v = distribution(random);
  return x;
}

/// sum of (value - x)^2, after the check that it is a loop.
template <class Book, int L, int K>
double cost_of(const std::vector<std::uint16_t>& loop, std::span<const float> x) {
  double sum = 0;
  for (std::size_t t = 0; t < loop.size(); ++t) {
    using Code = BitshiftTrellis<L, K>;
    REQUIRE(Code::edge_before(loop[t]) == Code::edge_after(loop[(t + loop.size() - 1) % loop.size()]));
    const double d = static_cast<double>(Book::value(loop[t])) - static_cast<double>(x[t]);
    sum += d * d;
  }
  return sum;
}

template <class Book, int L, int K>
void check_against_twin(std::size_t steps, unsigned seed) {
  INFO("L = " << L << ", K = " << K << ", " << steps << " steps");
  const simd::TrellisValues<K, 1> values(L, trellis_table<Book, L>());
  simd::TrellisSearch<K, 1> search(values, static_cast<Index>(steps));
  const auto x = normal(steps, seed);
  const std::vector<float> ones(steps, 1.0f);
  std::vector<std::uint16_t> loop(steps);
  search.aim(x, ones);
  const ref::TrellisShape shape{L, K};
  const auto value = [](Index s) { return static_cast<double>(Book::value(static_cast<std::uint32_t>(s))); };
  const auto two = ref::tail_biting_in_two_passes(ref::Vector(x), shape, value);
  const double cost = search.two_passes(loop);
  CHECK(cost == Approx(two.cost).epsilon(1e-6));
  CHECK(cost_of<Book, L, K>(loop, x) == Approx(cost).epsilon(1e-9));
  if (L > 8) return;
  const auto best = ref::tail_biting(ref::Vector(x), shape, value);
  const double exact = search.exact(loop);
  CHECK(exact == Approx(best.cost).epsilon(1e-6));
  CHECK(cost_of<Book, L, K>(loop, x) == Approx(exact).epsilon(1e-9));
}

template <class Book, int L, int K>
void check_vectors(const io::SafetensorsFile& file, const nlohmann::json& expected) {
  const std::string name =
      "encoder.L" + std::to_string(L) + "." + std::string(std::string_view(Book::name)) + ".K" + std::to_string(K);
  INFO(name);
  const auto x = *file.read_f32(name + ".x");
  const simd::TrellisValues<K, 1> values(L, trellis_table<Book, L>());
  simd::TrellisSearch<K, 1> search(values, 256);
  const std::vector<float> ones(256, 1.0f);
  std::vector<std::uint16_t> loop(256);
  for (Index i = 0; i < x.rows(); ++i) {
    const double optimum = expected[name]["optimal_cost"][static_cast<std::size_t>(i)],
                 two = expected[name]["two_pass_cost"][static_cast<std::size_t>(i)];
    search.aim(x.view().row(i), ones);
    const double mine = search.two_passes(loop);
    CHECK(cost_of<Book, L, K>(loop, x.view().row(i)) == Approx(mine).epsilon(1e-9));
    CHECK(mine >= optimum * (1 - 1e-9));
    CHECK(mine <= two * 1.001);
    const double exact = search.exact(loop);
    CHECK(cost_of<Book, L, K>(loop, x.view().row(i)) == Approx(exact).epsilon(1e-9));
    CHECK(exact == Approx(optimum).epsilon(1e-6));
  }
}

}  // namespace

TEST_CASE("trellis search: costs of the readable twin at all widths") {
  check_against_twin<Mul1, 8, 1>(64, 1), check_against_twin<Mul1, 8, 2>(64, 2), check_against_twin<ThreeInst, 8, 3>(32, 3);
  check_against_twin<Mul1, 8, 4>(64, 4), check_against_twin<Mcg, 4, 2>(16, 5), check_against_twin<Mul1, 6, 3>(33, 6);
  check_against_twin<Mul1, 12, 3>(256, 7), check_against_twin<Mul1, 11, 1>(128, 8), check_against_twin<Mul1, 12, 6>(50, 9);
}

TEST_CASE("trellis search: weights and free places count as they should") {
  constexpr int K = 2;
  const simd::TrellisValues<K, 1> values(8, trellis_table<Mul1, 8>());
  simd::TrellisSearch<K, 1> search(values, 64);
  auto x = normal(64, 3), root = std::vector<float>(64, 1.0f);
  for (std::size_t i = 40; i < 64; ++i) root[i] = 0, x[i] = 1e20f;  // free: their targets do not matter
  for (std::size_t i = 0; i < 8; ++i) root[i] = 0.25f;
  std::vector<std::uint16_t> loop(64), other(64);
  search.aim(x, root);
  const double cost = search.exact(loop);
  double sum = 0;
  for (std::size_t i = 0; i < 40; ++i)
    sum += std::pow(static_cast<double>(root[i]) * (static_cast<double>(Mul1::value(loop[i])) - static_cast<double>(x[i])), 2);
  CHECK(cost == Approx(sum).epsilon(1e-6));
  // Closer where it counts than a search that weighs all alike.
  search.aim(x, std::vector<float>(64, 1.0f));
  search.exact(other);
  double theirs = 0;
  for (std::size_t i = 0; i < 40; ++i)
    theirs +=
        std::pow(static_cast<double>(root[i]) * (static_cast<double>(Mul1::value(other[i])) - static_cast<double>(x[i])), 2);
  CHECK(cost < theirs);
}

TEST_CASE("trellis search: two weights a step") {
  constexpr int L = 6, K = 3;
  const auto& table = trellis_table<BytePairs, L>();
  const simd::TrellisValues<K, 2> values(L, table);
  simd::TrellisSearch<K, 2> search(values, 32);
  auto x = normal(64, 11);
  for (float& v : x) v *= 50;
  search.aim(x, std::vector<float>(64, 1.0f));
  std::vector<std::uint16_t> loop(32);
  const double cost = search.exact(loop);
  double sum = 0;
  for (std::size_t i = 0; i < 64; ++i)
    sum += std::pow(
        static_cast<double>(trellis_value<BytePairs>(loop[i / 2], static_cast<Index>(i % 2))) - static_cast<double>(x[i]), 2);
  CHECK(cost == Approx(sum).epsilon(1e-9));
  // Every loop tried: dynamic programming from every edge, in double.
  double best = 1e300;
  for (std::uint32_t edge = 0; edge < 8; ++edge) {
    std::vector<double> now(8, 1e300);
    now[edge] = 0;
    for (std::size_t t = 0; t < 32; ++t) {
      std::vector<double> next(8, 1e300);
      for (std::uint32_t s = 0; s < 64; ++s) {
        double c = now[s >> 3];
        for (Index v = 0; v < 2; ++v)
          c += std::pow(
              static_cast<double>(trellis_value<BytePairs>(s, v)) - static_cast<double>(x[2 * t + static_cast<std::size_t>(v)]),
              2);
        next[s & 7] = std::min(next[s & 7], c);
      }
      now = next;
    }
    best = std::min(best, now[edge]);
  }
  CHECK(cost == Approx(best).epsilon(1e-6));
}

TEST_CASE("trellis search: the optima of the reference vectors") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/exl3.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(json_path, "vectors/exl3.json");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file);
  std::ifstream stream(json_path);
  const auto expected = nlohmann::json::parse(stream)["encoder"];
  check_vectors<ThreeInst, 12, 1>(*file, expected), check_vectors<ThreeInst, 12, 2>(*file, expected);
  check_vectors<Mul1, 12, 3>(*file, expected), check_vectors<Mul1, 12, 4>(*file, expected);
  check_vectors<ThreeInst, 16, 1>(*file, expected), check_vectors<Mcg, 16, 2>(*file, expected);
  check_vectors<Mul1, 16, 3>(*file, expected), check_vectors<Mul1, 16, 4>(*file, expected);
  check_vectors<Mul1, 16, 1>(*file, expected);
}
