#pragma once
// One block of a decoder, forwards with the activations kept that its backward pass reads, and backwards. Sequences are stacked:
// a linear sees the tokens of all of them, attention one sequence after the other.
//
//   a = norm_1(x),  x' = x + o(attention(rope(q a), rope(k a), v a)),  f = norm_2(x'),  y = x' + down(act(gate f) * up f)

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/model/architecture.hpp>
#include <anybit/nn/activation.hpp>
#include <anybit/nn/attention.hpp>
#include <anybit/nn/norm.hpp>
#include <anybit/train/backward/activation.hpp>
#include <anybit/train/backward/attention.hpp>
#include <anybit/train/backward/norm.hpp>
#include <anybit/train/dropout.hpp>
#include <anybit/train/gradients.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// Activations of one block, (tokens, width).
struct BlockTape {
  Matrix x;         ///< the residual stream before the block
  Matrix q, k, v;   ///< behind their positions
  Matrix mixed;     ///< as o reads it
  Matrix middle;    ///< the residual stream between attention and feed-forward part
  Matrix gate, up;  ///< before the activation
};

/// The forward and backward pass of every block for one stack of sequences. The decoder must outlive it.
class DecoderTape {
 public:
  /// `lengths`: tokens of each sequence; all positions count from 0.
  DecoderTape(const model::Decoder& d, std::vector<Index> lengths, const Dropout& dropout, std::span<const model::Tap> taps,
              ExecutorRef executor)
      : d_(d),
        c_(d.config),
        lengths_(std::move(lengths)),
        dropout_(dropout),
        taps_(taps),
        executor_(executor),
        rope_(model::rope_options(d.config), 0, 0),
        cache_({1, d.config.kv_heads, d.config.head_dim}, *std::max_element(lengths_.begin(), lengths_.end())) {
    for (const Index n : lengths_) tokens_ += n;
    for (Index i = 0; i < c_.blocks; ++i) places_.push_back(places_of(i));
  }

  Index tokens() const { return tokens_; }

  /// x becomes y; the tape gets what backward() reads.
  void forward(Index block, MutableMatrix x, BlockTape& tape) {
    const Places& p = places_[static_cast<std::size_t>(block)];
    fit(tape);
    copy(x, tape.x.view());
    const MutableMatrix normed = scratch_.at(normed_, tokens_, c_.dim), delta = scratch_.at(delta_, tokens_, c_.dim);
    nn::rms_norm(x, values(p.attn_norm), c_.norm_epsilon, normed, executor_);
    at(block, model::Point::attn_in, normed);
    apply(p.q, normed, tape.q.view()), apply(p.k, normed, tape.k.view()), apply(p.v, normed, tape.v.view());
    at(block, model::Point::q, tape.q.view()), at(block, model::Point::k, tape.k.view()),
        at(block, model::Point::v, tape.v.view());
    for_each_sequence([&](Index begin, Index end, const nn::RopeTable& rope) {
      const auto of = [&](Matrix& m) { return m.view().row_range(begin, end); };
      rope.apply(of(tape.q), c_.head_dim, executor_);
      rope.apply(of(tape.k), c_.head_dim, executor_);
      cache_.append(0, of(tape.k), of(tape.v), executor_);
      nn::attention({c_.heads, c_.kv_heads, c_.head_dim}, of(tape.q), cache_, 0, of(tape.mixed), executor_);
    });
    if (d_.online.attn_output) d_.online.attn_output->forward(tape.mixed.view(), executor_);
    at(block, model::Point::head_out, tape.mixed.view());
    apply(p.o, tape.mixed.view(), delta);
    at(block, model::Point::attn_out, delta);
    nn::add(delta, x, executor_);
    copy(x, tape.middle.view());

    nn::rms_norm(x, values(p.ffn_norm), c_.norm_epsilon, normed, executor_);
    at(block, model::Point::mlp_in, normed);
    apply(p.gate, normed, tape.gate.view()), apply(p.up, normed, tape.up.view());
    const MutableMatrix hidden = make_hidden(block, tape);
    apply(p.down, hidden, delta);
    at(block, model::Point::mlp_out, delta);
    nn::add(delta, x, executor_);
    at(block, model::Point::residual, x);
  }

  /// dx, the gradient by y, becomes that by x; gradients of the block's tensors are added to `g`. Uses the tape up. Activations
  /// that taps wrote count as if their readers' inputs had been computed so (straight-through).
  void backward(Index block, BlockTape& tape, MutableMatrix dx, Gradients& g) {
    const Places& p = places_[static_cast<std::size_t>(block)];
    const MutableMatrix normed = scratch_.at(normed_, tokens_, c_.dim), dnormed = scratch_.at(delta_, tokens_, c_.dim);
    {
      const MutableMatrix hidden = make_hidden(block, tape), dhidden = scratch_.at(dhidden_, tokens_, c_.hidden);
      fill_zero(dhidden);
      back(p.down, hidden, dx, dhidden, g);
      if (d_.online.ffn_down) d_.online.ffn_down->inverse(dhidden, executor_);
      backward::gated(nn::Activation::silu, tape.gate.view(), tape.up.view(), dhidden, tape.gate.view(), tape.up.view(),
                      executor_);
      nn::rms_norm(tape.middle.view(), values(p.ffn_norm), c_.norm_epsilon, normed, executor_);
      at(block, model::Point::mlp_in, normed);
      fill_zero(dnormed);
      back(p.gate, normed, tape.gate.view(), dnormed, g);
      back(p.up, normed, tape.up.view(), dnormed, g);
      backward::rms_norm(tape.middle.view(), values(p.ffn_norm), c_.norm_epsilon, dnormed, dx, g[place(p.ffn_norm)].values,
                         executor_);
    }
    const MutableMatrix dmixed = scratch_.at(dmixed_, tokens_, c_.query_width()),
                        dq = scratch_.at(dq_, tokens_, c_.query_width()), dk = scratch_.at(dk_, tokens_, c_.kv_width()),
                        dv = scratch_.at(dv_, tokens_, c_.kv_width());
    fill_zero(dmixed);
    back(p.o, tape.mixed.view(), dx, dmixed, g);
    if (d_.online.attn_output) d_.online.attn_output->inverse(dmixed, executor_);
    for_each_sequence([&](Index begin, Index end, const nn::RopeTable& rope) {
      const auto of = [&](MutableMatrix m) { return m.row_range(begin, end); };
      backward::attention({c_.heads, c_.kv_heads, c_.head_dim}, of(tape.q.view()), of(tape.k.view()), of(tape.v.view()),
                          of(dmixed), of(dq), of(dk), of(dv), executor_);
      rope.apply_transposed(of(dq), c_.head_dim, executor_);
      rope.apply_transposed(of(dk), c_.head_dim, executor_);
    });
    nn::rms_norm(tape.x.view(), values(p.attn_norm), c_.norm_epsilon, normed, executor_);
    at(block, model::Point::attn_in, normed);
    fill_zero(dnormed);
    back(p.q, normed, dq, dnormed, g), back(p.k, normed, dk, dnormed, g), back(p.v, normed, dv, dnormed, g);
    backward::rms_norm(tape.x.view(), values(p.attn_norm), c_.norm_epsilon, dnormed, dx, g[place(p.attn_norm)].values, executor_);
  }

 private:
  using WeightId = model::WeightId;
  enum Number : std::size_t { normed_, delta_, hidden_, dhidden_, dmixed_, dq_, dk_, dv_, dropped_, low_, ddropped_ };

  /// A block's weights.
  struct Places {
    WeightId attn_norm, q, k, v, o, ffn_norm, gate, up, down;
  };
  Places places_of(Index block) const {
    const auto id = [&](std::string_view name) { return d_.weight(block, name); };
    return {id("attn_norm"), id("attn_q"),   id("attn_k"), id("attn_v"),  id("attn_output"),
            id("ffn_norm"),  id("ffn_gate"), id("ffn_up"), id("ffn_down")};
  }
  std::span<const float> values(WeightId w) const { return d_[w].values; }

  static void copy(ConstMatrix from, MutableMatrix to) {
    for (Index t = 0; t < from.rows; ++t) std::copy_n(from.row(t).data(), from.cols, to.row(t).data());
  }
  static void fill_zero(MutableMatrix m) {
    for (Index t = 0; t < m.rows; ++t) std::fill_n(m.row(t).data(), m.cols, 0.0f);
  }
  void fit(BlockTape& tape) const {
    const auto fit_one = [&](Matrix& m, Index width) {
      if (m.extents() != Extents{tokens_, width}) m = Matrix(tokens_, width);
    };
    fit_one(tape.x, c_.dim), fit_one(tape.middle, c_.dim), fit_one(tape.q, c_.query_width()),
        fit_one(tape.mixed, c_.query_width());
    fit_one(tape.k, c_.kv_width()), fit_one(tape.v, c_.kv_width()), fit_one(tape.gate, c_.hidden), fit_one(tape.up, c_.hidden);
  }

  /// down's input, from gate and up.
  MutableMatrix make_hidden(Index block, const BlockTape& tape) {
    const MutableMatrix hidden = scratch_.at(hidden_, tokens_, c_.hidden);
    copy(tape.gate.view(), hidden);
    nn::gated(nn::Activation::silu, hidden, tape.up.view(), executor_);
    if (d_.online.ffn_down) d_.online.ffn_down->forward(hidden, executor_);
    at(block, model::Point::mlp_hidden, hidden);
    return hidden;
  }

  /// Calls f(first row, row behind the last, rotary table) for every sequence, with an empty cache.
  template <class F>
  void for_each_sequence(F&& f) {
    for (Index i = 0, begin = 0; i < static_cast<Index>(lengths_.size()); begin += lengths_[static_cast<std::size_t>(i)], ++i) {
      const Index length = lengths_[static_cast<std::size_t>(i)];
      if (length != rope_tokens_) rope_ = nn::RopeTable(model::rope_options(c_), 0, length), rope_tokens_ = length;
      cache_.clear();
      f(begin, begin + length, rope_);
    }
  }

  /// Calls the taps of a block at a point, sequence by sequence.
  void at(Index block, model::Point point, MutableMatrix m) const {
    for (const model::Tap& t : taps_) {
      if (t.point != point || (t.block != block && t.block != model::Tap::every_block)) continue;
      Index begin = 0;
      for (const Index length : lengths_) t.apply(m.row_range(begin, begin + length), {0, length}), begin += length;
    }
  }

  DropoutMask mask(WeightId w) const { return DropoutMask(dropout_, place(w)); }
  bool drops(const nn::Linear& w) const { return w.adapter() && dropout_.rate > 0; }

  void apply(WeightId id, ConstMatrix x, MutableMatrix y) {
    const nn::Linear& w = d_[id].linear;
    if (!drops(w)) return w.apply(x, y, executor_, scratch_.workspace);
    nn::Linear base = w;
    base.set_adapter(nullptr);
    base.apply(x, y, executor_, scratch_.workspace);
    const nn::LowRank& l = *w.adapter();
    const MutableMatrix dropped = scratch_.at(dropped_, tokens_, x.cols), low = scratch_.at(low_, tokens_, l.a.rows());
    mask(id).apply(x, dropped, false, executor_);
    nn::float_product(l.a.view(), dropped, low, executor_);
    Matrix delta(tokens_, y.cols);
    nn::float_product(l.b.view(), low, delta.view(), executor_);
    for (Index i = 0; i < delta.extents().size(); ++i) delta.data()[i] *= l.scale;
    nn::add(delta.view(), y, executor_);
  }

  /// dx += gradient by x; gradients of the linear's own tensors are added to g.
  void back(WeightId id, ConstMatrix x, ConstMatrix dy, MutableMatrix dx, Gradients& g) {
    const nn::Linear& w = d_[id].linear;
    backward::LinearGradient& own = g[place(id)].linear;
    if (!drops(w)) return backward::linear(w, x, dy, dx, own, executor_);
    nn::Linear base = w;
    base.set_adapter(nullptr);
    backward::linear(base, x, dy, dx, own, executor_);
    const MutableMatrix dropped = scratch_.at(dropped_, tokens_, x.cols), ddropped = scratch_.at(ddropped_, tokens_, x.cols);
    mask(id).apply(x, dropped, false, executor_);
    fill_zero(ddropped);
    backward::adapter(*w.adapter(), dropped, dy, ddropped, own.a.view(), own.b.view(), executor_);
    mask(id).apply(ddropped, dx, true, executor_);
  }

  const model::Decoder& d_;
  const model::DecoderConfig& c_;
  std::vector<Index> lengths_;
  Index tokens_ = 0;
  Dropout dropout_;
  std::span<const model::Tap> taps_;
  ExecutorRef executor_;
  nn::RopeTable rope_;  ///< of the length seen last
  Index rope_tokens_ = 0;
  nn::KvCache cache_;
  model::Scratch scratch_;
  std::vector<Places> places_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
