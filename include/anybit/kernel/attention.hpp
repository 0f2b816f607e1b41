#pragma once
// Attention on the caller's own queries, keys and values, with any strides: causal or not, grouped queries, window, soft cap,
// slopes; keys and values as floats, halves or codes. Readable twin: reference/attention.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <anybit/core/isa.hpp>
#include <anybit/kernel/attention_core.hpp>
#include <anybit/kernel/attention_inputs.hpp>
#include <anybit/simd/transpose.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::kernel {
inline namespace ANYBIT_CODE {
namespace detail {

/// The first n <= simd::width elements of a row as floats, the other lanes 0.
template <FloatType Type>
ANYBIT_INLINE simd::f32 load_kv(const std::byte* p, Index n) {
  if constexpr (Type == FloatType::f32) {
    const auto* x = reinterpret_cast<const float*>(p);
    return n == simd::width ? simd::load(x) : simd::load_partial(x, n);
  } else {
    std::uint16_t some[static_cast<std::size_t>(simd::width)];
    const auto* x = reinterpret_cast<const std::uint16_t*>(p);
    if (n < simd::width) {
      std::memset(some, 0, sizeof some);
      std::memcpy(some, p, static_cast<std::size_t>(n) * 2);
      x = some;
    }
    if constexpr (Type == FloatType::f16)
      return simd::load_f16(x);
    else
      return simd::load_bf16(x);
  }
}

/// n rows, each `stride` bytes on from the one before, as keys (d, 32); positions from n on become 0.
template <FloatType Type>
void keys_of_rows(const std::byte* rows, Index stride, Index n, Index d, float* out) {
  constexpr Index element = Type == FloatType::f32 ? 4 : 2;
  for (Index p = 0; p < kv_block; p += simd::width) {
    const Index some = std::min(n - p, simd::width);
    for (Index j = 0; j < d; j += simd::width) {
      const Index cols = std::min(d - j, simd::width);
      const std::byte* from = rows + p * stride + j * element;
      float* to = out + j * kv_block + p;
      if (some == simd::width && cols == simd::width)
        simd::transpose([&](Index r) { return load_kv<Type>(from + r * stride, simd::width); }, to, kv_block, simd::width);
      else
        simd::transpose([&](Index r) { return r < some ? load_kv<Type>(from + r * stride, cols) : simd::zero(); }, to, kv_block,
                        cols);
    }
  }
}
/// The same as values (n, d rounded up to 16).
template <FloatType Type>
void values_of_rows(const std::byte* rows, Index stride, Index n, Index d, float* out) {
  constexpr Index element = Type == FloatType::f32 ? 4 : 2;
  const Index d_padded = round_up(d, 16);
  for (Index p = 0; p < n; ++p)
    for (Index j = 0; j < d_padded; j += simd::width) {
      const Index cols = std::min(std::max(d - j, Index{0}), simd::width);
      simd::store(out + p * d_padded + j, load_kv<Type>(rows + p * stride + j * element, cols));
    }
}

/// Whether turn_halves() is there for heads of this length.
inline bool halves_turn(Index d) { return ANYBIT_HAS_AVX512 && d % 32 == 0; }
/// 32 rows of d halves, each `stride` bytes on from the one before, as (d, 32) halves. Reads every line of memory once, which
/// counts where rows lie a multiple of 4 KB apart: then few of them are in the first cache at a time.
inline void turn_halves(const std::byte* rows, Index stride, Index d, std::uint16_t* out) {
#if ANYBIT_HAS_AVX512
  for (Index p = 0; p < kv_block; p += 16)
    for (Index j = 0; j < d; j += 32)
      simd::transpose_halves([&](Index r) { return rows + (p + r) * stride + j * 2; }, out + j * kv_block + p, kv_block);
#else
  static_cast<void>(rows), static_cast<void>(stride), static_cast<void>(d), static_cast<void>(out);
#endif
}

/// Keys and values of KvInputs for attend().
class KvSource {
 public:
  KvSource(const KvInputs& kv, Index head_dim) : kv_(kv), d_(head_dim), d_padded_(round_up(head_dim, 16)) {
    if (kv.codes.bits != 0) codec_ = kv_codec(kv.codes.bits);
  }
  Index bytes() const {
    return kv_.codes.bits == 0 ? 0 : std::max(kv_keys_shape(d_).scratch_bytes(), kv_values_shape(d_).scratch_bytes());
  }
  bool has_codes() const { return kv_.codes.bits != 0; }
  Index first_block_of_rows(Index p) const { return kv_.codes.bits == 0 ? 0 : kernel::first_block_of_rows(p, kv_.residual); }

  Block keys(Index b, Index head, Index n, bool codes, bool any, AttentionWorkspace& w) const {
    if (codes) return block_of(codec_, kv_.codes.bits, kv_keys_shape(d_), block_of_codes(b, head), any, w);
    Block::Kind kind = Block::Kind::f32;
    with_rows(kv_.keys, b, head,
              [&]<FloatType Type>(const std::byte* rows, Index stride, std::integral_constant<FloatType, Type>) {
                if constexpr (Type != FloatType::f32)
                  if (any && n == kv_block && halves_turn(d_)) {
                    turn_halves(rows, stride, d_, reinterpret_cast<std::uint16_t*>(w.block));
                    kind = Type == FloatType::f16 ? Block::Kind::f16 : Block::Kind::bf16;
                    return;
                  }
                keys_of_rows<Type>(rows, stride, n, d_, w.block);
              });
    return {.data = w.block, .stride = kv_block, .kind = kind};
  }
  Block values(Index b, Index head, Index n, bool codes, bool any, AttentionWorkspace& w) const {
    if (codes) {
      const std::byte* const from = block_of_codes(b, head) + kv_keys_shape(d_).bytes(kv_.codes.bits);
      return block_of(codec_, kv_.codes.bits, kv_values_shape(d_), from, any, w);
    }
    Block block{.data = w.block, .stride = d_padded_};
    with_rows(kv_.values, b, head,
              [&]<FloatType Type>(const std::byte* rows, Index stride, std::integral_constant<FloatType, Type>) {
                if (d_ == d_padded_ && (any || Type == FloatType::f32))
                  block = {.data = rows,
                           .stride = kv_.values.token_stride,
                           .kind = Type == FloatType::f32   ? Block::Kind::f32
                                   : Type == FloatType::f16 ? Block::Kind::f16
                                                            : Block::Kind::bf16};
                else
                  values_of_rows<Type>(rows, stride, n, d_, w.block);
              });
    return block;
  }
  void prefetch_keys(Index b, Index head, Index n, bool codes) const {
    codes ? prefetch_bytes(block_of_codes(b, head), kv_keys_shape(d_).bytes(kv_.codes.bits)) : prefetch(kv_.keys, b, head, n);
  }
  void prefetch_values(Index b, Index head, Index n, bool codes) const {
    codes ? prefetch_bytes(block_of_codes(b, head) + kv_keys_shape(d_).bytes(kv_.codes.bits),
                           kv_values_shape(d_).bytes(kv_.codes.bits))
          : prefetch(kv_.values, b, head, n);
  }
  void turn(float*) const {}
  void turn_back(float*) const {}

 private:
  const std::byte* block_of_codes(Index b, Index head) const {
    return kv_.codes.data + b * kv_.codes.block_stride + head * kv_.codes.head_stride;
  }
  void prefetch(const KvRows& rows, Index b, Index head, Index n) const {
    with_rows(rows, b, head, [&](const std::byte* from, Index stride, auto) {
      prefetch_rows(from, stride, n, d_ * (rows.type == FloatType::f32 ? 4 : 2));
    });
  }
  template <class F>
  void with_rows(const KvRows& rows, Index b, Index head, F f) const {
    const Index element = rows.type == FloatType::f32 ? 4 : 2;
    const std::byte* from = static_cast<const std::byte*>(rows.data) +
                            ((b * kv_block - kv_.rows_from) * rows.token_stride + head * rows.head_stride) * element;
    switch (rows.type) {
      case FloatType::f32: return f(from, rows.token_stride * element, std::integral_constant<FloatType, FloatType::f32>());
      case FloatType::f16: return f(from, rows.token_stride * element, std::integral_constant<FloatType, FloatType::f16>());
      case FloatType::bf16: return f(from, rows.token_stride * element, std::integral_constant<FloatType, FloatType::bf16>());
    }
  }

  const KvInputs& kv_;
  Index d_, d_padded_;
  KvCodec codec_{};
};

}  // namespace detail

/// Bytes of scratch for encode_kv(), at any address.
inline Index encode_kv_scratch(Index head_dim) {
  return std::max(kv_keys_shape(head_dim).scratch_bytes(), kv_values_shape(head_dim).scratch_bytes()) +
         kv_block * round_up(head_dim, 16) * Index{sizeof(float)} + 63;
}
/// 32 positions of keys and values of one head, each (32, head_dim) with rows of any stride, become kv_block_bytes() of codes. A
/// group (32 positions of a channel of keys, or up to 32 channels of a position of values) with NaN, infinity or what binary16
/// cannot hold decodes to NaN.
inline void encode_kv(int bits, ConstMatrix keys, ConstMatrix values, std::byte* out, std::byte* scratch) {
  ANYBIT_CHECK(keys.rows == kv_block && values.rows == kv_block && keys.cols == values.cols,
               "encode_kv: 32 positions of one head");
  const Index d = keys.cols, d_padded = round_up(d, 16);
  const KvCodec codec = kv_codec(bits);
  auto* floats = reinterpret_cast<float*>(detail::next_line(scratch));
  auto* bytes = reinterpret_cast<std::uint8_t*>(floats + kv_block * d_padded);
  detail::keys_of_rows<FloatType::f32>(reinterpret_cast<const std::byte*>(keys.data), keys.stride * 4, kv_block, d, floats);
  codec.encode(kv_keys_shape(d), floats, out, bytes);
  detail::values_of_rows<FloatType::f32>(reinterpret_cast<const std::byte*>(values.data), values.stride * 4, kv_block, d, floats);
  codec.encode(kv_values_shape(d), floats, out + kv_keys_shape(d).bytes(bits), bytes);
}

/// Units of work: one for each tile (the tokens at positions 32 i .. 32 i + 31) and head of queries.
inline Index attention_units(const AttentionInputs& a) { return detail::AttentionUnits(a).count(); }

/// Bytes of workspace that a thread needs, at any address.
inline Index attention_workspace(const AttentionInputs& a, const KvInputs& kv) {
  detail::AttentionWorkspace none;
  return detail::AttentionWorkspace::cut(a, detail::KvSource(kv, a.shape.head_dim).bytes(), nullptr, none);
}

/// out_th = sum_u softmax_u(scale q_th . k_u) v_u over the positions u <= first + t, or as the options say: units begin .. end -
/// 1 of attention_units(). No allocation, no threads. Any slices give the same bits; slices at multiples of heads / kv_heads read
/// keys and values fewest times. A causal prompt gives the same bits in pieces or at once. NaN or infinity in a token reaches
/// only the tokens that see it, and those that share a group of codes with it. The inputs must pass check().
inline void attention(const AttentionInputs& a, const KvInputs& kv, Index begin, Index end, std::byte* workspace) {
  ANYBIT_CHECK(begin >= 0 && begin <= end && end <= attention_units(a), "attention: units outside of those that there are");
  if (begin == end) return;
  detail::attention_units(a, detail::KvSource(kv, a.shape.head_dim), begin, end, workspace);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
