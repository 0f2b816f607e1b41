#pragma once
// Floats to packed bytes by plain rounding.

#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit::inline ANYBIT_CODE {

template <AnyScheme S>
void pack_nearest(ConstMatrix w, PackedTensor<S>& out) {
  out = pack(quantize_nearest<S>(w));
}
template <AnyScheme S>
PackedTensor<S> pack_nearest(ConstMatrix w) {
  return pack(quantize_nearest<S>(w));
}

}  // namespace anybit::inline ANYBIT_CODE
