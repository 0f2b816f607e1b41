#pragma once
// Inputs of attention in the caller's memory: queries, rows or codes of keys and values, options; and their check.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <anybit/core/finite.hpp>
#include <anybit/core/float_type.hpp>
#include <anybit/core/result.hpp>
#include <anybit/kernel/attention_codes.hpp>
#include <anybit/kernel/compute.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_ABI {

struct AttentionShape {
  Index heads = 0, kv_heads = 0, head_dim = 0;  ///< each key-value head serves heads / kv_heads query heads
};

struct AttentionOptions {
  float scale = 0;                  ///< of the products of queries and keys; 0: 1 / sqrt(head_dim)
  float soft_cap = 0;               ///< c > 0: c tanh(s / c) in place of each scaled product s (Gemma 2, arXiv:2408.00118)
  Index window = 0;                 ///< w > 0: a query sees positions less than w away from its own, itself included
  std::span<const float> slopes{};  ///< of each head: slope * distance is subtracted (ALiBi, arXiv:2108.12409); empty: nothing is
  bool causal = true;               ///< false: a query sees later positions as well, up to the last one given
  /// f32, or bf16: queries, keys, softmax and values are rounded to bfloat16 (8 significant bits, ties to even) before they are
  /// multiplied, where the processor multiplies such numbers (AMX, AVX512_BF16); sums stay in f32. Elsewhere bf16 is f32.
  Compute compute = Compute::f32;
  /// Added to the score of a query at p and a key at u (T5, arXiv:1910.10683): of head h number h (2 reach + 1) + reach + (u -
  /// p), with u - p cut to -reach .. reach. Empty: nothing is. As many numbers for each head, an odd count.
  std::span<const float> distance_bias{};

  /// The reach of `distance_bias`.
  Index reach(Index heads) const { return static_cast<Index>(distance_bias.size()) / heads / 2; }
};

/// Vectors of length head_dim of (token or position, head): that of (t, h) begins at data + t * token_stride + h * head_stride.
/// Strides count elements.
template <class T>
struct HeadRows {
  T* data = nullptr;
  Index token_stride = 0, head_stride = 0;
  T* at(Index t, Index h) const { return data + t * token_stride + h * head_stride; }
};

/// `tokens` queries at positions first, first + 1, ..; keys and values have positions 0 .. length - 1. out may be q.
struct AttentionInputs {
  AttentionShape shape;
  Index tokens = 0, first = 0, length = 0;
  HeadRows<const float> q;
  HeadRows<float> out;
  AttentionOptions options;
};

/// Keys or values, as HeadRows.
struct KvRows {
  const void* data = nullptr;
  FloatType type = FloatType::f32;
  Index token_stride = 0, head_stride = 0;
};

/// Keys and values as codes, in blocks of 32 positions. Those of block b and head h start at data + (b * block_stride) +
/// (h * head_stride) and take kv_block_bytes(bits, head_dim), as encode_kv() writes them. Strides count bytes; data and strides
/// are multiples of 4. 64 bytes behind the last block are read, and not used.
struct KvCodes {
  const std::byte* data = nullptr;
  int bits = 0;  ///< 16, 8, 4, 3 or 2; 0: there are no codes
  Index block_stride = 0, head_stride = 0;
};

/// Keys and values of positions 0 .. length - 1. Without codes all are rows. With codes the query of position p sees as rows its
/// own block of 32 positions and residual / 32 blocks before it, and as codes all earlier ones: that depends on p alone, so a
/// prompt gives the same bits in pieces or at once. Rows of positions that no query sees as rows need not be there.
struct KvInputs {
  KvRows keys, values;  ///< data is of position rows_from
  Index rows_from = 0;
  KvCodes codes;
  Index residual = 32;  ///< a multiple of 32
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::kernel

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// Bytes of the codes of 32 positions of one head: keys, then values.
inline Index kv_block_bytes(int bits, Index head_dim) {
  return kv_keys_shape(head_dim).bytes(bits) + kv_values_shape(head_dim).bytes(bits);
}

/// The first block that the query of position p sees as rows, where all before it are codes.
inline Index first_block_of_rows(Index p, Index residual) { return std::max(p / kv_block - residual / kv_block, Index{0}); }

namespace detail {

inline constexpr Index most_positions = Index{1} << 40, longest_head = Index{1} << 16, most_heads = Index{1} << 16;

/// Whether vectors of `length` at a * stride_a + b * stride_b, a < count_a, b < count_b, are apart.
inline bool are_apart(Index length, Index stride_a, Index count_a, Index stride_b, Index count_b) {
  if (count_a > 1 && stride_a < length) return false;
  if (count_b > 1 && stride_b < length) return false;
  if (count_a <= 1 || count_b <= 1) return true;
  // The one with the shorter stride fits between two of the other. The quotient cannot overflow.
  const Index inner = std::min(stride_a, stride_b), count = stride_a < stride_b ? count_a : count_b,
              outer = std::max(stride_a, stride_b);
  return count - 1 <= (outer - length) / inner;
}

}  // namespace detail

/// One line that names the value, before any memory is touched.
inline Status check(const AttentionInputs& a, const KvInputs& kv) {
  const auto bad = [](std::string text) { return Error{ErrorCode::invalid_argument, "attention: " + std::move(text)}; };
  const auto n = [](auto value) { return std::to_string(value); };
  const AttentionShape& s = a.shape;
  const AttentionOptions& o = a.options;
  if (s.heads < 1 || s.heads > detail::most_heads || s.kv_heads < 1)
    return bad(n(s.heads) + " heads and " + n(s.kv_heads) + " of keys and values: from 1 to 65536 are possible");
  if (s.heads % s.kv_heads != 0)
    return bad(n(s.heads) + " heads are no multiple of " + n(s.kv_heads) + " heads of keys and values");
  if (s.head_dim < 1 || s.head_dim > detail::longest_head)
    return bad("heads of length " + n(s.head_dim) + ": from 1 to 65536 is possible");
  if (a.tokens < 0 || a.first < 0 || a.length < 0 || a.tokens > detail::most_positions || a.first > detail::most_positions ||
      a.length > detail::most_positions)
    return bad(n(a.tokens) + " tokens from position " + n(a.first) + " on and " + n(a.length) +
               " positions: none may be negative or above 2^40");
  if (o.window < 0) return bad("a window of " + n(o.window) + " positions: give 0 for none");
  if (!is_finite(o.soft_cap) || o.soft_cap < 0) return bad("a soft cap of " + n(o.soft_cap) + ": give 0 for none");
  if (!is_finite(o.scale)) return bad("a scale of " + n(o.scale));
  if (o.compute != Compute::f32 && o.compute != Compute::bf16)
    return bad("products in " + std::string(name(o.compute)) + ": f32 and bf16 are possible");
  if (!o.slopes.empty() && o.slopes.size() != static_cast<std::size_t>(s.heads))
    return bad(n(o.slopes.size()) + " slopes for " + n(s.heads) + " heads");
  if (const auto heads = static_cast<std::size_t>(s.heads);
      !o.distance_bias.empty() && (o.distance_bias.size() % heads != 0 || o.distance_bias.size() / heads % 2 == 0))
    return bad(n(o.distance_bias.size()) + " numbers by distance for " + n(s.heads) + " heads: an odd count for each is needed");
  if (a.tokens == 0) return Ok{};
  if (o.causal && a.first + a.tokens > a.length)
    return bad("queries up to position " + n(a.first + a.tokens - 1) + ", but " + n(a.length) +
               " positions of keys and values: append the tokens' own first");
  if (a.length == 0) return bad("no positions of keys and values");
  if (!o.causal && o.window > 0 && a.first + a.tokens - o.window >= a.length)
    return bad("the query of position " + n(a.first + a.tokens - 1) + " sees none of the " + n(a.length) +
               " positions in a window of " + n(o.window));

  const auto rows = [&](const char* name, const void* data, Index token_stride, Index head_stride, Index tokens, Index heads) {
    const std::string of = std::string(name) + ": ";
    if (tokens == 0) return std::string();
    if (data == nullptr) return of + "a null pointer";
    if (token_stride < 0 || head_stride < 0 || token_stride > detail::most_positions || head_stride > detail::most_positions)
      return of + "strides of " + n(token_stride) + " (tokens) and " + n(head_stride) +
             " (heads): none may be negative or above 2^40";
    if (!detail::are_apart(s.head_dim, token_stride, tokens, head_stride, heads))
      return of + "strides of " + n(token_stride) + " (tokens) and " + n(head_stride) + " (heads) make " + n(tokens) + " x " +
             n(heads) + " vectors of length " + n(s.head_dim) + " overlap";
    return std::string();
  };
  std::string text = rows("queries", a.q.data, a.q.token_stride, a.q.head_stride, a.tokens, s.heads);
  if (text.empty()) text = rows("results", a.out.data, a.out.token_stride, a.out.head_stride, a.tokens, s.heads);
  const Index rows_end = std::max(a.length - kv.rows_from, Index{0});
  if (text.empty()) text = rows("keys", kv.keys.data, kv.keys.token_stride, kv.keys.head_stride, rows_end, s.kv_heads);
  if (text.empty()) text = rows("values", kv.values.data, kv.values.token_stride, kv.values.head_stride, rows_end, s.kv_heads);
  if (!text.empty()) return bad(std::move(text));

  const KvCodes& c = kv.codes;
  if (c.bits == 0) {
    if (kv.rows_from != 0) return bad("rows from position " + n(kv.rows_from) + " on, and no codes of earlier ones");
    return Ok{};
  }
  if (c.bits != 16 && c.bits != 8 && c.bits != 4 && c.bits != 3 && c.bits != 2)
    return bad("codes of " + n(c.bits) + " bits: 16, 8, 4, 3 and 2 are possible, 0 for none");
  if (kv.residual < 0 || kv.residual % kv_block != 0)
    return bad("a residual of " + n(kv.residual) + " positions: it must be a multiple of 32");
  const Index needed = first_block_of_rows(a.first, kv.residual) * kv_block;
  if (kv.rows_from < 0 || kv.rows_from > needed || kv.rows_from % kv_block != 0)
    return bad("rows from position " + n(kv.rows_from) + " on: a multiple of 32 up to " + n(needed) +
               " is needed, since position " + n(a.first) + " sees " + n(kv.residual) + " positions before its block as rows");
  const Index blocks = first_block_of_rows(a.first + a.tokens - 1, kv.residual), bytes = kv_block_bytes(c.bits, s.head_dim);
  if (blocks == 0) return Ok{};
  if (c.data == nullptr) return bad("codes: a null pointer");
  if (reinterpret_cast<std::uintptr_t>(c.data) % 4 != 0 || c.block_stride % 4 != 0 || c.head_stride % 4 != 0)
    return bad("codes: the address or the strides of " + n(c.block_stride) + " (blocks) and " + n(c.head_stride) +
               " (heads) are no multiples of 4 bytes");
  if (c.block_stride < 0 || c.head_stride < 0 || !detail::are_apart(bytes, c.block_stride, blocks, c.head_stride, s.kv_heads))
    return bad("codes: strides of " + n(c.block_stride) + " (blocks) and " + n(c.head_stride) + " (heads) make " + n(blocks) +
               " x " + n(s.kv_heads) + " blocks of " + n(bytes) + " bytes overlap");
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
