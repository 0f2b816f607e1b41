// Grid, straight-through gradients, datapath and integer products against vectors/superfloat_2026, which were checked against the
// published code and simulated hardware.

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <anybit/format/superfloat.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/train/wasq/datapath.hpp>
#include <anybit/train/wasq/fixed_point.hpp>
#include <anybit/train/wasq/straight_through.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"
#include "train/differences.hpp"

using namespace anybit;
namespace wasq = anybit::train::wasq;
using wasq::SuperfloatGrid;

namespace {

io::SafetensorsFile open_vectors(const std::string& path) {
  auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  return *std::move(file);
}
template <class T>
std::vector<T> values(const io::SafetensorsFile& file, const std::string& name) {
  INFO(name);
  auto read = file.read<T>(name);
  REQUIRE(read.ok());
  return *std::move(read);
}
Matrix matrix(const io::SafetensorsFile& file, const std::string& name) {
  INFO(name);
  auto read = file.read_f32(name);
  REQUIRE(read.ok());
  return *std::move(read);
}

using Doubles = std::vector<double>;
MatrixView<double> view(Doubles& v, Index rows, Index cols) { return {v.data(), rows, cols}; }
MatrixView<const double> view(const Doubles& v, Index rows, Index cols) { return {v.data(), rows, cols}; }
Doubles doubles(const Matrix& m) { return {m.data(), m.data() + m.extents().size()}; }

/// max |got - want| over max |want|.
double relative(const Doubles& got, const Doubles& want) {
  double most = 0, difference = 0;
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    most = std::max(most, std::abs(want[i]));
    difference = std::max(difference, std::abs(got[i] - want[i]));
  }
  return difference / most;
}

template <int Bits>
void check_format(const io::SafetensorsFile& file) {
  const std::string name = "sf" + std::to_string(Bits);
  const auto x = values<float>(file, name + ".x");
  const auto k = values<std::int16_t>(file, name + ".k");
  const auto code = values<std::uint16_t>(file, name + ".code");
  const auto gradient = values<std::uint8_t>(file, name + ".grad");
  const SuperfloatGrid grid{Bits};
  Index wrong = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    wrong += grid.to_int(x[i]) != k[i];
    wrong += grid.passes(x[i]) != (gradient[i] != 0);
    wrong += grid.is_dead(x[i]) != (k[i] == 0);
    wrong += Superfloat<Bits>::encode(x[i]) != code[i];
    wrong += Superfloat<Bits>::decode(code[i]) != grid.round(x[i]);
  }
  CHECK(wrong == 0);
}
template <int... Bits>
void check_formats(const io::SafetensorsFile& file, std::integer_sequence<int, Bits...>) {
  (check_format<Bits + 2>(file), ...);
}

}  // namespace

TEST_CASE("superfloat grid: the gradient passes at the bound and one step before and not one behind") {
  for (int bits = 2; bits <= 16; ++bits) {
    const SuperfloatGrid grid{bits};
    const float most = grid.largest(), above = std::nextafter(most, 2.0f);
    CHECK(grid.passes(most));
    CHECK(grid.passes(-most));
    CHECK(!grid.passes(above));
    CHECK(!grid.passes(-above));
    CHECK(grid.round(most) == most);
    CHECK(grid.round(above) == most);
    CHECK(grid.round(-100.0f) == -most);
    CHECK(grid.round(grid.step() / 2) == 0);
    CHECK(grid.round(std::nextafter(grid.step() / 2, 1.0f)) == grid.step());
    CHECK(!grid.passes(std::numeric_limits<float>::quiet_NaN()));
  }
}

TEST_CASE("superfloat grid: every width as the vectors have it") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  check_formats(open_vectors(path), std::make_integer_sequence<int, 15>());
}

TEST_CASE("superfloat grid: truncation with the inverted sign is the decoder of 2025") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat.safetensors");
  const auto file = open_vectors(path);
  for (const int bits : {4, 8, 11, 13}) {
    const std::string name = "sf" + std::to_string(bits);
    const auto x = values<float>(file, name + ".x"), decoded = values<float>(file, name + ".ref_decode");
    const SuperfloatGrid grid{bits, wasq::Rounding::truncate, true};
    for (std::size_t i = 0; i < x.size(); ++i)
      if (grid.round(x[i]) != decoded[i]) FAIL(name << " of " << x[i] << ": " << grid.round(x[i]) << " not " << decoded[i]);
  }
}

TEST_CASE("superfloat grid: Q1.15 with scales and as CUDA clips it") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  const auto file = open_vectors(path);
  const auto x = values<float>(file, "q115.x");
  for (const int scale : {1, 3, 8}) {
    const wasq::Q115 q{static_cast<float>(scale)};
    const std::string name = "q115.s" + std::to_string(scale);
    const auto k = values<std::int16_t>(file, name + ".k");
    const auto value = values<float>(file, name + ".value");
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(q.to_int(x[i]) == k[i]);
      CHECK(q.round(x[i]) == value[i]);
    }
  }
  for (const int scale : {1, 2}) {
    const wasq::Q115 q{static_cast<float>(scale), -0.999f, 0.999f};
    const auto k = values<std::int16_t>(file, "q115.cuda.s" + std::to_string(scale) + ".k");
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(q.to_int(x[i]) == k[i]);
  }
}

TEST_CASE("straight-through: gradients with a shared scale per channel are torch's") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  const auto file = open_vectors(path);
  const Doubles x = doubles(matrix(file, "ste.X")), g = doubles(matrix(file, "blk.ln.g.qkv"));
  const SuperfloatGrid grid{4};
  constexpr Index inputs = 32, tokens = 7;
  Doubles dg(inputs, 0.0);
  struct One {
    std::string name;
    Index rows;
    Doubles w, d;
  };
  std::vector<One> all;
  for (const auto& [name, rows] : {std::pair{"q", Index{32}}, {"k", Index{16}}, {"v", Index{16}}}) {
    One one{name, rows, doubles(matrix(file, std::string("blk.W.") + name)), {}};
    const Doubles dy = doubles(matrix(file, "ste.dY." + one.name));
    one.d.assign(one.w.size(), 0.0);  // dL/dW' = dY^T X
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < inputs; ++c)
          view(one.d, rows, inputs)(r, c) += view(dy, tokens, rows)(t, r) * view(x, tokens, inputs)(t, c);
    wasq::straight_through<double>(grid, view(std::as_const(one.w), rows, inputs), {wasq::ScaleAxis::columns, g},
                                   view(one.d, rows, inputs), dg);
    CHECK(relative(one.d, values<double>(file, "ste.detached.dW." + one.name)) < 1e-10);
    all.push_back(std::move(one));
  }
  // The scale's gradient belongs to the largest weight of the channel, whichever matrix has it.
  for (Index c = 0; c < inputs; ++c) {
    if (c == 3) continue;  // a dead channel: every weight is the largest
    for (One& one : all)
      for (Index r = 0; r < one.rows; ++r) {
        const double w = view(one.w, one.rows, inputs)(r, c);
        if (std::abs(w) == g[static_cast<std::size_t>(c)])
          view(one.d, one.rows, inputs)(r, c) += (w < 0 ? -1 : 1) * dg[static_cast<std::size_t>(c)];
      }
  }
  for (One& one : all) {
    Doubles want = values<double>(file, "ste.attached.dW." + one.name);
    for (Index r = 0; r < one.rows; ++r) view(want, one.rows, inputs)(r, 3) = view(one.d, one.rows, inputs)(r, 3) = 0;
    CHECK(relative(one.d, want) < 1e-10);
  }
}

TEST_CASE("datapath: sites of every granularity") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  const auto file = open_vectors(path);
  const Matrix x = matrix(file, "psd.X"), calibration = matrix(file, "psd.Xcal");
  const std::pair<wasq::SiteScale, std::string> kinds[] = {{wasq::SiteScale::none, "none"},
                                                           {wasq::SiteScale::tensor, "tensor"},
                                                           {wasq::SiteScale::channel, "chan"},
                                                           {wasq::SiteScale::token, "token"},
                                                           {wasq::SiteScale::channel_token, "chan+token"}};
  for (const auto& [scale, name] : kinds)
    for (const int bits : {4, 8, 16})
      for (const bool powers : {false, true}) {
        if (powers && scale == wasq::SiteScale::none) continue;
        wasq::Site site(SuperfloatGrid{bits}, scale, powers);
        site.calibrate(calibration.view());
        Matrix rounded(x.view());
        wasq::SiteCensus census;
        site.round(rounded.view(), &census);
        const std::string key = "psd.site." + name + ".b" + std::to_string(bits) + (powers ? ".pow2" : "");
        INFO(key);
        CHECK(test_support::same_bits(rounded, matrix(file, key)));
        CHECK(census.values == x.extents().size());
        if (scale == wasq::SiteScale::none && bits == 8) CHECK(census.clipped == 350);
        if (scale == wasq::SiteScale::channel_token && bits == 4 && !powers) CHECK(census.clipped == 30);
      }
}

TEST_CASE("datapath: a product between rounded sites") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  const auto file = open_vectors(path);
  const Matrix w = matrix(file, "psd.W"), x = matrix(file, "psd.X"), calibration = matrix(file, "psd.Xcal");
  std::vector<float> g(40, 0.0f);
  wasq::column_maxima(w.view(), g);
  CHECK(g == values<float>(file, "psd.W.g"));
  Matrix rounded(w.rows(), w.cols());
  wasq::round_weights<float>(SuperfloatGrid{8}, w.view(), {wasq::ScaleAxis::columns, g}, rounded.view(), 0, w.rows());
  for (const std::string name : {"tensor", "token"}) {
    wasq::Site in(SuperfloatGrid{8}, name == "tensor" ? wasq::SiteScale::tensor : wasq::SiteScale::token);
    in.calibrate(calibration.view());
    Matrix operand(x.view());
    in.round(operand.view());
    Doubles product(24 * 32, 0.0);
    for (Index t = 0; t < 24; ++t)
      for (Index r = 0; r < 32; ++r)
        for (Index c = 0; c < 40; ++c)
          product[static_cast<std::size_t>(t * 32 + r)] +=
              static_cast<double>(operand(t, c)) * static_cast<double>(rounded(r, c));
    CHECK(relative(product, values<double>(file, "psd.mm." + name + ".acc")) < 1e-7);
  }
  CHECK(wasq::accumulator_bits(8, 8, 11.06, 5.94, 24.07) == 15);
  CHECK(wasq::accumulator_bits(8, 8, 3122.7, 7.0, 23386.5) == 16);
  CHECK(wasq::accumulator_bits(16, 16, 1, 1, 900) == 41);
  CHECK(wasq::accumulator_bits(6, 4, 2, .5, .25) == 9);
}

TEST_CASE("fixed point: whole products narrowed once") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  const auto file = open_vectors(path);
  const Matrix w = matrix(file, "psd.W"), x = matrix(file, "psd.X");
  for (const int bits : {4, 8}) {
    const SuperfloatGrid grid{bits};
    const auto ints = [&](const Matrix& m, float factor) {
      std::vector<std::int16_t> out;
      for (Index i = 0; i < m.extents().size(); ++i) out.push_back(static_cast<std::int16_t>(grid.to_int(factor * m.data()[i])));
      return out;
    };
    const auto a = ints(x, 0.05f), b = ints(w, 1);
    for (const auto& [narrow, name] : {std::pair{wasq::Narrow::nearest, "nearest"}, {wasq::Narrow::truncate, "truncate"}}) {
      const wasq::FixedPoint p{.bits = bits, .narrow = narrow, .accumulator = wasq::Accumulator::whole_products};
      const auto want = values<std::int16_t>(file, "psd.int.b" + std::to_string(bits) + "." + name);
      for (std::size_t t = 0; t < 24; ++t)
        for (std::size_t r = 0; r < 32; ++r)
          CHECK(p.dot(std::span(a).subspan(t * 40, 40), std::span(b).subspan(r * 40, 40)) == want[t * 32 + r]);
    }
  }
}

TEST_CASE("fixed point: products and sums of the published hardware to the bit") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/superfloat_2026.safetensors");
  const auto file = open_vectors(path);
  const auto a = values<std::int16_t>(file, "rtl.a"), b = values<std::int16_t>(file, "rtl.b"),
             acc = values<std::int16_t>(file, "rtl.acc"), mul = values<std::int16_t>(file, "rtl.mul"),
             fma = values<std::int16_t>(file, "rtl.fma"), helper_mul = values<std::int16_t>(file, "rtl.helper.mul"),
             helper_fma = values<std::int16_t>(file, "rtl.helper.fma"), bias = values<std::int16_t>(file, "rtl.act.bias"),
             none = values<std::int16_t>(file, "rtl.act.none"), relu = values<std::int16_t>(file, "rtl.act.relu"),
             leaky = values<std::int16_t>(file, "rtl.act.leaky");
  const wasq::FixedPoint rtl{}, helper{.narrow = wasq::Narrow::floor, .lowest_is_zero = false};
  using wasq::OutputActivation;
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(a[i] << " times " << b[i] << " plus " << acc[i]);
    CHECK(rtl.multiply(a[i], b[i]) == mul[i]);
    CHECK(rtl.add(acc[i], rtl.multiply(a[i], b[i])) == fma[i]);
    const auto floored = std::clamp<std::int64_t>(helper.multiply(a[i], b[i]), -32768, 32767);
    CHECK(floored == helper_mul[i]);
    CHECK(helper.add(acc[i], floored) == helper_fma[i]);
    CHECK(wasq::output_unit(acc[i], bias[i], OutputActivation::none) == none[i]);
    CHECK(wasq::output_unit(acc[i], bias[i], OutputActivation::relu) == relu[i]);
    CHECK(wasq::output_unit(acc[i], bias[i], OutputActivation::leaky) == leaky[i]);
  }
  const auto sm_a = values<std::uint16_t>(file, "rtl.sm.a"), sm_b = values<std::uint16_t>(file, "rtl.sm.b");
  for (const auto& [dropped, name] : {std::pair{0, "mul"}, {10, "mul_trunc10"}, {12, "mul_trunc12"}}) {
    const wasq::FixedPoint p{.dropped_columns = dropped};
    const auto want = values<std::int16_t>(file, std::string("rtl.sm.") + name);
    for (std::size_t i = 0; i < want.size(); ++i)
      CHECK(p.multiply(wasq::from_sign_magnitude(sm_a[i]), wasq::from_sign_magnitude(sm_b[i])) == want[i]);
  }
  const auto left = values<std::int16_t>(file, "rtl.mm.A"), right = values<std::int16_t>(file, "rtl.mm.B");
  const auto code = values<std::uint16_t>(file, "rtl.mm.sm_code");
  using wasq::Accumulator, wasq::FixedPoint, wasq::Narrow;
  const std::pair<std::string, FixedPoint> arrays[] = {
      {"fma", rtl},
      {"pe24", {.accumulator = Accumulator::wrap24}},
      {"helper", helper},
      {"sm", {.accumulator = Accumulator::saturate16_symmetric}},
      {"sm_trunc10", {.accumulator = Accumulator::saturate16_symmetric, .dropped_columns = 10}},
      {"sm_trunc12", {.accumulator = Accumulator::saturate16_symmetric, .dropped_columns = 12}}};
  for (const auto& [name, p] : arrays) {
    const auto want = values<std::int16_t>(file, "rtl.mm." + name);
    for (std::size_t r = 0; r < 4; ++r)
      for (std::size_t c = 0; c < 4; ++c) {
        std::vector<std::int16_t> column;
        for (std::size_t i = 0; i < 16; ++i) column.push_back(right[i * 4 + c]);
        INFO(name << " " << r << " " << c);
        CHECK(p.dot(std::span(left).subspan(r * 16, 16), column) == want[r * 4 + c]);
        if (name == "sm") CHECK(wasq::to_sign_magnitude(want[r * 4 + c]) == code[r * 4 + c]);
      }
  }
  const auto wrapped = values<std::int16_t>(file, "rtl.wrap24.out");
  const FixedPoint wrap{.accumulator = Accumulator::wrap24};
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < wrapped.size(); ++i) {
    sum = wrap.add(sum, wrap.multiply(32767, 32767));
    CHECK(wrap.read(sum) == wrapped[i]);
  }
}
