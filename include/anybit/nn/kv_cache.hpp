#pragma once
// Keys and values of the positions so far, as floats or as codes (KIVI, arXiv:2402.02750): keys share scales per channel along
// positions, values per position along channels. Readable twin: reference/kv_quantization.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/kernel/attention_core.hpp>
#include <anybit/transform/hadamard.hpp>

namespace anybit::nn {
inline namespace ANYBIT_ABI {

struct KvCacheConfig {
  int bits = 32;          ///< of a key or value: 32 (floats), 16 (binary16), 8, 4, 3 or 2
  Index residual = 32;    ///< a query sees at least so many positions before it as floats, whatever `bits`; a multiple of 32
  bool hadamard = false;  ///< keys and values are rotated, head by head, by a Hadamard matrix
  bool quantized() const { return bits != 32; }
};

/// The rows of a cache: one sequence's keys and values in each layer.
struct KvShape {
  Index layers = 0, kv_heads = 0, head_dim = 0;
  friend bool operator==(const KvShape&, const KvShape&) = default;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::nn

namespace anybit::nn {
inline namespace ANYBIT_CODE {

using kernel::kv_block;

inline Status check(const KvCacheConfig& kv, const KvShape& shape) {
  const auto bad = [](auto... what) { return Error{ErrorCode::invalid_argument, io::detail::text("KV cache: ", what...)}; };
  if (kv.bits != 32 && kv.bits != 16 && kv.bits != 8 && kv.bits != 4 && kv.bits != 3 && kv.bits != 2)
    return bad(kv.bits, " bits are not offered: choose 16, 8, 4, 3 or 2, or 32 for floats");
  if (kv.residual < 0 || kv.residual % kv_block != 0 || kv.residual > Index{1} << 30)
    return bad("a residual of ", kv.residual, " positions: it must be a multiple of ", kv_block);
  if (kv.hadamard)
    if (const auto made = Hadamard::make(shape.head_dim); !made)
      return bad("heads of length ", shape.head_dim, " have no Hadamard rotation: switch it off (", made.error().message, ")");
  return Ok{};
}

/// One sequence, in blocks of 32 positions. A block has, in each layer and key-value head, two matrices: the keys, (head_dim,
/// 32), so that a vector of positions meets one channel of a query, and the values, (32, head_dim). They are floats, the rows of
/// values padded to a multiple of 16, or codes in groups of up to 32 along their rows.
///
/// The query of position p sees the block that holds p and residual / 32 blocks before it as floats, all earlier ones as codes.
/// That depends on p alone, so a prompt gives the same in pieces or at once. Floats are kept only for those blocks.
class KvCache {
 public:
  /// Room for `capacity` positions. `kv` must pass check().
  KvCache(const KvShape& c, Index capacity, KvCacheConfig kv = {})
      : kv_(kv),
        capacity_(capacity),
        layers_(c.layers),
        heads_(c.kv_heads),
        head_dim_(c.head_dim),
        key_shape_(kernel::kv_keys_shape(c.head_dim)),
        value_shape_(kernel::kv_values_shape(c.head_dim)) {
    ANYBIT_CHECK(capacity >= 0 && check(kv, c), "KvCache: see check(KvCacheConfig, KvShape)");
    if (kv.hadamard) rotation_ = Hadamard::make(c.head_dim).value();
    const Index blocks = ceil_div(capacity, kv_block);
    slots_ = kv.quantized() ? std::min(kv.residual / kv_block + 1, blocks) : blocks;
    float_stride_ = key_shape_.rows * key_shape_.stride + value_shape_.rows * value_shape_.stride;
    floats_ = Matrix(layers_ * slots_, heads_ * float_stride_);
    if (!kv.quantized()) return;
    codec_ = kernel::kv_codec(kv.bits);
    code_stride_ = key_shape_.bytes(kv.bits) + value_shape_.bytes(kv.bits);
    code_blocks_ = std::max(blocks - kv.residual / kv_block - 1, Index{0});
    codes_ = AlignedBuffer(static_cast<std::size_t>(layers_ * code_blocks_ * heads_ * code_stride_ + 64));
  }

  Index capacity() const { return capacity_; }
  Index length() const { return length_; }
  KvShape shape() const { return {layers_, heads_, head_dim_}; }
  const KvCacheConfig& config() const { return kv_; }
  /// The rotation of keys and values, which queries must get too; null for none.
  const Hadamard* rotation() const { return rotation_ ? &*rotation_ : nullptr; }
  /// Of a position that is stored as codes, scales and offsets included; 32 for floats.
  double bits_per_value() const {
    if (!kv_.quantized()) return 32;
    return 8.0 * static_cast<double>(code_stride_) / static_cast<double>(2 * kv_block * head_dim_);
  }
  /// Memory held, whatever the length.
  Index bytes() const { return floats_.extents().size() * 4 + static_cast<Index>(codes_.size()) + staged_.extents().size() * 4; }

  /// Forgets all positions from `length` on. Positions that were codes and now lie where floats are kept come back as what their
  /// codes stand for.
  void truncate(Index length) {
    ANYBIT_CHECK(length >= 0 && length <= length_, "KvCache::truncate: longer than it is");
    if (length == length_) return;
    length_ = length;
    if (!kv_.quantized()) return;
    const Index needed = first_float_block(length), end = ceil_div(length, kv_block);
    std::vector<std::uint8_t> scratch(static_cast<std::size_t>(scratch_bytes()));
    for (Index layer = 0; layer < layers_; ++layer)
      for (Index b = needed; b < std::min(end, floats_begin_); ++b)
        for (Index h = 0; h < heads_; ++h) {
          codec_.decode(key_shape_, code_block(layer, b, h), slot(layer, b, h), scratch.data());
          codec_.decode(value_shape_, code_block(layer, b, h) + key_shape_.bytes(kv_.bits), slot(layer, b, h) + key_floats(),
                        scratch.data());
        }
    floats_begin_ = std::min(floats_begin_, needed);
    codes_end_ = std::min(codes_end_, length / kv_block);
  }
  void clear() { truncate(0); }

  // For the forward pass. In each layer: append(), attention, settle(); after all layers advance().

  /// Keys (after the rotary embedding) and values of positions length() on, (tokens, kv_heads * head_dim). With `hadamard` both
  /// are rotated in place.
  void append(Index layer, MutableMatrix keys, MutableMatrix values, ExecutorRef executor) {
    const Index tokens = keys.rows, begin = length_ / kv_block, end = ceil_div(length_ + tokens, kv_block);
    ANYBIT_CHECK(tokens > 0 && tokens <= capacity_ - length_, "KvCache::append: past its capacity");
    staged_begin_ = end;
    const Index codes_end = first_float_block(length_ + tokens - 1);
    if (kv_.quantized() && end - begin > 1) {
      staged_begin_ = begin;
      if (staged_.rows() < end - begin) staged_ = Matrix(end - begin, heads_ * float_stride_);
      if (length_ % kv_block != 0)
        std::memcpy(staged_.data(), slot(layer, begin, 0), static_cast<std::size_t>(heads_ * float_stride_) * sizeof(float));
    } else {
      encode(layer, std::min(codes_end, begin), executor);  // before the slot of the oldest block takes the newest
    }
    executor.parallel_for((end - begin) * heads_, 1, [&](Index from, Index to) {
      for (Index item = from; item < to; ++item) write_block(layer, begin + item / heads_, item % heads_, keys, values);
    });
    if (staged_begin_ != end) encode(layer, codes_end, executor);
  }
  /// After the attention of a layer: only the floats that later positions will see stay.
  void settle(Index layer, Index tokens) {
    const Index end = ceil_div(length_ + tokens, kv_block);
    for (Index b = std::max(staged_begin_, first_float_block(length_ + tokens - 1)); b < end; ++b)
      std::memcpy(slot(layer, b, 0), staged_.data() + (b - staged_begin_) * staged_.cols(),
                  static_cast<std::size_t>(staged_.cols()) * sizeof(float));
  }
  void advance(Index tokens) {
    ANYBIT_CHECK(tokens >= 0 && tokens <= capacity_ - length_, "KvCache::advance: past its capacity");
    if (tokens == 0) return;
    length_ += tokens;
    const Index seen = first_float_block(length_ - 1);
    codes_end_ = std::max(codes_end_, seen);
    floats_begin_ = std::max(floats_begin_, seen);
  }

  /// The first block that a query at `position` sees as floats.
  Index first_float_block(Index position) const {
    return kv_.quantized() ? std::max(position / kv_block - kv_.residual / kv_block, Index{0}) : 0;
  }
  /// Scratch of the codec.
  Index scratch_bytes() const { return std::max(key_shape_.scratch_bytes(), value_shape_.scratch_bytes()); }
  /// Keys or values of a block where they are, as codes if `as_codes`; decoded to floats unless `any` kind will do.
  kernel::detail::Block keys(Index layer, Index b, Index head, bool as_codes, bool any,
                             kernel::detail::AttentionWorkspace& w) const {
    if (as_codes) return kernel::detail::block_of(codec_, kv_.bits, key_shape_, code_block(layer, b, head), any, w);
    return {.data = float_block(layer, b, head), .stride = key_shape_.stride};
  }
  kernel::detail::Block values(Index layer, Index b, Index head, bool as_codes, bool any,
                               kernel::detail::AttentionWorkspace& w) const {
    if (as_codes)
      return kernel::detail::block_of(codec_, kv_.bits, value_shape_, code_block(layer, b, head) + key_shape_.bytes(kv_.bits),
                                      any, w);
    return {.data = float_block(layer, b, head) + key_floats(), .stride = value_shape_.stride};
  }
  /// The bytes that keys() and values() read.
  std::span<const std::byte> keys_in_memory(Index layer, Index b, Index head, bool as_codes) const {
    if (as_codes) return {code_block(layer, b, head), static_cast<std::size_t>(key_shape_.bytes(kv_.bits))};
    return std::as_bytes(std::span(float_block(layer, b, head), static_cast<std::size_t>(key_floats())));
  }
  std::span<const std::byte> values_in_memory(Index layer, Index b, Index head, bool as_codes) const {
    if (as_codes)
      return {code_block(layer, b, head) + key_shape_.bytes(kv_.bits), static_cast<std::size_t>(value_shape_.bytes(kv_.bits))};
    return std::as_bytes(
        std::span(float_block(layer, b, head) + key_floats(), static_cast<std::size_t>(value_shape_.rows * value_shape_.stride)));
  }

 private:
  Index key_floats() const { return key_shape_.rows * key_shape_.stride; }
  float* slot(Index layer, Index b, Index head) {
    return floats_.data() + ((layer * slots_ + b % slots_) * heads_ + head) * float_stride_;
  }
  const float* float_block(Index layer, Index b, Index head) const {
    if (b >= staged_begin_) return staged_.data() + ((b - staged_begin_) * heads_ + head) * float_stride_;
    return const_cast<KvCache*>(this)->slot(layer, b, head);
  }
  std::byte* code_block(Index layer, Index b, Index head) {
    return codes_.data() + ((layer * code_blocks_ + b) * heads_ + head) * code_stride_;
  }
  const std::byte* code_block(Index layer, Index b, Index head) const {
    return const_cast<KvCache*>(this)->code_block(layer, b, head);
  }

  /// The tokens of one block and head out of a piece that starts at length_.
  void write_block(Index layer, Index b, Index head, MutableMatrix keys, MutableMatrix values) {
    float* const to_keys = const_cast<float*>(float_block(layer, b, head));
    float* const to_values = to_keys + key_floats();
    const auto d = static_cast<std::size_t>(head_dim_);
    const Index begin = std::max(b * kv_block, length_), end = std::min((b + 1) * kv_block, length_ + keys.rows);
    if (rotation_)
      for (Index t = begin - length_; t < end - length_; ++t) {
        rotation_->forward(keys.row(t).subspan(static_cast<std::size_t>(head) * d, d));
        rotation_->forward(values.row(t).subspan(static_cast<std::size_t>(head) * d, d));
      }
    for (Index p = begin; p < end; ++p)
      std::copy_n(values.data + (p - length_) * values.stride + head * head_dim_, d,
                  to_values + (p - b * kv_block) * value_shape_.stride);
    const float* from = keys.data + head * head_dim_ - length_ * keys.stride;
    for (Index j = 0; j < head_dim_; ++j)
      for (Index p = begin; p < end; ++p) to_keys[j * kv_block + p - b * kv_block] = from[p * keys.stride + j];
  }
  /// Codes of the blocks up to `end` that have none yet.
  void encode(Index layer, Index end, ExecutorRef executor) {
    const Index count = end - codes_end_;
    executor.parallel_for(std::max(count, Index{0}) * heads_, 1, [&](Index from, Index to) {
      thread_local std::vector<std::uint8_t> scratch;  // grows and stays: a warm thread allocates nothing
      if (scratch.size() < static_cast<std::size_t>(scratch_bytes())) scratch.resize(static_cast<std::size_t>(scratch_bytes()));
      for (Index item = from; item < to; ++item) {
        const Index b = codes_end_ + item / heads_, h = item % heads_;
        const float* floats = float_block(layer, b, h);
        codec_.encode(key_shape_, floats, code_block(layer, b, h), scratch.data());
        codec_.encode(value_shape_, floats + key_floats(), code_block(layer, b, h) + key_shape_.bytes(kv_.bits), scratch.data());
      }
    });
  }

  KvCacheConfig kv_;
  std::optional<Hadamard> rotation_;
  Index capacity_ = 0, length_ = 0, layers_ = 0, heads_ = 0, head_dim_ = 0;
  kernel::KvBlockShape key_shape_, value_shape_;
  kernel::KvCodec codec_{};
  Index float_stride_ = 0, code_stride_ = 0;  ///< of a block and head, in floats and in bytes
  Index slots_ = 0, code_blocks_ = 0;         ///< a layer: blocks of floats, in rotation, and of codes
  Matrix floats_, staged_;                    ///< staged_: the floats of a piece that has more blocks than there are slots for
  AlignedBuffer codes_;
  Index staged_begin_ = 0;                  ///< block of the first staged row; past the last block where none is
  Index codes_end_ = 0, floats_begin_ = 0;  ///< blocks before the one are codes, from the other on there are floats
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn

#include <anybit/core/macros_end.hpp>
