#include <anybit/tensor/scheme_ops.hpp>

#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

template <ScalarScheme S>
void check_ops() {
  const SchemeOps& ops = scheme_ops_v<S>;
  using G = typename S::granularity;
  INFO(ops.name);
  CHECK(ops.name == std::string_view(S::name));
  for (const Extents e : {Extents{3, 7}, Extents{1, 1}, Extents{5, 130}, Extents{2, 0}, Extents{0, 9}}) {
    CHECK(ops.group_cols(e.cols) >= 1);
    if (e.cols > 0) CHECK(ops.group_cols(e.cols) == G::group_cols(e.cols));
    CHECK(ops.groups_per_row(e.cols) == G::groups_per_row(e.cols));
    CHECK(ops.bits_per_weight(e) == S::bits_per_weight(e));
    if (e.size() > 0) CHECK(ops.index(e, e.rows - 1, 0) == G::index(e, e.rows - 1, 0));
    const PackedBytes bytes = ops.allocate(e, e.rows == 3, "by hand");
    CHECK(bytes.scheme_name() == ops.name);
    CHECK(bytes.extents() == e);
    CHECK(bytes.has_column_order() == (e.rows == 3));
    CHECK(bytes.provenance() == "by hand");
    CHECK(ops.check(bytes).ok() == !bytes.has_column_order());  // all columns cannot be column 0
    CHECK_FALSE(scheme_ops_v<Scheme<Superfloat<7>, PerRow, ScaleF32>>.check(bytes));
  }
}

/// Pairs of rows share their bytes: no weight has a code.
struct Pairs {
  static constexpr std::string_view name = "pairs";
  static constexpr Index granule_rows = 2, granule_cols = 1;
  static std::array<SectionSize, 1> sections(Extents e) { return {{{section_tags::codes, (e.rows + 1) / 2 * e.cols}}}; }
  static void decode(Sections s, Extents e, Index row, Index col, float* out) {
    out[0] = out[1] = static_cast<float>(std::to_integer<int>(s[0][static_cast<std::size_t>(row / 2 * e.cols + col)]));
  }
};

}  // namespace

TEST_CASE("scheme ops: the facts of a scheme are the facts of its type") {
  check_ops<Scheme<SInt<4>, PerGroup<3>>>();
  check_ops<Scheme<UInt<3>, PerRow, ScaleF32>>();
  check_ops<Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>>();
  check_ops<Scheme<Superfloat<5>, PerTensor, NoScale>>();
  using Joint = Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>;
  CHECK(scheme_ops_v<Joint>.joint_scales);
  CHECK_FALSE(scheme_ops_v<Joint>.per_row);
  CHECK(scheme_ops_v<Scheme<SInt<4>, PerTensor, NoScale>>.per_tensor);
  CHECK(scheme_ops_v<Scheme<SInt<4>, PerTensor, NoScale>>.no_scales);
  CHECK(scheme_ops_v<Scheme<SInt<4>, PerRow>>.per_row);
  CHECK(scheme_ops_v<Scheme<SInt<4>, PerRow>>.largest_scale == 65504);
}

TEST_CASE("scheme ops: a scheme without codes has one group per row and no scales") {
  const SchemeOps& ops = scheme_ops_v<Pairs>;
  CHECK(ops.name == "pairs");
  CHECK(ops.group_cols(9) == 9);
  CHECK(ops.group_cols(0) == 1);
  CHECK(ops.groups_per_row(9) == 1);
  CHECK(ops.index({4, 9}, 3, 0) == 3);
  CHECK(ops.no_scales);
  CHECK(ops.bits_per_weight({4, 9}) == 4);
  CHECK(ops.bits_per_weight({3, 9}) == 8.0 * 18 / 27);
  CHECK(ops.bits_per_weight({0, 9}) == 0);
  CHECK(ops.check(ops.allocate({3, 9}, false, "")));
}
