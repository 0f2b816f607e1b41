#pragma once

#include <anybit/algorithm/nearest.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>

using SF5 = anybit::Scheme<anybit::Superfloat<5>, anybit::PerGroup<32>, anybit::ScaleF16>;

/// What one translation unit does with tensors, its own and others'. Owners cross between the units.
struct Work {
  const char* isa;
  anybit::PackedTensor<SF5> (*quantize)(anybit::ConstMatrix);
  anybit::Matrix (*dequantize)(const anybit::PackedTensor<SF5>&);
  void (*matvec)(const anybit::PackedTensor<SF5>&, std::span<const float> x, std::span<float> y);
  anybit::AnyPacked (*erase)(anybit::PackedTensor<SF5>);
  void (*matvec_int8)(const anybit::AnyPacked&, std::span<const float> x, std::span<float> y);
  void (*destroy)(anybit::AnyPacked);
};

extern const Work baseline, avx2;
