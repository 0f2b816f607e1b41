#include <anybit/format/codebook.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/tensor/quantize.hpp>
#include <anybit/testing/laws.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

// What docs/tutorial/03_a_format_of_your_own.md promises for a format of somebody else's.

namespace theirs {

using anybit::Affine;
using anybit::Code;

struct NonLinear4 {
  static constexpr int bits = 4;
  static constexpr std::string_view name = "nonlinear4";
  static constexpr anybit::Codebook<16> book{{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};
  static constexpr Code encode(float x) { return book.encode(x); }
  static constexpr float decode(Code c) { return book.decode(c); }
  static constexpr Affine fit(std::span<const float> weights) { return anybit::fit_abs_max<NonLinear4>(weights); }
};

struct Odd3 {
  static constexpr int bits = 3;
  static constexpr std::string_view name = "odd3";
  static constexpr float step = 1;
  static constexpr Code encode(float x) {
    const float c = x == x ? (x + 7) / 2 : 3.5f;
    return c <= 0 ? Code{0} : c >= 7 ? Code{7} : static_cast<Code>(anybit::round_half_even(c));
  }
  static constexpr std::int32_t to_int(Code c) { return 2 * c - 7; }
  static constexpr float decode(Code c) { return static_cast<float>(to_int(c)); }
  static constexpr Affine fit(std::span<const float> weights) { return anybit::fit_abs_max(weights, 7); }
};

/// Levels k |k|, k = -512 .. 511: finer near zero. Ten bits: stored in two bytes, no lookup table of one byte.
struct Squares10 {
  static constexpr int bits = 10;
  static constexpr std::string_view name = "squares10";
  static constexpr float decode(Code c) {
    const int k = static_cast<int>(c & 1023) - 512;
    return static_cast<float>(k < 0 ? -k * k : k * k);
  }
  static constexpr Code encode(float x) {
    int low = 0, high = 1023;  // the largest code whose level is not above x, if any
    if (!(x == x)) x = 0;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (decode(static_cast<Code>(middle)) <= x)
        low = middle;
      else
        high = middle - 1;
    }
    if (low < 1023 && decode(static_cast<Code>(low + 1)) - x < x - decode(static_cast<Code>(low))) ++low;
    return static_cast<Code>(low);
  }
  static constexpr Affine fit(std::span<const float> weights) { return anybit::fit_abs_max(weights, 511 * 511); }
};

}  // namespace theirs

using namespace anybit;

namespace {

/// Quantizes, packs, multiplies, saves, loads: all of it against plain loops over the format's own members.
template <class S>
void check_everywhere(float weight_error) {
  using F = typename S::format;
  INFO(S::name.view());
  CHECK(testing::check_format_laws<F>() == "");

  constexpr Index rows = 5, cols = 77;
  testing::Numbers numbers(5);
  Matrix w(rows, cols);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) w(r, c) = 0.03f * numbers.normal();
  std::vector<float> x(cols), y(rows), y8(rows), y_opened(rows);
  for (float& v : x) v = numbers.normal();

  const auto q = quantize_nearest<S>(w.view()).value();
  const PackedTensor<S> packed = pack(q);
  CHECK(unpack(packed) == q);
  CHECK(static_cast<Index>(packed.bytes().codes().size()) == rows * ceil_div(cols * F::bits, 8));
  matvec(packed, x, y);
  Workspace workspace;
  matvec(packed, x, y8, Compute::int8_per_token, workspace);

  const Index group = S::granularity::group_cols(cols);
  for (Index r = 0; r < rows; ++r) {
    double sum = 0, size = 0;
    for (Index c = 0; c < cols; ++c) {
      const Affine a = q.affine(r, c / group);
      const auto ci = static_cast<std::size_t>(c);
      CHECK(q.row(r)[ci] == F::encode(w(r, c) / a.scale));
      const float back = a.scale * F::decode(q.row(r)[ci]);
      CHECK(std::abs(back - w(r, c)) <= weight_error);
      sum += static_cast<double>(back) * static_cast<double>(x[ci]);
      size += std::abs(static_cast<double>(back) * static_cast<double>(x[ci]));
    }
    CHECK(std::abs(static_cast<double>(y[static_cast<std::size_t>(r)]) - sum) < 1e-5 * size);
    CHECK(std::abs(static_cast<double>(y8[static_cast<std::size_t>(r)]) - sum) < 2e-2 * size);
  }

  const test_support::TemporaryFolder folder;
  const std::string path = folder / "theirs.safetensors";
  io::AnybitWriter writer;
  writer.add("w", packed.bytes());
  REQUIRE(writer.write(path).ok());
  const auto file = io::AnybitFile::open(path);
  REQUIRE(file.ok());
  const auto bytes = file->packed("w");
  REQUIRE(bytes.ok());
  SchemeRegistry registry;
  const auto unknown = registry.open(*bytes);
  REQUIRE(!unknown.ok());
  CHECK(unknown.error().message.find(std::string(S::name.view())) != std::string::npos);
  registry.add<S>();
  const auto opened = registry.open(*bytes);
  REQUIRE(opened.ok());
  Serial serial;
  opened->matmul({x.data(), 1, cols}, {y_opened.data(), 1, rows}, Compute::f32, serial, workspace);
  CHECK(y_opened == y);
}

}  // namespace

TEST_CASE("a stranger's codebook is packed, multiplied and saved") {
  check_everywhere<Scheme<theirs::NonLinear4, PerGroup<32>, ScaleF16>>(0.012f);
  check_everywhere<Scheme<theirs::NonLinear4, PerRow, DoubleQuant<256>>>(0.012f);
}
TEST_CASE("a stranger's whole-number levels are packed, multiplied and saved") {
  check_everywhere<Scheme<theirs::Odd3, PerGroup<32>, ScaleF16>>(0.016f);
}
TEST_CASE("a stranger's wide format is packed, multiplied and saved") {
  check_everywhere<Scheme<theirs::Squares10, PerGroup<20>, ScaleF32>>(0.001f);
}
