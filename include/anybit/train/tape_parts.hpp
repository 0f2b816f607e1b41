#pragma once
// Parts that the passes of decoder_tape.hpp share: the activations of a block, its weights by slot, scratch matrices, taps, norms
// and linears, each forwards and backwards.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <anybit/model/arch/decoder_block.hpp>
#include <anybit/train/backward/norm.hpp>
#include <anybit/train/dropout.hpp>
#include <anybit/train/gradients.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// Told, in every backward pass through a linear, its input x (tokens, inputs) and the gradient of the loss by its outputs dy
/// (tokens, outputs). Of a routed expert the tokens are its own. From one thread.
using OnLinear = std::function<void(model::WeightId, ConstMatrix x, ConstMatrix dy)>;

/// Activations of one block, (tokens, width). What a form does not need stays empty.
struct BlockTape {
  Matrix x;                   ///< the residual stream before the block
  Matrix q_before, k_before;  ///< in front of the norms of heads
  Matrix q, k, v;             ///< behind norms and positions
  Matrix mixed;               ///< as o reads it
  Matrix attn_out;            ///< sandwich: what attention gives to the norm behind it; post: its sum with the stream
  Matrix middle;              ///< the residual stream between attention and feed-forward part
  Matrix gate, up;            ///< before the activation
  Matrix mlp_out;             ///< as attn_out
  // With experts; gate and up are then those of the shared one.
  Matrix router;                  ///< logits
  Matrix shared_router;           ///< of the shared expert's gate, (tokens, 1)
  Matrix expert_gate, expert_up;  ///< of all experts in turn, the rows of each as Routing::of() lists its tokens
  nn::Routing routing;
};

/// State and steps that the forward and the backward pass of a block share: the decoder, the current block, and the places of its
/// activations and gradients.
class TapeParts {
 protected:
  using Slot = model::decoder_block::Slot;
  using Point = model::Point;
  enum Number : std::size_t {
    normed_,
    mlp_in_,
    delta_,
    mlp_delta_,
    hidden_,
    din_,
    dmlp_,
    dnorm_,
    dhidden_,
    dmixed_,
    dq_,
    dk_,
    dv_,
    dheads_,
    dropped_,
    ddropped_,
    expert_in_,
    expert_hidden_,
    expert_out_,
    dexpert_in_,
    dexpert_hidden_,
    drouter_
  };

  TapeParts(const model::Decoder& d, const Dropout& dropout, std::span<const model::Tap> taps, ExecutorRef executor)
      : d_(d), c_(d.config), f_(d.config.form), places_(d.config.form, 0), dropout_(dropout), taps_(taps), executor_(executor) {}

  void enter(Index block) { block_ = block, places_ = model::decoder_block::Places(f_, block); }

  const model::Weight& weight(Slot s) const { return d_.block(block_)[places_[s]]; }
  /// By a weight's place in the block.
  model::WeightId id(std::size_t at) const {
    return static_cast<model::WeightId>(d_.blueprint->blocks[static_cast<std::size_t>(block_)] + at);
  }
  WeightGradient& gradient(Slot s) const { return (*gradients_)[place(id(places_[s]))]; }
  bool has(Slot s) const { return model::decoder_block::has(f_, s, block_); }
  bool sandwich() const { return f_.order == model::BlockOrder::sandwich; }
  bool post() const { return f_.order == model::BlockOrder::post; }

  MutableMatrix scratch(Number n, Index width) { return scratch_.at(n, tokens_, width); }
  static void copy(ConstMatrix from, MutableMatrix to) { model::decoder_block::copy(from, to); }
  static void fill_zero(MutableMatrix m) {
    for (Index t = 0; t < m.rows; ++t) std::fill_n(m.row(t).data(), m.cols, 0.0f);
  }
  static MutableMatrix sized(Matrix& m, Index rows, Index cols) {
    if (m.extents() != Extents{rows, cols}) m = Matrix(rows, cols);
    return m.view();
  }
  static void keep(ConstMatrix x, Matrix& to) { copy(x, sized(to, x.rows, x.cols)); }

  /// Calls the taps of this block at a point, sequence by sequence.
  void at(Point point, MutableMatrix m) const {
    for (const model::Tap& t : taps_) {
      if (t.point != point || (t.block != block_ && t.block != model::Tap::every_block)) continue;
      Index begin = 0;
      for (const Index length : lengths_) t.apply(m.row_range(begin, begin + length), {0, length}), begin += length;
    }
  }

  /// The first rows of a scratch matrix, which is as high as there are tokens.
  MutableMatrix rows_of(Number n, Index rows, Index width) { return scratch(n, width).row_range(0, rows); }

  // Norms.

  void normalize(ConstMatrix x, Slot gain, Slot bias, MutableMatrix y) const {
    model::decoder_block::normalize(c_, x, weight(gain), has(bias) ? &weight(bias) : nullptr, y, executor_);
  }
  void normalize_back(ConstMatrix x, Slot gain, Slot bias, ConstMatrix dy, MutableMatrix dx) const {
    std::vector<float>& dgain = gradient(gain).values;
    if (f_.norm == model::NormKind::rms)
      return backward::rms_norm(x, weight(gain).values, c_.norm_epsilon, dy, dx, dgain, executor_);
    const std::span<float> dbias = has(bias) ? std::span<float>(gradient(bias).values) : std::span<float>();
    backward::layer_norm(x, weight(gain).values, c_.norm_epsilon, dy, dx, dgain, dbias, executor_);
  }
  void normalize_delta(Slot gain, Matrix& before, MutableMatrix delta) const {
    keep(delta, before);
    model::decoder_block::normalize(c_, before.view(), weight(gain), nullptr, delta, executor_);
  }

  /// dx += what arrives through the input `din` that was made of `x`.
  void enter_back(const Matrix& x, Slot gain, Slot bias, ConstMatrix din, MutableMatrix dx) const {
    if (post())
      nn::add(din, dx, executor_);
    else
      normalize_back(x.view(), gain, bias, din, dx);
  }
  /// x += delta, in BlockOrder::post with the norm behind it.
  void join(ConstMatrix delta, MutableMatrix x, Matrix& sum, Slot gain, Slot bias) const {
    nn::add(delta, x, executor_);
    if (!post()) return;
    keep(x, sum);
    normalize(sum.view(), gain, bias, x);
  }
  void join_back(const Matrix& sum, Slot gain, Slot bias, MutableMatrix dx) {
    if (!post()) return;
    const MutableMatrix dsum = scratch(dnorm_, c_.dim);
    fill_zero(dsum);
    normalize_back(sum.view(), gain, bias, dx, dsum);
    copy(dsum, dx);
  }
  /// The gradient by the output of attention or MLP in front of its own norm (sandwich); dy itself in every other order.
  ConstMatrix delta_back(const Matrix& before, Slot gain, ConstMatrix dy) {
    if (!sandwich()) return dy;
    const MutableMatrix out = scratch(dnorm_, c_.dim);
    fill_zero(out);
    std::vector<float>& dgain = gradient(gain).values;
    if (f_.norm == model::NormKind::rms)
      backward::rms_norm(before.view(), weight(gain).values, c_.norm_epsilon, dy, out, dgain, executor_);
    else
      backward::layer_norm(before.view(), weight(gain).values, c_.norm_epsilon, dy, out, dgain, {}, executor_);
    return out;
  }

  // Linears.

  DropoutMask mask(std::size_t at) const { return DropoutMask(dropout_, place(id(at))); }
  bool drops(const nn::Linear& w) const { return w.adapter() && dropout_.rate > 0; }
  static nn::Linear without_adapter(nn::Linear w) {
    w.set_adapter(nullptr);
    return w;
  }

  void apply(Slot s, ConstMatrix x, MutableMatrix y) { apply_at(places_[s], x, y); }
  void apply_at(std::size_t at, ConstMatrix x, MutableMatrix y) {
    const nn::Linear& w = d_.block(block_)[at].linear;
    if (!drops(w)) return w.apply(x, y, executor_, scratch_.workspace);
    without_adapter(w).apply(x, y, executor_, scratch_.workspace);
    const MutableMatrix dropped = rows_of(dropped_, x.rows, x.cols);
    mask(at).apply(x, dropped, false, executor_);
    w.add_adapter(dropped, y, executor_);
  }

  /// dx += gradient by x; gradients of the linear's own tensors are added to.
  void back(Slot s, ConstMatrix x, ConstMatrix dy, MutableMatrix dx) { back_at(places_[s], x, dy, dx); }
  void back_at(std::size_t at, ConstMatrix x, ConstMatrix dy, MutableMatrix dx) {
    const nn::Linear& w = d_.block(block_)[at].linear;
    if (on_linear_) on_linear_(id(at), x, dy);
    backward::LinearGradient& own = (*gradients_)[place(id(at))].linear;
    if (!drops(w)) return backward::linear(w, x, dy, dx, own, executor_);
    backward::linear(without_adapter(w), x, dy, dx, own, executor_);
    const MutableMatrix dropped = rows_of(dropped_, x.rows, x.cols), ddropped = rows_of(ddropped_, x.rows, x.cols);
    mask(at).apply(x, dropped, false, executor_);
    fill_zero(ddropped);
    backward::adapter(*w.adapter(), dropped, dy, ddropped, own.a.view(), own.b.view(), executor_);
    mask(at).apply(ddropped, dx, true, executor_);
  }

  const model::Decoder& d_;
  const model::DecoderConfig& c_;
  const model::DecoderForm& f_;
  model::decoder_block::Places places_;
  std::vector<Index> lengths_{};
  Index tokens_ = 0, block_ = 0;
  Dropout dropout_;
  std::span<const model::Tap> taps_;
  OnLinear on_linear_{};
  ExecutorRef executor_;
  model::Scratch scratch_{};
  Gradients* gradients_ = nullptr;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
