#pragma once
// Cross-attention: queries of the decoder to keys and values of what its encoder made of the source (Vaswani et al.,
// arXiv:1706.03762, section 3.2.3). Readable twin: reference/cross_attention.hpp.

#include <anybit/core/macros_begin.hpp>

#include <anybit/model/arch/stack_ends.hpp>
#include <anybit/nn/attention.hpp>

namespace anybit::model::decoder_block {
inline namespace ANYBIT_CODE {

struct CrossLinears {
  const nn::Linear &q, &k, &v, &output;
};
/// Matrices of the pass in Scratch.
struct CrossScratch {
  std::size_t memory = 0, q = 0, k = 0, v = 0, mixed = 0;
};

/// From `normed` to what cross-attention adds, in `delta`; false where the pass ends. Keys and values of the source are made
/// where the cache has none.
inline bool cross_attend(BlockPass& p, const CrossLinears& w, const CrossScratch& at, MutableMatrix normed, MutableMatrix delta) {
  ANYBIT_CHECK(p.cross != nullptr, "cross_attend: the pass has no encoded source, see Run::encoded");
  const DecoderConfig& c = p.config;
  const auto apply = [&](const nn::Linear& linear, ConstMatrix in, MutableMatrix out) {
    linear.apply(in, out, p.executor, p.scratch.workspace);
  };
  const MutableMatrix q = p.scratch.at(at.q, p.x.rows, c.query_width()),
                      mixed = p.scratch.at(at.mixed, p.x.rows, c.query_width());
  if (!p.at(Point::cross_in, normed)) return false;
  if (p.cross->length() == 0) {
    const Index source = p.memory.rows;
    const MutableMatrix memory = p.scratch.at(at.memory, source, p.memory.cols), k = p.scratch.at(at.k, source, c.kv_width()),
                        v = p.scratch.at(at.v, source, c.kv_width());
    copy(p.memory, memory);  // so that a tap changes only what this block reads
    BlockPass of_source = p;
    of_source.positions = {0, source};
    if (!of_source.at(Point::memory, memory)) return false;
    apply(w.k, memory, k), apply(w.v, memory, v);
    p.cross->append(p.layer, k, v, p.executor);
    p.cross->settle(p.layer, source);
  } else if (p.until == Point::memory) {
    return false;
  }
  apply(w.q, normed, q);
  nn::AttentionOptions options;
  options.scale = c.form.attention_scale, options.compute = p.attention;
  nn::cross_attention({c.heads, c.kv_heads, c.head_dim}, q, *p.cross, p.layer, p.memory.rows, mixed, p.executor, options);
  if (!p.at(Point::cross_head_out, mixed)) return false;
  apply(w.output, mixed, delta);
  return p.at(Point::cross_out, delta);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::decoder_block

#include <anybit/core/macros_end.hpp>
