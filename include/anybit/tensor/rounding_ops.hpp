#pragma once
// A scheme at run time for those who choose codes: searches for grids, error feedback, pruning. The methods call pointers and so
// are compiled once and not once per scheme; one more scheme costs a program little compile time and little code.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include <anybit/tensor/dequantize.hpp>
#include <anybit/tensor/quantize.hpp>
#include <anybit/tensor/quantized_matrix.hpp>
#include <anybit/tensor/scheme_ops.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Columns of weights that are rounded together, each weight with an affine of its own.
struct AffineLanes {
  static constexpr Index most = 64;
  alignas(64) float scales[most], zeros[most];
  AffineLanes() {
    for (Index i = 0; i < most; ++i) set(i, {1, 0});
  }
  void set(Index i, Affine a) {
    scales[i] = a.scale;
    zeros[i] = a.zero;
  }
  Affine operator[](Index i) const { return {scales[i], zeros[i]}; }
};

/// A format at run time. Codes are code_t<F>: of one byte, or of two where `wide`.
struct FormatOps {
  std::string_view name;
  int bits;
  bool zero_point;
  bool wide;
  Affine (*fit)(std::span<const float> weights);
  float (*level_distance)();  ///< the mean distance between neighbouring levels
  /// quantize_value() of n weights of one group, dequantize_value() of n codes, and both in a row, each on an affine of its own.
  void (*encode)(const float* w, Index n, Affine a, void* codes);
  void (*decode)(const void* codes, Index n, Affine a, float* w);
  void (*round)(const float* w, Index n, Affine encode_on, Affine decode_on, float* out);
  /// The same for AffineLanes::most weights. `out` may be off in the sign of a zero.
  void (*encode_lanes)(const float* w, const AffineLanes& a, void* codes);
  void (*decode_lanes)(const void* codes, const AffineLanes& a, float* out);
};

/// A scheme whose weights have codes.
struct RoundingOps : SchemeOps {
  const FormatOps& format;
  void (*round_trip)(std::span<float> scales);  ///< what the store gives back

  /// The affine as the scheme's store will give it back. Joint stores need all scales at once: here they are left alone.
  Affine stored(Affine a) const {
    if (!joint_scales) round_trip({&a.scale, 1});
    return a;
  }
};

namespace rounding {

template <Format F>
float level_distance() {
  static const float distance = [] {
    float low = 0, high = 0;
    for (unsigned c = 0; c < static_cast<unsigned>(code_count_v<F>); ++c) {
      const float level = F::decode(static_cast<Code>(c));
      if (!(std::fabs(level) <= std::numeric_limits<float>::max())) continue;
      low = std::min(low, level);
      high = std::max(high, level);
    }
    return (high - low) / static_cast<float>(code_count_v<F> - 1);
  }();
  return distance;
}

template <Format F>
void encode(const float* w, Index n, Affine a, void* codes) {
  quantize_values<F>({w, static_cast<std::size_t>(n)}, a, {static_cast<code_t<F>*>(codes), static_cast<std::size_t>(n)});
}
template <Format F>
void decode(const void* codes, Index n, Affine a, float* w) {
  decoding::dequantize_codes<F>(static_cast<const code_t<F>*>(codes), a, n, w);
}
template <Format F>
void round(const float* w, Index n, Affine encode_on, Affine decode_on, float* out) {
  code_t<F> codes[decoding::block_cols];
  for (Index i = 0; i < n; i += decoding::block_cols) {
    const Index count = std::min(decoding::block_cols, n - i);
    encode<F>(w + i, count, encode_on, codes);
    decode<F>(codes, count, decode_on, out + i);
  }
}

/// Codes by the vector encoder that the format has, if it has one; `scales` are neither 0 nor so small that they have no
/// reciprocal.
template <Format F>
bool encode_lanes_in_vectors(const float* w, const AffineLanes& a, std::uint8_t* codes) {
  const auto each = [&](auto codes_of) __attribute__((always_inline)) {
    for (Index i = 0; i < AffineLanes::most; i += simd::width) {
      const simd::f32 scale = simd::load(a.scales + i);
      const simd::f32 x = multiplies_by_reciprocal_v<F> ? simd::load(w + i) * simd::divide(simd::broadcast(1.0f), scale)
                                                        : simd::divide(simd::load(w + i), scale);
      simd::store_u8(codes + i, codes_of(x, i));
    }
  };
  if constexpr (UniformFormat<F>) {
    using Rounding = encoders::UsualRounding<F>;
    static const bool usual = Rounding::is_encoder();
    if (usual) each([&](simd::f32 x, Index i) { return Rounding::codes(x, simd::load(a.zeros + i)); });
    return usual;
  } else if constexpr (!has_zero_point_v<F>) {
    if constexpr (decoding::float_shift_v<F>.fits)
      if (encoders::FloatRounding<F>::is_encoder()) {
        each([](simd::f32 x, Index) { return encoders::FloatRounding<F>::codes(simd::nan_to_zero(x)); });
        return true;
      }
    const encoders::LevelSteps& steps = encoders::level_steps<F>();
    if (!steps.usable) return false;
    const simd::StepSearch<F::bits> search(steps.tree.data());
    const simd::f32 most = simd::broadcast(std::numeric_limits<float>::max());
    each([&](simd::f32 quotient, Index) {
      const simd::f32 x[1] = {simd::min(simd::max(simd::nan_to_zero(quotient), simd::zero() - most), most)};
      simd::i32 passed[1];
      search(x, passed);
      return passed[0];
    });
    simd::look_up_bytes<F::bits>(steps.code.data(), AffineLanes::most, codes);
    return true;
  }
  return false;
}

template <Format F>
void encode_lanes(const float* w, const AffineLanes& a, void* to) {
  auto* const codes = static_cast<code_t<F>*>(to);
  if constexpr (F::bits <= 8) {
    bool ordinary = true;
    for (const float s : a.scales) ordinary = ordinary && s >= 0x1p-120f;
    if (ordinary && encode_lanes_in_vectors<F>(w, a, codes)) return;
  }
  for (Index i = 0; i < AffineLanes::most; ++i) codes[i] = static_cast<code_t<F>>(quantize_value<F>(w[i], a[i]));
}

template <Format F>
void decode_lanes(const void* from, const AffineLanes& a, float* out) {
  const auto* const codes = static_cast<const code_t<F>*>(from);
  if constexpr (F::bits <= 8) {
    code_t<F> prepared[AffineLanes::most];
    std::copy_n(codes, AffineLanes::most, prepared);
    const bool special = decoding::Levels<F>::prepare(prepared, AffineLanes::most);
    decoding::with_levels<F>(special, [&](const auto& levels) {
      const simd::f32 factor = simd::broadcast(std::remove_cvref_t<decltype(levels)>::factor);
      for (Index i = 0; i < AffineLanes::most; i += simd::width) {
        simd::f32 level = levels(prepared + i) * factor;
        if constexpr (has_zero_point_v<F>) level = level - simd::load(a.zeros + i);
        simd::store(out + i, simd::load(a.scales + i) * level);
      }
    });
  } else {
    for (Index i = 0; i < AffineLanes::most; ++i) out[i] = dequantize_value<F>(codes[i], a[i]);
  }
}

}  // namespace rounding

template <Format F>
inline constexpr FormatOps format_ops_v{.name = F::name,
                                        .bits = F::bits,
                                        .zero_point = has_zero_point_v<F>,
                                        .wide = sizeof(code_t<F>) > 1,
                                        .fit = [](std::span<const float> w) { return Affine(F::fit(w)); },
                                        .level_distance = &rounding::level_distance<F>,
                                        .encode = &rounding::encode<F>,
                                        .decode = &rounding::decode<F>,
                                        .round = &rounding::round<F>,
                                        .encode_lanes = &rounding::encode_lanes<F>,
                                        .decode_lanes = &rounding::decode_lanes<F>};

template <ScalarScheme S>
inline constexpr RoundingOps rounding_ops_v{scheme_ops_v<S>, format_ops_v<typename S::format>,
                                            [](std::span<float> scales) { S::scale_store::round_trip(scales); }};

/// A QuantizedMatrix, seen without its scheme's type.
class AnyQuantized {
 public:
  template <AnyScheme S>
  explicit AnyQuantized(QuantizedMatrix<S>& q)
      : scheme(rounding_ops_v<S>),
        extents(q.extents),
        group_cols(S::granularity::group_cols(q.extents.cols)),
        groups_per_row(S::granularity::groups_per_row(q.extents.cols)),
        affines(q.affines),
        codes_(reinterpret_cast<std::byte*>(q.codes.data())) {}

  const RoundingOps& scheme;
  Extents extents;
  Index group_cols, groups_per_row;
  std::span<Affine> affines;

  const FormatOps& format() const { return scheme.format; }
  Affine& affine(Index row, Index group) const { return affines[static_cast<std::size_t>(scheme.index(extents, row, group))]; }
  Index code_bytes() const { return format().wide ? 2 : 1; }
  /// Where the code of a weight stands; the rest of its row follows.
  std::byte* code(Index row, Index col) const { return codes_ + (row * extents.cols + col) * code_bytes(); }
  Index end_of_group(Index group) const { return std::min((group + 1) * group_cols, extents.cols); }

 private:
  std::byte* codes_;
};

/// Rows begin .. end - 1 of the weights that q stands for. Stored column j belongs to `column_order[j]`, or to itself if that is
/// empty. `out` begins with row `begin`.
inline void dequantize_rows(const AnyQuantized& q, std::span<const std::uint32_t> column_order, Index begin, Index end,
                            MutableMatrix out) {
  std::vector<float> stored(column_order.size());
  for (Index r = begin; r < end; ++r) {
    const std::span<float> row = out.row(r - begin);
    float* const to = stored.empty() ? row.data() : stored.data();
    for (Index g = 0; g < q.groups_per_row; ++g) {
      const Index first = g * q.group_cols;
      q.format().decode(q.code(r, first), q.end_of_group(g) - first, q.affine(r, g), to + first);
    }
    for (std::size_t j = 0; j < stored.size(); ++j) row[column_order[j]] = stored[j];
  }
}

/// RoundingOps::stored() of a known scheme.
template <ScalarScheme S>
Affine stored(Affine a) {
  return rounding_ops_v<S>.stored(a);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
