#pragma once
// LDLQ (Chee et al. 2023, "QuIP", arXiv:2307.13304; in blocks: Tseng et al. 2024, "QTIP", arXiv:2406.11235): trellis codes with
// error feedback from tile to tile. See docs/methods/trellis.md. Readable twins: reference/ldlq.hpp, reference/trellis.hpp.

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/algorithm/ldlq_method.hpp>
#include <anybit/recipe/quantized.hpp>

namespace anybit::ldlq {
inline namespace ANYBIT_CODE {
namespace detail {

/// `code`(method, report) fills a tensor whose provenance is `name`. `stats` serve the error of the outputs, if `asked` wants it.
template <TrellisScheme S, class Code>
Result<QuantizedTensor<S>> finish(const Options& options, ConstMatrix w, const Stats& stats, const QuantizeOptions& asked,
                                  const std::string& name, Code&& code) {
  ANYBIT_TRY_STATUS(options.check());
  ANYBIT_TRY_STATUS(grid::check_weights(w));
  if (asked.clip_limits.rows > 0)
    return Error{ErrorCode::unsupported,
                 name + ": clip limits are for formats with a largest level; put awq in front without clipping"};
  QuantizedTensor<S> result{PackedTensor<S>::allocate(w.extents(), false, name), {}};
  Report& report = result.report;
  report.requested = report.done = name + " " + std::string(std::string_view(S::name));
  PackedBytes& bytes = result.tensor.bytes();
  Method<> method(tile_functions_v<S>, options, w, bytes.mutable_section(bytes.section(section_tags::trellis)), asked.executor);
  code(method, report);
  ANYBIT_TRY_STATUS(check_strict(report, asked));
  S::scale_store::store(method.scales(), bytes.mutable_section(bytes.section(section_tags::scales)).data());
  recipe::measure_rows<>(
      w, [&](Index begin, Index end, MutableMatrix out) { method.weights(begin, end, out); }, asked.verify ? stats : Stats{},
      report, asked.executor);
  report.bits_per_weight = result.tensor.bits_per_weight();
  return result;
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::ldlq

namespace anybit {
inline namespace ANYBIT_CODE {

/// Every tile by itself, from the weights alone: their error is the least, that of the outputs is not.
template <TrellisScheme S>
struct NearestTrellis {
  using scheme = S;
  static constexpr Needs needs = Needs::none;

  float gain = 0;      ///< as Ldlq's
  bool exact = false;  ///< as Ldlq's

  std::string describe() const { return options().describe_search("nearest", ""); }
  Result<QuantizedTensor<S>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked = {}) const {
    return ldlq::detail::finish<S>(options(), w, stats, asked, describe(),
                                   [](auto& method, Report& report) { method.code_nearest(report); });
  }

 private:
  ldlq::Options options() const { return {.gain = gain, .exact = exact}; }
};

/// The columns go in blocks of 16 in their order, which is GPTQ's; the published code goes the other way, with the same error.
template <TrellisScheme S>
struct Ldlq {
  using scheme = S;
  static constexpr Needs needs = Needs::hessian;

  float damp = 0.025f;  ///< share of the Hessian's mean diagonal that is added to it; above 0, up to 1
  /// Root mean square of the weights that the code meets, in units of that of its values. 0: the best of six on a sample of
  /// tiles.
  float gain = 0;
  bool exact = false;    ///< the best loop of every tile and not the one of two passes: five times the time, up to 1 % less error
  bool weighted = true;  ///< inside a tile errors of columns count as the Hessian's blocks say, and not all alike
  bool refine_scales = true;  ///< after the codes, scales that minimize the error of the outputs

  std::string describe() const { return options().describe(); }

  /// Without a usable Hessian tiles are coded one by one, which the report calls a fallback.
  Result<QuantizedTensor<S>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked = {}) const {
    ANYBIT_TRY_STATUS(recipe::check_stats(stats, needs, w.cols, "ldlq"));
    return ldlq::detail::finish<S>(options(), w, stats, asked, describe(),
                                   [&](auto& method, Report& report) { method.code(stats, report); });
  }

 private:
  ldlq::Options options() const { return {damp, gain, exact, weighted, refine_scales}; }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
