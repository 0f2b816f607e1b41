#pragma once
// One block of a decoder of any form (model/form.hpp), forwards with the activations kept that its backward pass reads, and
// backwards. The forward pass is that of model/arch/decoder_block.hpp over stacked sequences: a linear sees the tokens of all of
// them, attention one sequence after the other. With A the attention, M the feed-forward part and n norms of their own:
//
//   pre       m = x + A(n x),  y = m + M(n m)             post        m = n(x + A x),  y = n(m + M m)
//   sandwich  m = x + n A(n x),  y = m + n M(n m)         parallel    y = x + A(n x) + M(n x)

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <anybit/train/backward/activation.hpp>
#include <anybit/train/backward/attention.hpp>
#include <anybit/train/backward/experts.hpp>
#include <anybit/train/tape_parts.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// The forward and backward pass of every block for one stack of sequences. The decoder must outlive it.
class DecoderTape : private TapeParts {
 public:
  /// `lengths`: tokens of each sequence; all positions count from 0.
  DecoderTape(const model::Decoder& d, std::vector<Index> lengths, const Dropout& dropout, std::span<const model::Tap> taps,
              ExecutorRef executor, OnLinear on_linear = {})
      : TapeParts(d, dropout, taps, executor),
        cache_({1, d.config.kv_heads, d.config.head_dim}, *std::max_element(lengths.begin(), lengths.end())) {
    lengths_ = std::move(lengths), on_linear_ = std::move(on_linear);
    for (const Index n : lengths_) {
      tokens_ += n;
      const bool known = std::any_of(ropes_.begin(), ropes_.end(), [n](const Ropes& r) { return r.length == n; });
      if (known || f_.positions != model::Positions::rotary) continue;
      ropes_.push_back({n, nn::RopeTable(model::rope_options(c_, n), 0, n), {}});
      if (c_.rope_window_base > 0) ropes_.back().windowed.emplace(model::window_rope_options(c_), 0, n);
    }
  }

  Index tokens() const { return tokens_; }

  /// x becomes y; the tape gets what backward() reads.
  void forward(Index block, MutableMatrix x, BlockTape& tape) {
    enter(block);
    keep(x, tape.x);
    const MutableMatrix delta = scratch(delta_, c_.dim);
    attend(attention_input(tape), tape, delta);
    if (f_.parallel()) {
      const MutableMatrix mlp_delta = scratch(mlp_delta_, c_.dim);
      feed_forward(mlp_input(tape), tape, mlp_delta);
      nn::add(delta, x, executor_);
      nn::add(mlp_delta, x, executor_);
    } else {
      join(delta, x, tape.attn_out, Slot::attn_norm, Slot::attn_norm_bias);
      keep(x, tape.middle);
      feed_forward(mlp_input(tape), tape, delta);
      join(delta, x, tape.mlp_out, Slot::ffn_norm, Slot::ffn_norm_bias);
    }
    at(Point::residual, x);
  }

  /// dx, the gradient by y, becomes that by x; gradients of the block's tensors are added to `g`. Uses the tape up. Where taps
  /// wrote, gradients pass as if they had not (straight-through).
  void backward(Index block, BlockTape& tape, MutableMatrix dx, Gradients& g) {
    enter(block), gradients_ = &g;
    const MutableMatrix din = scratch(din_, c_.dim);
    fill_zero(din);
    if (f_.parallel()) {
      const bool shared = f_.order == model::BlockOrder::parallel;
      const MutableMatrix dmlp = shared ? din : scratch(dmlp_, c_.dim);
      attend_back(attention_input(tape), tape, dx, din);
      if (!shared) fill_zero(dmlp);
      feed_forward_back(mlp_input(tape), tape, dx, dmlp);
      normalize_back(tape.x.view(), Slot::attn_norm, Slot::attn_norm_bias, din, dx);
      if (!shared) normalize_back(tape.x.view(), Slot::ffn_norm, Slot::ffn_norm_bias, dmlp, dx);
      return;
    }
    join_back(tape.mlp_out, Slot::ffn_norm, Slot::ffn_norm_bias, dx);
    feed_forward_back(mlp_input(tape), tape, dx, din);
    enter_back(tape.middle, Slot::ffn_norm, Slot::ffn_norm_bias, din, dx);
    join_back(tape.attn_out, Slot::attn_norm, Slot::attn_norm_bias, dx);
    fill_zero(din);
    attend_back(attention_input(tape), tape, dx, din);
    enter_back(tape.x, Slot::attn_norm, Slot::attn_norm_bias, din, dx);
  }

 private:
  /// Rotary tables of sequences of one length.
  struct Ropes {
    Index length;
    nn::RopeTable all;
    std::optional<nn::RopeTable> windowed;
  };

  /// The inputs of attention and of the feed-forward part.
  MutableMatrix attention_input(const BlockTape& tape) {
    const MutableMatrix in = scratch(normed_, c_.dim);
    if (post())
      copy(tape.x.view(), in);
    else
      normalize(tape.x.view(), Slot::attn_norm, Slot::attn_norm_bias, in);
    at(Point::attn_in, in);
    return in;
  }
  MutableMatrix mlp_input(const BlockTape& tape) {
    const bool shared = f_.order == model::BlockOrder::parallel;  // with attention, whose input is there
    const MutableMatrix in = scratch(shared ? normed_ : mlp_in_, c_.dim);
    if (post())
      copy(tape.middle.view(), in);
    else if (!shared)
      normalize(f_.parallel() ? tape.x.view() : tape.middle.view(), Slot::ffn_norm, Slot::ffn_norm_bias, in);
    at(Point::mlp_in, in);
    return in;
  }

  // Attention.

  /// Queries or keys as a matrix of heads.
  MutableMatrix heads(MutableMatrix x) const { return {x.data, x.rows * (x.cols / c_.head_dim), c_.head_dim}; }
  void normalize_heads(Matrix& x, Matrix& before, Slot gain, Slot bias) const {
    keep(x.view(), before);
    model::decoder_block::normalize_heads(c_, d_.block(block_), places_, x.view(), gain, bias, executor_);
  }
  void normalize_heads_back(Matrix& before, Slot gain, Slot bias, MutableMatrix d) {
    const MutableMatrix out = scratch_.at(dheads_, d.rows, d.cols);
    fill_zero(out);
    const MutableMatrix x = heads(before.view());
    if (f_.head_norm == model::HeadNorm::rms)
      backward::rms_norm(x, weight(gain).values, c_.norm_epsilon, heads(d), heads(out), gradient(gain).values, executor_);
    else
      backward::layer_norm(x, weight(gain).values, c_.norm_epsilon, heads(d), heads(out), gradient(gain).values,
                           gradient(bias).values, executor_);
    copy(out, d);
  }

  /// Calls f(first row, row behind the last, rotary table or null) for every sequence, with an empty cache.
  template <class F>
  void for_each_sequence(F&& f) {
    const bool windowed = c_.rope_window_base > 0 && f_.window_of(block_) > 0;
    Index begin = 0;
    for (const Index length : lengths_) {
      const auto found = std::find_if(ropes_.begin(), ropes_.end(), [length](const Ropes& r) { return r.length == length; });
      cache_.clear();
      f(begin, begin + length, found == ropes_.end() ? nullptr : windowed ? &*found->windowed : &found->all);
      begin += length;
    }
  }

  void attend(ConstMatrix in, BlockTape& tape, MutableMatrix delta) {
    apply(Slot::attn_q, in, sized(tape.q, tokens_, c_.query_width()));
    apply(Slot::attn_k, in, sized(tape.k, tokens_, c_.kv_width()));
    apply(Slot::attn_v, in, sized(tape.v, tokens_, c_.kv_width()));
    at(Point::q, tape.q.view()), at(Point::k, tape.k.view()), at(Point::v, tape.v.view());
    if (f_.head_norm != model::HeadNorm::none) {
      normalize_heads(tape.q, tape.q_before, Slot::attn_q_norm, Slot::attn_q_norm_bias);
      normalize_heads(tape.k, tape.k_before, Slot::attn_k_norm, Slot::attn_k_norm_bias);
    }
    const MutableMatrix mixed = sized(tape.mixed, tokens_, c_.query_width());
    std::vector<float> slopes;
    const nn::AttentionOptions options = model::decoder_block::attention_options(c_, block_, slopes);
    for_each_sequence([&](Index begin, Index end, const nn::RopeTable* rope) {
      const auto of = [&](Matrix& m) { return m.view().row_range(begin, end); };
      if (rope) rope->apply(of(tape.q), c_.head_dim, executor_), rope->apply(of(tape.k), c_.head_dim, executor_);
      cache_.append(0, of(tape.k), of(tape.v), executor_);
      nn::attention({c_.heads, c_.kv_heads, c_.head_dim}, of(tape.q), cache_, 0, mixed.row_range(begin, end), executor_, options);
    });
    if (d_.online.attn_output) d_.online.attn_output->forward(mixed, executor_);
    at(Point::head_out, mixed);
    apply(Slot::attn_output, mixed, delta);
    if (sandwich()) normalize_delta(Slot::post_attention_norm, tape.attn_out, delta);
    at(Point::attn_out, delta);
  }

  /// din += the gradient by attention's input.
  void attend_back(ConstMatrix in, BlockTape& tape, ConstMatrix dy, MutableMatrix din) {
    dy = delta_back(tape.attn_out, Slot::post_attention_norm, dy);
    const MutableMatrix dmixed = scratch(dmixed_, c_.query_width()), dq = scratch(dq_, c_.query_width()),
                        dk = scratch(dk_, c_.kv_width()), dv = scratch(dv_, c_.kv_width());
    fill_zero(dmixed);
    back(Slot::attn_output, tape.mixed.view(), dy, dmixed);
    if (d_.online.attn_output) d_.online.attn_output->inverse(dmixed, executor_);
    std::vector<float> slopes;
    const nn::AttentionOptions options = model::decoder_block::attention_options(c_, block_, slopes);
    for_each_sequence([&](Index begin, Index end, const nn::RopeTable* rope) {
      const auto of = [&](MutableMatrix m) { return m.row_range(begin, end); };
      backward::attention({c_.heads, c_.kv_heads, c_.head_dim}, of(tape.q.view()), of(tape.k.view()), of(tape.v.view()),
                          of(dmixed), of(dq), of(dk), of(dv), executor_, options);
      if (rope) rope->apply_transposed(of(dq), c_.head_dim, executor_), rope->apply_transposed(of(dk), c_.head_dim, executor_);
    });
    if (f_.head_norm != model::HeadNorm::none) {
      normalize_heads_back(tape.q_before, Slot::attn_q_norm, Slot::attn_q_norm_bias, dq);
      normalize_heads_back(tape.k_before, Slot::attn_k_norm, Slot::attn_k_norm_bias, dk);
    }
    back(Slot::attn_q, in, dq, din), back(Slot::attn_k, in, dk, din), back(Slot::attn_v, in, dv, din);
  }

  // The feed-forward part.

  /// down's input, from gate and up.
  MutableMatrix make_hidden(const BlockTape& tape) {
    const MutableMatrix hidden = scratch(hidden_, c_.hidden);
    copy(f_.gated ? tape.gate.view() : tape.up.view(), hidden);
    if (f_.gated)
      nn::gated(f_.activation, hidden, tape.up.view(), executor_);
    else
      nn::activate(f_.activation, hidden, executor_);
    if (d_.online.ffn_down) d_.online.ffn_down->forward(hidden, executor_);
    at(Point::mlp_hidden, hidden);
    return hidden;
  }

  // Experts.

  bool sparse() const { return f_.experts.in(block_); }
  model::expert_block::Places expert_places() const { return {f_.experts, places_.size()}; }
  void at_expert(Point point, Index expert, MutableMatrix m) const {
    for (const model::Tap& t : taps_)
      if (t.point == point && (t.block == block_ || t.block == model::Tap::every_block) &&
          (t.expert == expert || t.expert == model::Tap::every_expert))
        t.apply(m, {0, tokens_});
  }
  /// Rows of `in` of an expert's tokens.
  MutableMatrix expert_input(ConstMatrix in, Index expert, nn::ExpertTokens list) {
    const MutableMatrix x = rows_of(expert_in_, list.size(), c_.dim);
    nn::gather_rows(in, list.rows, x, executor_);
    at_expert(Point::expert_in, expert, x);
    return x;
  }
  MutableMatrix expert_hidden(ConstMatrix gate, ConstMatrix up, Index expert) {
    const MutableMatrix hidden = rows_of(expert_hidden_, gate.rows, f_.experts.hidden);
    copy(gate, hidden);
    nn::gated(f_.activation, hidden, up, executor_);
    at_expert(Point::expert_hidden, expert, hidden);
    return hidden;
  }
  MutableMatrix shared_hidden(const BlockTape& tape) {
    const MutableMatrix hidden = scratch(hidden_, f_.experts.shared_hidden);
    copy(tape.gate.view(), hidden);
    nn::gated(f_.activation, hidden, tape.up.view(), executor_);
    at(Point::mlp_hidden, hidden);
    return hidden;
  }
  /// Calls f(expert, its tokens, its rows of a matrix of all choices) for every expert.
  template <class F>
  void for_each_expert(const nn::Routing& routing, F&& f) {
    Index begin = 0;
    for (Index k = 0; k < f_.experts.count; ++k) {
      const nn::ExpertTokens list = routing.of(k);
      f(k, list, [begin, end = begin + list.size()](Matrix& m) { return m.view().row_range(begin, end); });
      begin += list.size();
    }
  }

  void experts(ConstMatrix in, BlockTape& tape, MutableMatrix delta) {
    namespace part = model::expert_block;
    const part::Places experts_at = expert_places();
    const model::ExpertForm& e = f_.experts;
    apply_at(experts_at.router(), in, sized(tape.router, tokens_, e.count));
    at(Point::router, tape.router.view());
    tape.routing.choose(tape.router.view(), e.used, e.weights);
    sized(tape.expert_gate, tokens_ * e.used, e.hidden), sized(tape.expert_up, tokens_ * e.used, e.hidden);
    fill_zero(delta);
    for_each_expert(tape.routing, [&](Index k, nn::ExpertTokens list, auto rows) {
      const MutableMatrix x = expert_input(in, k, list), gate = rows(tape.expert_gate), up = rows(tape.expert_up);
      if (list.size() > 0) {
        apply_at(experts_at.expert(k, part::gate), x, gate);
        apply_at(experts_at.expert(k, part::up), x, up);
      }
      const MutableMatrix hidden = expert_hidden(gate, up, k), out = rows_of(expert_out_, list.size(), c_.dim);
      if (list.size() == 0) return;
      apply_at(experts_at.expert(k, part::down), hidden, out);
      nn::add_rows(out, list, delta, executor_);
    });
    if (e.shared_hidden == 0) return;
    apply_at(experts_at.shared(part::gate), in, sized(tape.gate, tokens_, e.shared_hidden));
    apply_at(experts_at.shared(part::up), in, sized(tape.up, tokens_, e.shared_hidden));
    const MutableMatrix out = scratch(expert_out_, c_.dim);
    apply_at(experts_at.shared(part::down), shared_hidden(tape), out);
    if (!e.shared_gate) return nn::add(out, delta, executor_);
    apply_at(experts_at.shared_router(), in, sized(tape.shared_router, tokens_, 1));
    nn::add_gated_rows(out, tape.shared_router.view(), delta, executor_);
  }

  void experts_back(ConstMatrix in, BlockTape& tape, ConstMatrix dy, MutableMatrix din) {
    namespace part = model::expert_block;
    const part::Places experts_at = expert_places();
    const model::ExpertForm& e = f_.experts;
    std::vector<float> dweights(static_cast<std::size_t>(tokens_ * e.used));
    for_each_expert(tape.routing, [&](Index k, nn::ExpertTokens list, auto rows) {
      if (list.size() == 0) return;
      const MutableMatrix x = expert_input(in, k, list), gate = rows(tape.expert_gate), up = rows(tape.expert_up);
      const MutableMatrix hidden = expert_hidden(gate, up, k), dout = rows_of(expert_out_, list.size(), c_.dim),
                          dhidden = rows_of(dexpert_hidden_, list.size(), e.hidden),
                          dx = rows_of(dexpert_in_, list.size(), c_.dim);
      backward::expert_outputs(dy, list, dout, executor_);
      fill_zero(dhidden), fill_zero(dx);
      back_at(experts_at.expert(k, part::down), hidden, dout, dhidden);
      for (Index i = 0; i < list.size(); ++i)
        dweights[tape.routing.slots(k)[static_cast<std::size_t>(i)]] =
            backward::weight_gradient(hidden.row(i), dhidden.row(i), list.weights[static_cast<std::size_t>(i)]);
      backward::gated(f_.activation, gate, up, dhidden, gate, up, executor_);
      back_at(experts_at.expert(k, part::gate), x, gate, dx);
      back_at(experts_at.expert(k, part::up), x, up, dx);
      backward::add_to_rows(dx, list.rows, din);
    });
    const MutableMatrix drouter = scratch(drouter_, e.count);
    backward::router(tape.routing, tape.router.view(), e.weights, dweights, drouter, executor_);
    back_at(experts_at.router(), in, drouter, din);
    if (e.shared_hidden > 0) shared_back(in, tape, dy, din);
  }
  /// Of y = s S(x), s = sigmoid z:  dS = s dy,  dz = s (1 - s) dy . S(x).
  void shared_back(ConstMatrix in, BlockTape& tape, ConstMatrix dy, MutableMatrix din) {
    namespace part = model::expert_block;
    const part::Places experts_at = expert_places();
    const model::ExpertForm& e = f_.experts;
    const MutableMatrix hidden = shared_hidden(tape), dhidden = scratch(dhidden_, e.shared_hidden),
                        dout = scratch(expert_out_, c_.dim), gate = tape.gate.view(), up = tape.up.view();
    const MutableMatrix z = tape.shared_router.view();
    copy(dy, dout);
    fill_zero(dhidden);
    for (Index t = 0; e.shared_gate && t < tokens_; ++t)
      for (float& d : dout.row(t)) d *= nn::sigmoid(z(t, 0));
    back_at(experts_at.shared(part::down), hidden, dout, dhidden);
    if (e.shared_gate) {
      for (Index t = 0; t < tokens_; ++t) {
        const float s = nn::sigmoid(z(t, 0));
        z(t, 0) = s * (1 - s) * backward::weight_gradient(hidden.row(t), dhidden.row(t), s);
      }
      back_at(experts_at.shared_router(), in, z, din);
    }
    backward::gated(f_.activation, gate, up, dhidden, gate, up, executor_);
    back_at(experts_at.shared(part::gate), in, gate, din);
    back_at(experts_at.shared(part::up), in, up, din);
  }

  void dense(ConstMatrix in, BlockTape& tape, MutableMatrix delta) {
    if (f_.gated) apply(Slot::ffn_gate, in, sized(tape.gate, tokens_, c_.hidden));
    apply(Slot::ffn_up, in, sized(tape.up, tokens_, c_.hidden));
    apply(Slot::ffn_down, make_hidden(tape), delta);
  }
  void feed_forward(ConstMatrix in, BlockTape& tape, MutableMatrix delta) {
    if (sparse())
      experts(in, tape, delta);
    else
      dense(in, tape, delta);
    if (sandwich()) normalize_delta(Slot::post_ffw_norm, tape.mlp_out, delta);
    at(Point::mlp_out, delta);
  }

  /// din += the gradient by the feed-forward part's input.
  void feed_forward_back(ConstMatrix in, BlockTape& tape, ConstMatrix dy, MutableMatrix din) {
    dy = delta_back(tape.mlp_out, Slot::post_ffw_norm, dy);
    if (sparse()) return experts_back(in, tape, dy, din);
    const MutableMatrix hidden = make_hidden(tape), dhidden = scratch(dhidden_, c_.hidden), gate = tape.gate.view(),
                        up = tape.up.view();
    fill_zero(dhidden);
    back(Slot::ffn_down, hidden, dy, dhidden);
    if (d_.online.ffn_down) d_.online.ffn_down->inverse(dhidden, executor_);
    if (f_.gated) {
      backward::gated(f_.activation, gate, up, dhidden, gate, up, executor_);
      back(Slot::ffn_gate, in, gate, din);
    } else {
      backward::activate(f_.activation, up, dhidden, up, executor_);
    }
    back(Slot::ffn_up, in, up, din);
  }

  std::vector<Ropes> ropes_;
  nn::KvCache cache_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
