#pragma once
// Rotates the activations of a float decoder by random Hadamard matrices (QuaRot, Ashkboos et al., 2024): weights and
// activations lose their outliers, logits stay. See docs/methods/quarot.md. Readable twin: reference/quarot.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/model/architecture.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

inline Matrix transposed(ConstMatrix m) {
  Matrix out(m.cols, m.rows);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < m.cols; ++c) out(c, r) = m(r, c);
  return out;
}

/// Rotates one linear, step by step. Inputs are columns of W, outputs rows.
class Rewritten {
 public:
  explicit Rewritten(const nn::Linear& linear) : w_(linear.dense()->view()), bias_(linear.bias()) {}

  /// For inputs that no longer are multiplied by `gain`.
  Rewritten& with_gain(const std::vector<float>& gain) {
    for (Index r = 0; r < w_.rows(); ++r)
      for (Index c = 0; c < w_.cols(); ++c) w_(r, c) *= gain[static_cast<std::size_t>(c)];
    return *this;
  }
  /// For inputs R x: W R^T.
  Rewritten& reading(const std::optional<Hadamard>& rotation) {
    if (rotation) rotation->forward(w_.view());
    return *this;
  }
  /// For outputs R y: R W.
  Rewritten& writing(const std::optional<Hadamard>& rotation) {
    if (!rotation) return *this;
    Matrix columns = transposed(w_.view());
    rotation->forward(columns.view());
    w_ = transposed(columns.view());
    if (!bias_.empty()) rotation->forward(bias_);
    return *this;
  }
  /// Heads are rotated by R^T = diag(s) H and not by R = H diag(s), of which a KV cache that multiplies by H once more would
  /// leave the signs alone.
  Rewritten& reading_heads(const std::optional<Hadamard>& rotation) {
    if (rotation) inverse_of_heads(w_.view(), *rotation);
    return *this;
  }
  Rewritten& writing_heads(const std::optional<Hadamard>& rotation) {
    if (!rotation) return *this;
    Matrix columns = transposed(w_.view());
    inverse_of_heads(columns.view(), *rotation);
    w_ = transposed(columns.view());
    if (!bias_.empty()) inverse_of_heads(MutableMatrix(bias_.data(), 1, static_cast<Index>(bias_.size())), *rotation);
    return *this;
  }
  nn::Linear linear() {
    nn::Linear out(std::move(w_));
    out.set_bias(std::move(bias_));
    return out;
  }

 private:
  static void inverse_of_heads(MutableMatrix m, const Hadamard& rotation) {
    for (Index first = 0; first < m.cols; first += rotation.size()) rotation.inverse(m.col_range(first, first + rotation.size()));
  }
  Matrix w_;
  std::vector<float> bias_;
};

}  // namespace detail

/// The same function from tokens to logits, up to float rounding, with rotated activations inside. quantize_model() takes it as
/// its source, with statistics of its own. It shares with `source` what did not change.
inline Result<Decoder> rotate(const Decoder& source, const RotationOptions& options = {}, ExecutorRef executor = {}) {
  ANYBIT_TRY_STATUS(check(source));
  if (source.rotation || source.online.any())
    return Error{ErrorCode::invalid_argument, "rotate: the model is rotated already; give the one that it was made from"};
  const DecoderForm& form = source.config.form;
  if (form.norm != NormKind::rms || form.order != BlockOrder::pre || form.positions == Positions::learned ||
      form.embedding_width > 0 || !form.final_norm || !source.config.encoder.empty())
    return Error{
        ErrorCode::unsupported,
        io::detail::text("rotate: the ", source.blueprint->architecture->name,
                         " architecture has norms or tables that a rotation does not pass through; quantize it unrotated")};
  std::string packed;
  for_each_linear(source, [&](const std::string& name, const nn::Linear& linear) {
    if (!linear.dense() && packed.empty()) packed = name;
  });
  if (!packed.empty())
    return Error{ErrorCode::unsupported, "rotate: " + packed + " is quantized already; rotate the float model, then quantize it"};
  for_each_linear(source, [&](const std::string& name, const nn::Linear& linear) {
    if (linear.adapter() && packed.empty()) packed = name;
  });
  if (!packed.empty())
    return Error{ErrorCode::unsupported, "rotate: " + packed + " has an adapter; add it to the weights, then rotate"};

  const DecoderConfig& c = source.config;
  Status status = Ok{};
  std::uint64_t number = 0;
  const auto made = [&](bool wanted, Index n, std::string_view what, std::string_view option) {
    std::optional<Hadamard> rotation;
    const std::uint64_t seed = options.seed == 0 ? 0 : options.seed + number++;  // signs of its own for each
    if (!wanted || !status) return rotation;
    auto result = Hadamard::make(n, seed);
    if (result)
      rotation = *std::move(result);
    else
      status =
          in_context(result.error(), io::detail::text("rotate: ", what, " (switch it off by RotationOptions::", option, ")"));
    return rotation;
  };
  const auto residual = made(options.residual, c.dim, "the residual stream", "residual"),
             values = made(options.values, c.head_dim, "the values of a head", "values"),
             attn_output = made(options.attn_output, c.query_width(), "the input of o", "attn_output"),
             ffn_down = made(options.ffn_down, c.hidden, "the input of down", "ffn_down");
  if (options.ffn_down && form.experts.count > 0)
    return Error{ErrorCode::unsupported,
                 "rotate: experts are not as wide as the rotation of down's input: switch it off by RotationOptions::ffn_down"};
  ANYBIT_TRY_STATUS(status);

  Decoder d = source;
  d.rotation = options;
  d.online.attn_output = attn_output;
  d.online.ffn_down = ffn_down;
  const Blueprint& blueprint = *d.blueprint;
  executor.parallel_for(c.blocks, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      for (const SiteId site : blueprint.sites_of(i)) {
        const SiteSpec& s = blueprint[site];
        const Producer& from = s.producer;
        // A linear of several heads: its outputs can be rotated head by head, and so can what reads them.
        const bool heads = values && from.kind == Producer::Kind::linear && from.head_dim > 1;
        const std::optional<Hadamard> none;
        const auto& online = s.point == Point::head_out ? attn_output : s.point == Point::mlp_hidden ? ffn_down : none;
        const auto& adds = s.writes_residual ? residual : none;
        for (const WeightId id : s.readers) {
          if (from.kind == Producer::Kind::norm && residual)
            d[id].linear = detail::Rewritten(d[id].linear).with_gain(d[from.weight].values).reading(residual).linear();
          else if (heads || online || adds)
            d[id].linear =
                detail::Rewritten(d[id].linear).reading_heads(heads ? values : none).reading(online).writing(adds).linear();
        }
        if (heads) d[from.weight].linear = detail::Rewritten(d[from.weight].linear).writing_heads(values).linear();
        for (const WeightId id : s.float_readers)
          if (residual)
            d[id].linear = detail::Rewritten(d[id].linear).with_gain(d[from.weight].values).reading(residual).linear();
      }
  });
  if (!residual) return d;
  // Several sites may read one norm.
  for (const SiteSpec& s : blueprint.sites)
    if (s.producer.kind == Producer::Kind::norm)
      std::fill(d[s.producer.weight].values.begin(), d[s.producer.weight].values.end(), 1.0f);
  if (!d.has_head() && options.keep_tied) {
    d.online.residual = residual;
  } else {
    d.head() = detail::Rewritten(source.output_head()).with_gain(d.output_norm()).reading(residual).linear();
    d.token_embedding() = detail::Rewritten(d.token_embedding()).reading(residual).linear();
    std::fill(d.output_norm().begin(), d.output_norm().end(), 1.0f);
  }
  return d;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
