#pragma once

#include <anybit/core/result.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/scheme/scheme.hpp>
#include <anybit/tensor/dequantize.hpp>

#include "method.hpp"

namespace reproduce {

/// The Method that make.template operator()<Scheme>() gives for the scheme of these bits and groups (0: a row).
template <class Make>
Method for_scheme(int bits, int group, Make make) {
  using namespace anybit;
  switch (1000 * bits + group) {
    case 4000: return make.template operator()<Scheme<UInt<4>, PerRow>>();
    case 3000: return make.template operator()<Scheme<UInt<3>, PerRow>>();
    case 4128: return make.template operator()<Scheme<UInt<4>, PerGroup<128>>>();
    case 3128: return make.template operator()<Scheme<UInt<3>, PerGroup<128>>>();
    case 2128: return make.template operator()<Scheme<UInt<2>, PerGroup<128>>>();
    case 2032: return make.template operator()<Scheme<UInt<2>, PerGroup<32>>>();
    default: ANYBIT_CHECK(false, "reproduce: no scheme of these bits and groups"); return {};
  }
}

/// Every linear by itself; `algorithm.quantize(w, stats)` gives codes, of which the model gets the values.
template <class Algorithm>
Method one_by_one(const Algorithm& algorithm, bool with_statistics) {
  return [algorithm, with_statistics](const Group& g) -> anybit::Result<Replaced> {
    Replaced r;
    for (const anybit::ConstMatrix& w : g.weights) {
      ANYBIT_TRY(const auto q, algorithm.quantize(w, with_statistics ? g.hessian : anybit::Stats()));
      r.bits += q.report.bits_per_weight * static_cast<double>(w.rows * w.cols);
      r.weights.push_back(anybit::dequantize(q.matrix));
    }
    return r;
  };
}

}  // namespace reproduce
