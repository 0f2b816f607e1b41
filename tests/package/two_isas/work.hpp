#pragma once

#include <anybit/format/superfloat.hpp>
#include <anybit/tensor/pack.hpp>

using SF5 = anybit::Scheme<anybit::Superfloat<5>, anybit::PerGroup<32>, anybit::ScaleF16>;

/// What one translation unit does with tensors, its own and others'. Owners cross between the units.
struct Work {
  const char* isa;
  anybit::PackedTensor<SF5> (*make)(anybit::ConstMatrix);
  anybit::Matrix (*restore)(const anybit::PackedTensor<SF5>&);
  void (*destroy)(anybit::PackedTensor<SF5>);
};

extern const Work baseline, avx2;
