// The weights that check_arch.hpp multiplies in every vocabulary, and whether any vocabulary is missing.

#include "kernel/check_arch.hpp"

using namespace arch_checks;

namespace {

template <AnyScheme S>
Weights weights(Extents e, unsigned seed, Compute compute) {
  const auto tensor = std::make_shared<const PackedTensor<S>>(pack(some_weights<S>(e, seed)));
  return {std::string(S::name.view()),
          e,
          compute,
          kernel::PackedRows(*tensor),
          kernel::tile_weights(*tensor, compute),
          tensor,
          [](const void* t, ConstMatrix x, Compute c) {
            return packed_reference::matmul_int8(*static_cast<const PackedTensor<S>*>(t), x, c);
          }};
}

}  // namespace

const std::vector<Weights>& arch_checks::all_weights() {
  static const auto list = [] {
    std::vector<Weights> w;
    w.push_back(weights<Scheme<SInt<8>, PerRow, ScaleF32>>({18, 1100}, 1, Compute::int8_per_token));
    w.push_back(weights<Scheme<UInt<8>, PerGroup<32>>>({33, 200}, 2, Compute::int8_per_block));
    w.push_back(weights<Scheme<Superfloat<5>, PerGroup<64>>>({17, 517}, 3, Compute::int8_per_token));
    w.push_back(weights<Scheme<Superfloat<3>, PerGroup<50>>>({5, 333}, 4, Compute::int8_per_block));
    w.push_back(weights<Scheme<Ternary, PerGroup<128>>>({20, 640}, 5, Compute::int8_per_token));
    w.push_back(weights<presets::Mxfp4>({19, 352}, 6, Compute::int8_per_block));
    w.push_back(weights<Scheme<SInt<8>, PerRow, ScaleF32>>({18, 1100}, 7, Compute::int8_per_block));
    w.push_back(weights<Scheme<Superfloat<1>, PerGroup<96>>>({50, 700}, 8, Compute::int8_per_token));
    return w;
  }();
  return list;
}

TEST_CASE("vocabularies that are tested") {
  if (*every_arch::left_out() != '\0') WARN("skipped: " << every_arch::left_out());
  REQUIRE(all_weights().size() == 8);
}
