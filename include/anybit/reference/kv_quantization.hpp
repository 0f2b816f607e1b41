#pragma once
// Quantized keys and values (KIVI, Liu et al. 2024, arXiv:2402.02750, section 3): keys have outliers in fixed channels, so they
// share a scale per channel over runs of tokens; values have none, so they share a scale per token over runs of channels.
//
//   s = (max - min) / (2^b - 1),   q = clamp(round((x - min) / s), 0, 2^b - 1),   x^ = min + s q
//
// The minimum is stored as it is, not as a zero point. A constant group has s = 0 and x^ = min. Keys are rounded after their
// rotary positions. `store` rounds a scale or a minimum as its storage does (binary16 in anybit); codes are chosen by the stored
// numbers. Quotients are floats, as in the cache: near a tie they decide a code.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline float as_is(float x) { return x; }

template <class Store>
Vector kv_rounded(Vector x, int bits, Store store) {
  const float top = std::exp2(static_cast<float>(bits)) - 1;
  const float least = store(static_cast<float>(*std::min_element(x.begin(), x.end())));
  const float s = store((static_cast<float>(*std::max_element(x.begin(), x.end())) - least) / top);
  for (double& v : x) {
    const float q = s > 0 ? std::clamp(std::nearbyint((static_cast<float>(v) - least) / s), 0.0f, top) : 0;
    v = double{least} + double{s} * double{q};
  }
  return x;
}

/// Keys (tokens x channels): runs of `group` tokens of one channel. A last, shorter run stays as it is: it waits for tokens.
template <class Store>
Matrix kv_rounded_keys(Matrix k, int bits, Index group, Store store) {
  for (Index first = 0; first + group <= k.rows; first += group)
    for (Index c = 0; c < k.cols; ++c) {
      Vector run(group);
      for (Index t = 0; t < group; ++t) run[t] = k(first + t, c);
      run = kv_rounded(run, bits, store);
      for (Index t = 0; t < group; ++t) k(first + t, c) = run[t];
    }
  return k;
}

/// Values (tokens x channels): runs of `group` channels of one token, cut at the end of each head.
template <class Store>
Matrix kv_rounded_values(Matrix v, int bits, Index group, Index head_dim, Store store) {
  for (Index t = 0; t < v.rows; ++t)
    for (Index head = 0; head < v.cols; head += head_dim)
      for (Index first = 0; first < head_dim; first += group) {
        const Index last = std::min(first + group, head_dim);
        const Vector run = kv_rounded(v.row(t, head + first, head + last), bits, store);
        for (Index c = first; c < last; ++c) v(t, head + c) = run[c - first];
      }
  return v;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
