#pragma once

#include <anybit/algorithm/nearest.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>

using SF5 = anybit::Scheme<anybit::Superfloat<5>, anybit::PerGroup<32>, anybit::ScaleF16>;

/// What one translation unit does with tensors, its own and others'. Owners cross between the units.
struct Work {
  const char *tag, *needs;
  bool fast_math;
  bool (*takes)(anybit::ConstMatrix);
  anybit::PackedTensor<SF5> (*quantize)(anybit::ConstMatrix);
  bool (*opens)(const anybit::PackedBytes&);
  anybit::Matrix (*dequantize)(const anybit::PackedTensor<SF5>&);
  void (*matvec)(const anybit::PackedTensor<SF5>&, std::span<const float> x, std::span<float> y);
  anybit::AnyPacked (*erase)(anybit::PackedTensor<SF5>);
  void (*matvec_int8)(const anybit::AnyPacked&, std::span<const float> x, std::span<float> y);
  void (*destroy)(anybit::AnyPacked);
};

// The linker is told which two they are.
extern "C" const Work first, second;
