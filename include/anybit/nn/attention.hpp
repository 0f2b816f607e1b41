#pragma once
// Attention over the KV cache: kernel/attention_core.hpp with the blocks of nn::KvCache, shared among threads. Readable twin:
// reference/attention.hpp.

#include <anybit/core/macros_begin.hpp>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/attention_core.hpp>
#include <anybit/nn/kv_cache.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

using kernel::AttentionOptions;
using kernel::AttentionShape;

namespace detail {

/// Keys and values of one layer, for kernel::detail::attend().
class CacheSource {
 public:
  CacheSource(const KvCache& cache, Index layer) : cache_(cache), layer_(layer) {}
  Index bytes() const { return cache_.config().quantized() ? cache_.scratch_bytes() : 0; }
  bool has_codes() const { return cache_.config().quantized(); }
  Index first_block_of_rows(Index p) const { return cache_.first_float_block(p); }
  kernel::detail::Block keys(Index b, Index head, Index, bool codes, bool any, kernel::detail::AttentionWorkspace& w) const {
    return cache_.keys(layer_, b, head, codes, any, w);
  }
  kernel::detail::Block values(Index b, Index head, Index, bool codes, bool any, kernel::detail::AttentionWorkspace& w) const {
    return cache_.values(layer_, b, head, codes, any, w);
  }
  void prefetch_keys(Index b, Index head, Index, bool codes) const {
    const auto bytes = cache_.keys_in_memory(layer_, b, head, codes);
    kernel::detail::prefetch_bytes(bytes.data(), static_cast<Index>(bytes.size()));
  }
  void prefetch_values(Index b, Index head, Index, bool codes) const {
    const auto bytes = cache_.values_in_memory(layer_, b, head, codes);
    kernel::detail::prefetch_bytes(bytes.data(), static_cast<Index>(bytes.size()));
  }
  void turn(float* q) const {
    if (cache_.rotation()) cache_.rotation()->forward({q, head_dim()});
  }
  void turn_back(float* result) const {
    if (cache_.rotation()) cache_.rotation()->inverse({result, head_dim()});
  }

 private:
  std::size_t head_dim() const { return static_cast<std::size_t>(cache_.shape().head_dim); }

  const KvCache& cache_;
  Index layer_;
};

inline void attention(const kernel::AttentionInputs& a, const KvCache& cache, Index layer, ExecutorRef executor) {
  const AttentionShape& c = a.shape;
  const AttentionOptions& options = a.options;
  ANYBIT_CHECK(options.window >= 0, "nn::attention: a window is a number of positions, 0 for none");
  ANYBIT_CHECK(options.soft_cap >= 0, "nn::attention: a soft cap is positive, 0 for none");
  ANYBIT_CHECK(options.slopes.empty() || static_cast<Index>(options.slopes.size()) == c.heads,
               "nn::attention: one slope for each head of queries");
  ANYBIT_CHECK(options.distance_bias.empty() ||
                   static_cast<Index>(options.distance_bias.size()) == c.heads * (2 * options.reach(c.heads) + 1),
               "nn::attention: an odd count of numbers by distance for each head of queries");
  ANYBIT_CHECK(options.compute == Compute::f32 || options.compute == Compute::bf16, "nn::attention: products are f32 or bf16");
  const CacheSource source(cache, layer);
  const kernel::detail::AttentionUnits units(a);
  // The heads of a group share keys and values, so they stay together, unless threads would be idle then.
  const bool scarce = executor.concurrency() > 1 && units.tiles * c.kv_heads < executor.concurrency() * 2;
  executor.parallel_for(units.count(), scarce ? 1 : c.heads / c.kv_heads, [&](Index begin, Index end) {
    thread_local AlignedBuffer memory;  // grows and stays, so that a warm thread allocates nothing
    kernel::detail::AttentionWorkspace none;
    const auto needed = static_cast<std::size_t>(kernel::detail::AttentionWorkspace::cut(a, source.bytes(), nullptr, none));
    if (memory.size() < needed) memory = AlignedBuffer(needed);
    kernel::detail::attention_units(a, source, begin, end, memory.as<std::byte>());
  });
}

}  // namespace detail

/// out_th = sum_p softmax_p(q_th . k_p / sqrt(head_dim)) v_p over the positions p <= cache.length() + t, or as the options say. q
/// and out are (tokens, heads * head_dim); the cache has the tokens' own keys and values already, by append(). The same bits for
/// any number of threads and, where causal, for tokens in pieces or at once. NaN or infinity in a token reaches only the tokens
/// that see it, and in a cache of codes those that share its group.
inline void attention(const AttentionShape& c, ConstMatrix q, const KvCache& cache, Index layer, MutableMatrix out,
                      ExecutorRef executor, const AttentionOptions& options = {}) {
  detail::attention({.shape = c,
                     .tokens = q.rows,
                     .first = cache.length(),
                     .length = cache.length() + q.rows,
                     .q = {q.data, q.stride, c.head_dim},
                     .out = {out.data, out.stride, c.head_dim},
                     .options = options},
                    cache, layer, executor);
}

/// Attention of a decoder to its source: every row of q sees all of the `length` keys and values that the cache, of floats, holds
/// in this layer, whether it was advanced behind them or not. The same bits for any number of threads, and for tokens in pieces
/// or at once.
inline void cross_attention(const AttentionShape& c, ConstMatrix q, const KvCache& cache, Index layer, Index length,
                            MutableMatrix out, ExecutorRef executor, AttentionOptions options = {}) {
  ANYBIT_CHECK(!cache.config().quantized(), "nn::cross_attention: the source's keys and values are floats");
  options.causal = false;
  detail::attention({.shape = c,
                     .tokens = q.rows,
                     .first = 0,
                     .length = length,
                     .q = {q.data, q.stride, c.head_dim},
                     .out = {out.data, out.stride, c.head_dim},
                     .options = options},
                    cache, layer, executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn

#include <anybit/core/macros_end.hpp>
