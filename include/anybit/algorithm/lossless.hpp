#pragma once
// Weights that must stay exact, in the scheme LosslessBf16 (DFloat11: Zhang et al. 2025, arXiv:2504.11651).

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <string>

#include <anybit/core/matrix.hpp>
#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/recipe/quantized.hpp>
#include <anybit/tensor/pack_lossless_bf16.hpp>

namespace anybit::lossless {
inline namespace ANYBIT_CODE {

/// The result of both, but for the errors in its report.
inline Result<QuantizedTensor<LosslessBf16>> packed(ConstMatrix w, const QuantizeOptions& asked, const std::string& name) {
  if (asked.clip_limits.rows > 0)
    return Error{ErrorCode::unsupported, name + ": clip limits are for formats with a largest level; put no clipping in front"};
  auto tensor = pack_lossless_bf16(w, name);
  if (!tensor) return tensor.error();
  QuantizedTensor<LosslessBf16> out{*std::move(tensor), {}};
  out.report.requested = out.report.done = name + " " + std::string(LosslessBf16::name);
  out.report.bits_per_weight = out.tensor.bits_per_weight();
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::lossless

namespace anybit {
inline namespace ANYBIT_CODE {

/// Bit for bit, NaN and infinity included. Weights that are no bfloat16 values are an error that names the first.
struct Exact {
  using scheme = LosslessBf16;
  static constexpr Needs needs = Needs::none;

  static std::string describe() { return "exact"; }
  static Result<QuantizedTensor<LosslessBf16>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked = {}) {
    ANYBIT_TRY(auto out, lossless::packed(w, asked, describe()));
    if (asked.verify && stats.has(Needs::hessian) && stats.inputs() == w.cols) out.report.output_error = 0;
    return out;
  }
};

/// Rounds finite weights to the nearest bfloat16 first, ties to even, beyond the range to the largest.
struct NearestBf16 {
  using scheme = LosslessBf16;
  static constexpr Needs needs = Needs::none;

  static std::string describe() { return "nearest"; }
  static Result<QuantizedTensor<LosslessBf16>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked = {}) {
    ANYBIT_TRY_STATUS(grid::check_weights(w));
    Matrix rounded(w);
    for (Index r = 0; r < w.rows; ++r)
      for (float& x : rounded.view().row(r)) x = lossless::nearest_bf16(x);
    ANYBIT_TRY(auto out, lossless::packed(rounded.view(), asked, describe()));
    recipe::measure_weights<>(w, rounded.view(), asked.verify ? stats : Stats{}, out.report, asked.executor);
    return out;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
