#pragma once
// The forms in which activations enter a product, and the scratch memory of each.

#include <array>
#include <limits>
#include <string_view>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// f32             float activations times dequantized weights, summed in float: exact up to rounding of the sums.
/// int8_per_token  activations rounded to 8 bits with one scale a token (largest magnitude / 127, ties to even); products
///                 with formats of up to 8 bits whose levels are multiples of a step are then exact in int32 within a group,
///                 and one float multiply-add a group. Other formats multiply the rounded activations in float.
/// int8_per_block  the same with a scale for each token and block of columns, so that an outlier costs only its own block. Blocks
///                 are the weights' groups, in pieces of at most `block_columns`.
/// bf16            activations rounded to bfloat16 (8 significant bits, ties to even) times dequantized weights, summed in float.
///                 Processors with instructions for it (AMX, AVX512_BF16) round the weights so, too, which moves each by at
///                 most 2^-8 of itself.
/// int8_static     int8_per_token with one scale for all tokens, known before they come (static_activation_scale() finds it by
///                 calibration). What lies beyond 127 scales is cut off there.
/// int8_folded     int8_per_token with weights that are rounded once more where that costs little: a row becomes whole numbers
///                 of 8 bits with one scale, into which the scales of its groups are folded, so that sums run through groups.
///                 Needs prepared weights (AnyPacked::prepare), and serves rows whose error grows little enough; all others
///                 are multiplied as int8_per_token.
enum class Compute { f32, int8_per_token, int8_per_block, bf16, int8_static, int8_folded };
inline constexpr std::array<std::string_view, 6> compute_names{"f32",  "int8_per_token", "int8_per_block",
                                                               "bf16", "int8_static",    "int8_folded"};

constexpr std::string_view name(Compute c) { return compute_names[static_cast<std::size_t>(c)]; }

/// Whether activations become integers of 8 bits.
constexpr bool rounds_to_int8(Compute c) {
  return c == Compute::int8_per_token || c == Compute::int8_per_block || c == Compute::int8_static || c == Compute::int8_folded;
}

/// A Compute, and the scale that int8_static needs. Every other Compute converts to it, so that products take either.
class ActivationMode {
 public:
  ActivationMode() = default;
  ActivationMode(Compute c) : compute_(c) {  // NOLINT(google-explicit-constructor)
    ANYBIT_CHECK(c != Compute::int8_static, "Compute::int8_static needs a scale: use ActivationMode::int8_static(scale)");
  }
  /// The scale must be valid_scale().
  static ActivationMode int8_static(float scale) {
    ANYBIT_CHECK(valid_scale(scale), "ActivationMode::int8_static: the scale must be finite and above 0");
    ActivationMode m;
    m.compute_ = Compute::int8_static, m.scale_ = scale;
    return m;
  }
  static bool valid_scale(const float& s) { return is_finite(s) && s > 0; }

  Compute compute() const { return compute_; }
  /// Of int8_static, otherwise 0.
  float scale() const { return scale_; }

 private:
  Compute compute_ = Compute::f32;
  float scale_ = 0;
};

inline constexpr Index block_columns = 128;

/// By default Compute::int8_folded folds rows whose quantization error gains at most so much of its energy by that.
inline constexpr float default_fold_error = 0.01f;

/// Memory that a caller keeps between products so that they need not allocate. It grows to the largest use. One per
/// thread that calls; the threads of an executor share the caller's.
class Workspace {
 public:
  enum Slot { permuted, codes, scales, blocks, sums, rounded, tiled_codes, tiled_starts, tiled_blocks, slot_count };

  /// At least n elements of T, contents undefined. Valid until the same slot is asked for again.
  template <class T>
  ANYBIT_INLINE T* get(Slot slot, Index n) {
    AlignedBuffer& b = buffers_[slot];
    const auto bytes = static_cast<std::size_t>(n) * sizeof(T);
    if (b.size() < bytes) b = AlignedBuffer(bytes);
    return b.as<T>();
  }

 private:
  std::array<AlignedBuffer, slot_count> buffers_;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
