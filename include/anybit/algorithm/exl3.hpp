#pragma once
// Quantizing to EXL3 as exllamav3 does: scales and random signs of inputs and outputs, Hadamard transforms of 128 points on both
// sides, one scale for the whole, LDLQ in blocks of 16 with a loop for each tile in two passes. See docs/methods/trellis.md.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <anybit/algorithm/ldlq_method.hpp>
#include <anybit/core/half.hpp>
#include <anybit/recipe/quantized.hpp>
#include <anybit/tensor/decode_granules.hpp>

namespace anybit::ldlq {
inline namespace ANYBIT_CODE {
namespace detail {

/// Plus or minus 1 of n places: the bits of splitmix64.
inline std::vector<float> random_signs(Index n, std::uint64_t seed) {
  std::vector<float> out;
  std::uint64_t bits = 0;
  for (Index i = 0; i < n; ++i) {
    if (i % 64 == 0) {
      seed += 0x9E3779B97F4A7C15u;
      bits = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9u;
      bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
      bits ^= bits >> 31;
    }
    out.push_back((bits >> (i % 64) & 1) != 0 ? -1.0f : 1.0f);
  }
  return out;
}

/// Padding and rotation of every scheme Exl3<K, Book>, so that they are compiled once.
using Geometry = Exl3<1, Mul1>;

/// What lies between the rotations, padded, and the scales around it: W = (diag(inputs) H M H diag(outputs))^T.
struct Rotated {
  Matrix weights;  ///< outputs x inputs, every input's mean square 1
  std::vector<float> signs, inputs, outputs;
};

/// Scales of outputs are their root mean squares over the mean of those, with signs; scales of inputs are root mean squares too,
/// once outputs are mixed. What is 0 throughout has the scale 0 among outputs, and 1 among inputs.
inline Rotated rotated(ConstMatrix w, std::uint64_t seed) {
  using S = Geometry;
  const Extents p = S::padded(w.extents());
  constexpr float root = 0.08838834764831845f;  // 1 / sqrt(128)
  Rotated r{Matrix(p.rows, p.cols), random_signs(p.cols, seed), {}, random_signs(p.rows, ~seed)};
  std::vector<double> sizes(static_cast<std::size_t>(p.rows));
  double mean = 0;
  for (Index o = 0; o < w.rows; ++o) {
    double sum = 0;
    for (const float v : w.row(o)) sum += double{v} * double{v};
    sizes[static_cast<std::size_t>(o)] = std::sqrt(sum / static_cast<double>(w.cols));
    mean += sizes[static_cast<std::size_t>(o)] / static_cast<double>(w.rows);
  }
  for (Index o = 0; o < p.rows; ++o) {
    float& scale = r.outputs[static_cast<std::size_t>(o)];
    scale = f16_to_f32(f32_to_f16(mean > 0 ? scale * static_cast<float>(sizes[static_cast<std::size_t>(o)] / mean) : 0.0f));
    for (Index i = 0; i < w.cols && o < w.rows && scale != 0; ++i)
      r.weights(o, i) = w(o, i) / (scale * r.signs[static_cast<std::size_t>(i)]);
  }
  for (Index o = 0; o < p.rows; o += S::block) S::hadamard(r.weights.view().row(o).data(), S::block, p.cols, p.cols, root);
  std::vector<double> squares(static_cast<std::size_t>(p.cols));
  for (Index o = 0; o < p.rows; ++o)
    for (Index i = 0; i < p.cols; ++i) squares[static_cast<std::size_t>(i)] += double{r.weights(o, i)} * double{r.weights(o, i)};
  for (Index i = 0; i < p.cols; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double size = std::sqrt(squares[at] / static_cast<double>(std::max<Index>(p.rows, 1)));
    r.inputs.push_back(r.signs[at] * static_cast<float>(size > 0 ? size : 1.0));
    for (Index o = 0; o < p.rows; ++o) r.weights(o, i) = size > 0 ? r.weights(o, i) / static_cast<float>(size) : 0.0f;
  }
  for (Index o = 0; o < p.rows; ++o)
    for (Index i = 0; i < p.cols; i += S::block) S::hadamard(r.weights.view().row(o).data() + i, S::block, 1, 1, root);
  return r;
}

/// The Hessian of the rotated inputs: signs on both sides, then Hadamard. Padded inputs are 0.
inline AlignedBuffer rotated_hessian(const Stats& stats, const std::vector<float>& signs) {
  using S = Geometry;
  const Index n = stats.inputs(), p = round_up(n, S::block);
  constexpr double root = 0.08838834764831845;
  AlignedBuffer narrow(static_cast<std::size_t>(n * n) * sizeof(double), AlignedBuffer::Uninitialized{}),
      wide(static_cast<std::size_t>(p * p) * sizeof(double));
  stats.hessian(MatrixView<double>(narrow.as<double>(), n, n));
  double* const h = wide.as<double>();
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j)
      h[i * p + j] =
          narrow.as<double>()[i * n + j] * double{signs[static_cast<std::size_t>(i)] * signs[static_cast<std::size_t>(j)]};
  for (Index i = 0; i < p; i += S::block) S::hadamard(h + i * p, S::block, p, p, root);
  for (Index i = 0; i < p; ++i)
    for (Index j = 0; j < p; j += S::block) S::hadamard(h + i * p + j, S::block, 1, 1, root);
  return wide;
}

/// `stats` null: without feedback, from the weights alone.
template <class S>
Result<QuantizedTensor<S>> quantize_exl3(const Options& options, std::uint64_t seed, ConstMatrix w, const Stats* stats,
                                         const QuantizeOptions& asked, const std::string& name) {
  ANYBIT_TRY_STATUS(options.check());
  ANYBIT_TRY_STATUS(grid::check_weights(w));
  if (asked.clip_limits.rows > 0)
    return Error{ErrorCode::unsupported, name + ": clip limits are for formats with a largest level"};
  QuantizedTensor<S> result{PackedTensor<S>::allocate(w.extents(), false, name), {}};
  Report& report = result.report;
  report.requested = report.done = name + " " + std::string(std::string_view(S::name));
  PackedBytes& bytes = result.tensor.bytes();
  Rotated r = rotated(w, seed);
  Method<> method(exl3_tile_functions_v<S>, options, r.weights.view(),
                  bytes.mutable_section(bytes.section(section_tags::trellis)), asked.executor);
  if (stats) {
    const AlignedBuffer h = rotated_hessian(*stats, r.signs);
    method.code(MatrixView<const double>(h.as<double>(), r.weights.cols(), r.weights.cols()), report);
  } else {
    method.code_nearest(report);
  }
  ANYBIT_TRY_STATUS(check_strict(report, asked));
  const float scale = method.scales()[0];
  const auto store = [&](const SectionTag& tag, const std::vector<float>& values, float by) {
    const auto to = bytes.mutable_section(bytes.section(tag));
    bool finite = true;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint16_t half = f32_to_f16(values[i] * by);
      finite = finite && is_finite(f16_to_f32(half));
      std::memcpy(to.data() + 2 * i, &half, 2);
    }
    return finite;
  };
  if (!store(section_tags::input_scales, r.inputs, scale) || !store(section_tags::output_scales, r.outputs, 1))
    return Error{ErrorCode::unsupported, name + ": weights are so large that a scale exceeds binary16; EXL3 cannot hold them"};
  recipe::measure_rows<>(
      w,
      [&](Index begin, Index end, MutableMatrix out) {
        const typename PackedTensor<S>::SectionsOf sections(bytes);
        decode_granules<S>(sections, w.extents(), begin, end - begin, 0, w.cols, out.data, out.stride);
      },
      stats && asked.verify ? *stats : Stats{}, report, asked.executor);
  report.bits_per_weight = result.tensor.bits_per_weight();
  return result;
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::ldlq

namespace anybit {
inline namespace ANYBIT_CODE {

/// Extents that are no multiples of 128 are padded with zeros, as the format has it.
template <int K, TrellisCodebook Book = Mul1>
struct LdlqExl3 {
  using scheme = Exl3<K, Book>;
  static constexpr Needs needs = Needs::hessian;

  float damp = 0.025f;     ///< as Ldlq's
  float gain = 0;          ///< as Ldlq's
  bool exact = false;      ///< as Ldlq's
  std::uint64_t seed = 1;  ///< of the signs

  std::string describe() const { return options().describe(); }
  /// Without a usable Hessian tiles are coded one by one, which the report calls a fallback.
  Result<QuantizedTensor<scheme>> quantize(ConstMatrix w, const Stats& stats, const QuantizeOptions& asked = {}) const {
    ANYBIT_TRY_STATUS(recipe::check_stats(stats, needs, w.cols, "ldlq"));
    return ldlq::detail::quantize_exl3<scheme>(options(), seed, w, &stats, asked, describe());
  }

 private:
  ldlq::Options options() const { return {.damp = damp, .gain = gain, .exact = exact}; }
};

/// Every tile by itself, from the weights alone.
template <int K, TrellisCodebook Book = Mul1>
struct NearestExl3 {
  using scheme = Exl3<K, Book>;
  static constexpr Needs needs = Needs::none;

  float gain = 0;
  bool exact = false;
  std::uint64_t seed = 1;

  std::string describe() const { return options().describe_search("nearest", ""); }
  Result<QuantizedTensor<scheme>> quantize(ConstMatrix w, const Stats&, const QuantizeOptions& asked = {}) const {
    return ldlq::detail::quantize_exl3<scheme>(options(), seed, w, nullptr, asked, describe());
  }

 private:
  ldlq::Options options() const { return {.gain = gain, .exact = exact}; }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
