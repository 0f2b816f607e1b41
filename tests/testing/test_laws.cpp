#include <anybit/format/formats.hpp>
#include <anybit/scheme/granularity.hpp>
#include <anybit/scheme/layouts.hpp>
#include <anybit/testing/laws.hpp>

#include <vector>

#include "support/catch.hpp"

// A law that never fails proves nothing: each is broken here once, by the smallest change to something that keeps it.

using namespace anybit;
using namespace anybit::testing;

namespace {

bool mentions(const Violation& v, std::string_view text) { return v.find(text) != Violation::npos; }

struct Honest : SInt<4> {};

struct TruncatingInt : SInt<4> {
  static constexpr Code encode(float x) {
    return SInt<4>::encode(x == x ? static_cast<float>(static_cast<int>(x > 100 ? 100 : x < -100 ? -100 : x)) : 0.0f);
  }
};
struct WrappingInt : SInt<4> {
  static constexpr Code encode(float x) { return x > 7 && x < 1e6f ? Code{8} : SInt<4>::encode(x); }
};
struct NanAsLargest : SInt<4> {
  static constexpr Code encode(float x) { return x == x ? SInt<4>::encode(x) : Code{7}; }
};
struct ZeroForInfinity : SInt<4> {
  static constexpr Code encode(float x) { return x > 1e30f ? Code{0} : SInt<4>::encode(x); }
};
struct CodeTooLarge : SInt<4> {
  static constexpr Code encode(float x) { return static_cast<Code>(SInt<4>::encode(x) | 16); }
};
struct OtherInteger : SInt<4> {
  static constexpr std::int32_t to_int(Code c) { return c; }
};
struct ForgetsALevel : SInt<4> {
  static constexpr Code encode(float x) { return x == 3 ? Code{2} : SInt<4>::encode(x); }
};
struct InfiniteScale : SInt<4> {
  static constexpr Affine fit(std::span<const float> v) { return {abs_max(v) * 1e30f, 0}; }
};
struct NegativeScale : SInt<4> {
  static constexpr Affine fit(std::span<const float> v) { return {v.empty() ? 0 : -abs_max(v), 0}; }
};
struct FractionalZero : UInt<4> {
  static constexpr Affine fit(std::span<const float> v) { return {UInt<4>::fit(v).scale, 0.5f}; }
};
struct AddsThenRounds : UInt<4> {  // wrong only beyond its range
  static constexpr Code encode_around(float x, float zero) { return x > 10 ? Code{10} : UInt<4>::encode_around(x, zero); }
};
struct BadName : SInt<4> {
  static constexpr std::string_view name = "My/Format";
};

struct HalvingScales : IndependentScales<HalvingScales, std::uint32_t> {
  static constexpr std::string_view name = "halving";
  static constexpr float largest = std::numeric_limits<float>::max();
  static constexpr std::uint32_t encode(float s) { return std::bit_cast<std::uint32_t>(s / 2); }
  static constexpr float decode(std::uint32_t p) { return std::bit_cast<float>(p); }
};
struct OverflowingScales : IndependentScales<OverflowingScales, std::uint16_t> {
  static constexpr std::string_view name = "overflowing";
  static constexpr float largest = 65504;
  static constexpr std::uint16_t encode(float s) { return f32_to_f16(s); }
  static constexpr float decode(std::uint16_t p) { return f16_to_f32(p); }
};
struct ForgetsFirst : ScaleF32 {
  static void load(const std::byte* in, Index n, Index, std::span<float> out) { ScaleF32::load(in, n, 0, out); }
};
struct RelativeToFirst : ScaleF32 {  // joint, but does not say so
  static void round_trip(std::span<float> s) {
    for (std::size_t i = s.size(); i-- > 0;) s[i] = s[0];
  }
  static void store(std::span<const float> s, std::byte* out) {
    std::vector<float> equal(s.begin(), s.end());
    round_trip(equal);
    ScaleF32::store(equal, out);
  }
};

struct SaturatesEarly : ScaleF16 {
  static constexpr float largest = 1e6f;
};
struct SaturatesLate : ScaleF16 {
  static constexpr float largest = 4096;
};

/// Columns in two halves: lawful.
struct PerHalfRow {
  static constexpr std::string_view name = "half";
  static constexpr Index group_cols(Index cols) { return ceil_div(cols, 2); }
  static constexpr Index groups_per_row(Index cols) { return cols > 1 ? 2 : cols; }
  static constexpr Index count(Extents e) { return e.rows * groups_per_row(e.cols); }
  static constexpr Index index(Extents e, Index row, Index g) { return row * groups_per_row(e.cols) + g; }
};
struct SharesTwoRows : PerRow {
  static constexpr Index count(Extents e) { return e.cols > 0 ? ceil_div(e.rows, 2) : 0; }
  static constexpr Index index(Extents, Index row, Index) { return row / 2; }
};
struct ColumnsFirst : PerGroup<32> {
  static constexpr Index index(Extents e, Index row, Index g) { return g * e.rows + row; }
};
struct ForgetsTheRest : PerGroup<32> {
  static constexpr Index groups_per_row(Index cols) { return cols / 32; }
  static constexpr Index count(Extents e) { return e.rows * groups_per_row(e.cols); }
  static constexpr Index index(Extents e, Index row, Index g) { return row * groups_per_row(e.cols) + g; }
};
struct GroupsOfNothing : PerGroup<32> {
  static constexpr Index group_cols(Index) { return 0; }
};

struct LeavesRubbish : BitStream {
  template <int Bits>
  static void pack(std::span<const StoredCode<Bits>> codes, std::byte* out) {
    const std::byte before = codes.empty() ? std::byte{} : out[packed_bytes<Bits>(static_cast<Index>(codes.size())) - 1];
    BitStream::pack<Bits>(codes, out);
    if (codes.size() * Bits % 8 != 0) out[packed_bytes<Bits>(static_cast<Index>(codes.size())) - 1] |= before & std::byte{0x80};
  }
};
struct SetsUnusedBit : BitStream {
  template <int Bits>
  static void pack(std::span<const StoredCode<Bits>> codes, std::byte* out) {
    BitStream::pack<Bits>(codes, out);
    if (codes.size() * Bits % 8 != 0) out[packed_bytes<Bits>(static_cast<Index>(codes.size())) - 1] |= std::byte{0x80};
  }
};
struct IgnoresFirst : BitStream {
  template <int Bits>
  static void unpack(const std::byte* in, Index n, Index, std::span<StoredCode<Bits>> out) {
    BitStream::unpack<Bits>(in, n, 0, out);
  }
};

}  // namespace

TEST_CASE("format laws hold where they should and notice each fault") {
  CHECK(check_format_laws<Honest>() == "");
  CHECK(mentions(check_format_laws<TruncatingInt>(), "is nearer"));
  CHECK(mentions(check_format_laws<WrappingInt>(), "but the larger"));
  CHECK(mentions(check_format_laws<NanAsLargest>(), "nan is encoded"));
  CHECK(mentions(check_saturation(facts_of<ZeroForInfinity>()), "outermost"));
  CHECK(mentions(check_format_laws<CodeTooLarge>(), "codes end below"));
  CHECK(mentions(check_format_laws<OtherInteger>(), "step * to_int"));
  CHECK(mentions(check_format_laws<ForgetsALevel>(), "which encodes and decodes to"));
  CHECK(mentions(check_format_laws<InfiniteScale>(), "gets the scale"));
  CHECK(mentions(check_format_laws<NegativeScale>(), "gets the scale"));
  CHECK(mentions(check_format_laws<FractionalZero>(), "gets the zero point"));
  CHECK(mentions(check_format_laws<AddsThenRounds>(), "around zero point"));
  CHECK(mentions(check_format_laws<BadName>(), "has the character"));
}

TEST_CASE("a violation names the format and the values") {
  CHECK(check_format_laws<NanAsLargest>() == "int4: nan is encoded as level 7, but 0 as 0");
}

TEST_CASE("scale store laws notice each fault") {
  CHECK(mentions(check_scale_store<HalvingScales>(std::vector<float>{1}), "not idempotent"));
  CHECK(mentions(check_scale_store<OverflowingScales>(std::vector<float>{1e6f}), "which is no scale"));
  CHECK(mentions(check_scale_store_laws<OverflowingScales>(), "saturates at 65504"));
  CHECK(check_scale_store_laws<SaturatesEarly>() == "f16: 1000000 becomes 65504, though it says that it saturates at 1000000");
  CHECK(mentions(check_scale_store_laws<SaturatesLate>(), "saturates at 4096, which becomes 4096"));
  CHECK(mentions(check_scale_store_laws<ForgetsFirst>(), "but loads as"));
  CHECK(mentions(check_scale_store_laws<RelativeToFirst>(), "says joint = false"));
}

TEST_CASE("granularity laws hold for those that ship and notice each fault") {
  CHECK(check_granularity_laws<PerRow>() == "");
  CHECK(check_granularity_laws<PerGroup<1>>() == "");
  CHECK(check_granularity_laws<PerGroup<32>>() == "");
  CHECK(check_granularity_laws<PerGroup<1000>>() == "");
  CHECK(check_granularity_laws<PerHalfRow>() == "");
  CHECK(mentions(check_granularity_laws<SharesTwoRows>(), "row of 2 x 1: count is 1 and not 2"));
  CHECK(mentions(check_granularity_laws<ColumnsFirst>(), "g32 of 2 x 33: index is 2 and not 1"));
  CHECK(mentions(check_granularity_laws<ForgetsTheRest>(), "groups_per_row is 0 and not 1"));
  CHECK(mentions(check_granularity_laws<GroupsOfNothing>(), "group_cols is 0"));
  // Scheme refuses the same ones.
  static_assert(is_lawful_granularity<PerHalfRow>() && is_lawful_granularity<PerTensor>());
  static_assert(!is_lawful_granularity<SharesTwoRows>() && !is_lawful_granularity<ColumnsFirst>());
  static_assert(!is_lawful_granularity<ForgetsTheRest>() && !is_lawful_granularity<GroupsOfNothing>());
}

TEST_CASE("layout laws notice each fault") {
  CHECK(check_layout_laws<BitStream, 3>() == "");
  CHECK(mentions(check_layout_laws<LeavesRubbish, 3>(), "stay set"));
  CHECK(mentions(check_layout_laws<SetsUnusedBit, 3>(), "not 0"));
  CHECK(mentions(check_layout_laws<IgnoresFirst, 3>(), "unpacks as"));
}
