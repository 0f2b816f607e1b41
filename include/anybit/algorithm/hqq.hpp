#pragma once
// HQQ (Badri and Shaji, 2023): half-quadratic quantization. Every group's grid minimizes sum |w - q|^p with p below 1, without
// any calibration; codes are the nearest. The search stands in grid/hqq.hpp; see docs/methods/hqq.md.

#include <string>

#include <anybit/algorithm/nearest.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Hqq<Scheme> or Hqq<Format, Granularity, ScaleStore, Layout>.
template <class... Parts>
struct Hqq {
  static_assert(sizeof...(Parts) > 0, "anybit: Hqq needs a scheme: Hqq<Scheme> or Hqq<Format, Granularity, ScaleStore, Layout>");
  using scheme = scheme_of_t<Parts...>;
  static constexpr Needs needs = Needs::none;

  HalfQuadratic search{};  ///< p and the splitting's schedule
  Range range = Range::format;
  ShrinkSearch starts{};  ///< ranges that the search starts from; its norm is not used

  /// The same method in the words of rounding to nearest.
  Nearest<Parts...> method() const {
    return {.range = range, .search = Search::half_quadratic, .shrink = starts, .half_quadratic = search};
  }
  std::string describe() const { return method().describe(); }
  Result<Quantized<scheme>> quantize(ConstMatrix w, const Stats& stats = {}, const QuantizeOptions& options = {}) const {
    return method().quantize(w, stats, options);
  }
};

template <class... Parts>
struct AlgorithmTraits<Hqq<Parts...>> : AlgorithmDefaults<Hqq<Parts...>> {
  static GridFit grid_fit(const Hqq<Parts...>& a) { return a.method().grid_fit(); }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
