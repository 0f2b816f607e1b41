#include "engine_kernels.hpp"

#include <anybit/tensor/quantize.hpp>

using namespace anybit;
using Int4 = Scheme<SInt<4>, PerRow, ScaleF32>;

const engine::Kernels& engine::engine_kernels() {
  static constexpr Kernels table{
      [](ConstMatrix w) { return AnyPacked(pack(quantize_nearest<Int4>(w).value())); },
      [] {
        SchemeRegistry registry;
        registry.add<Int4>();
        registry.add<Scheme<Superfloat<5>, PerGroup<32>>>();
        registry.add<Scheme<UInt<8>, PerRow, ScaleF32>>();
        return registry;
      },
      [] { return compiled_isa().data(); },
  };
  return table;
}
