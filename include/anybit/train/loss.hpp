#pragma once
// The loss of a decoder on examples and its gradients: next tokens against labels, or against a teacher.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/model/run.hpp>
#include <anybit/train/backward/cross_entropy.hpp>
#include <anybit/train/backward/embedding.hpp>
#include <anybit/train/decoder_tape.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

using model::TokenId;

/// A text to learn from. Every token but the first is predicted from those before it.
struct Example {
  std::span<const TokenId> ids{};
  /// One per id: 0 where its prediction does not count, as in the prompt of an instruction. Empty: all count.
  std::span<const std::uint8_t> counted{};

  bool counts(Index t) const { return t > 0 && (counted.empty() || counted[static_cast<std::size_t>(t)] != 0); }
};

/// Predictions that count.
inline Index predictions(std::span<const Example> batch) {
  Index n = 0;
  for (const Example& e : batch)
    for (Index t = 1; t < static_cast<Index>(e.ids.size()); ++t) n += e.counts(t) ? 1 : 0;
  return n;
}

struct LossOptions {
  ExecutorRef executor{};
  /// Keep of every block only the residual stream: one more forward pass for the memory of one block.
  bool recompute_blocks = true;
  /// The loss is the sum over predictions divided by this; 0: by how many count here. For micro-batches that of the whole batch.
  double divisor = 0;
  /// If given, the loss is the KL divergence from its distribution at this temperature, and ids are only read.
  const model::Decoder* teacher = nullptr;
  float temperature = 1;
  Dropout dropout{};                   ///< of what adapters read
  std::span<const model::Tap> taps{};  ///< may write: gradients pass straight through; called again for what is computed again
  OnLinear on_linear{};                ///< of the blocks; then every block's backward pass is run, whatever is trained
};

struct Loss {
  double sum = 0;         ///< over the predictions that count
  Index predictions = 0;  ///< how many do
  double mean() const { return sum / static_cast<double>(predictions); }
};

namespace detail {

/// Positions whose logits exist at once: 4 bytes times the vocabulary each.
inline constexpr Index logit_rows = 128;

inline Status check_batch(const model::Decoder& d, std::span<const Example> batch, const LossOptions& o) {
  using io::detail::text;
  ANYBIT_TRY_STATUS(model::check_is_decoder(d, "train"));
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Example& e = batch[i];
    const auto bad = [&](ErrorCode code, auto... why) { return Status(code, text("train: example ", i, " ", why...)); };
    if (e.ids.size() < 2) return bad(ErrorCode::insufficient_data, "has ", e.ids.size(), " tokens: give at least two");
    if (static_cast<Index>(e.ids.size()) > d.config.context)
      return bad(ErrorCode::invalid_argument, "has ", e.ids.size(), " tokens, the model's context ", d.config.context,
                 ": cut it into shorter ones");
    if (!e.counted.empty() && e.counted.size() != e.ids.size())
      return bad(ErrorCode::shape_mismatch, "has ", e.ids.size(), " tokens and a mask of ", e.counted.size(),
                 ": give one value per token");
    if (auto ids = model::detail::check_ids(d, e.ids); !ids) return in_context(ids.error(), text("train: example ", i));
  }
  if (predictions(batch) == 0)
    return {ErrorCode::insufficient_data,
            text("train: none of ", batch.size(), " examples has a prediction that counts: check the masks")};
  if (o.teacher && o.teacher->config.vocabulary != d.config.vocabulary)
    return {ErrorCode::shape_mismatch,
            text("train: the teacher's vocabulary has ", o.teacher->config.vocabulary, " tokens, the model's ",
                 d.config.vocabulary, ": use a teacher of the same tokenizer")};
  if (!is_within(o.dropout.rate, 0, 1) || o.dropout.rate == 1)
    return {ErrorCode::invalid_argument,
            text("train: a dropout of ", model::detail::number_text(o.dropout.rate), " is not in [0, 1)")};
  if (o.teacher && !(is_finite(o.temperature) && o.temperature > 0))
    return {ErrorCode::invalid_argument,
            text("train: a temperature of ", model::detail::number_text(o.temperature), " is not above 0")};
  if (d.blueprint->architecture->run_block != model::decoder_block::run_block)
    return {ErrorCode::unsupported, text("train: the ", d.blueprint->architecture->name,
                                         " architecture has no backward pass: there is one of decoders with dense blocks")};
  return Ok{};
}

/// The activations that the teacher's head reads, of all examples one below the other.
inline Result<Matrix> teacher_states(const model::Decoder& teacher, std::span<const Example> batch, Index tokens,
                                     ExecutorRef executor) {
  Matrix out(tokens, teacher.config.embedding_width());
  Index row = 0;
  for (const Example& e : batch) {
    nn::KvCache cache(model::cache_shape(teacher.config), static_cast<Index>(e.ids.size()));
    ANYBIT_TRY(const Matrix hidden, model::hidden_states(teacher, e.ids, cache, {executor}));
    std::copy_n(hidden.data(), hidden.extents().size(), out.data() + row * out.cols());
    row += hidden.rows();
  }
  return out;
}

/// The head over the positions `rows` of `hidden`, whose labels are `labels`: the sum of losses; dhidden of these rows is added
/// to.
inline double head_loss(const model::Decoder& d, ConstMatrix hidden, ConstMatrix teacher_hidden, std::span<const Index> rows,
                        std::span<const TokenId> labels, float weight, const LossOptions& o, MutableMatrix dhidden,
                        backward::LinearGradient& g) {
  const auto gather = [](ConstMatrix from, std::span<const Index> which) {
    Matrix out(static_cast<Index>(which.size()), from.cols);
    for (Index i = 0; i < out.rows(); ++i)
      std::copy_n(from.row(which[static_cast<std::size_t>(i)]).data(), from.cols, out.data() + i * from.cols);
    return out;
  };
  double sum = 0;
  for (std::size_t begin = 0; begin < rows.size(); begin += static_cast<std::size_t>(logit_rows)) {
    const std::size_t count = std::min(static_cast<std::size_t>(logit_rows), rows.size() - begin);
    const auto which = rows.subspan(begin, count);
    const Matrix x = gather(hidden, which);
    Matrix dx(x.rows(), x.cols()), logits = model::logits(d, x.view(), o.executor);
    const float cap = d.config.form.logit_cap;
    const Matrix capped = cap > 0 ? logits : Matrix();
    if (o.teacher) {
      Matrix other = model::logits(*o.teacher, gather(teacher_hidden, which).view(), o.executor);
      sum += backward::kl_to_teacher(logits.view(), other.view(), o.temperature, weight, o.executor);
    } else {
      sum += backward::cross_entropy(logits.view(), labels.subspan(begin, count), weight, o.executor);
    }
    if (cap > 0) backward::soft_cap(cap, capped.view(), logits.view(), o.executor);
    backward::linear(d.output_head(), x.view(), logits.view(), dx.view(), g, o.executor);
    for (Index i = 0; i < dx.rows(); ++i)
      for (Index j = 0; j < dx.cols(); ++j) dhidden(which[static_cast<std::size_t>(i)], j) += dx(i, j);
  }
  return sum;
}

/// Back through the norm behind the last block and, if there is one, the projection out of the residual stream: dx of the stream
/// `x`, as Architecture::finish() left it, from that by what the head reads.
inline Matrix finish_back(const model::Decoder& d, ConstMatrix x, Matrix dout, Gradients& g, ExecutorRef executor) {
  const model::DecoderConfig& c = d.config;
  const auto find = [&](std::string_view name) { return d.weight(name); };
  const model::Weight* const bias =
      c.form.norm == model::NormKind::layer && c.form.final_norm ? &d[find("output_norm.bias")] : nullptr;
  if (c.form.embedding_width > 0) {
    Matrix wide(x), dwide(x.rows, x.cols);
    if (c.form.final_norm) model::decoder_block::normalize(c, x, d[find("output_norm.weight")], bias, wide.view(), executor);
    const model::WeightId projection = find("output_proj.weight");
    backward::linear(d[projection].linear, wide.view(), dout.view(), dwide.view(), g[place(projection)].linear, executor);
    dout = std::move(dwide);
  }
  if (c.form.final_norm) {
    const model::WeightId gain = find("output_norm.weight");
    Matrix dx(x.rows, x.cols);
    if (c.form.norm == model::NormKind::rms)
      backward::rms_norm(x, d[gain].values, c.norm_epsilon, dout.view(), dx.view(), g[place(gain)].values, executor);
    else
      backward::layer_norm(x, d[gain].values, c.norm_epsilon, dout.view(), dx.view(), g[place(gain)].values,
                           bias ? std::span<float>(g[place(find("output_norm.bias"))].values) : std::span<float>(), executor);
    dout = std::move(dx);
  }
  if (d.online.residual) d.online.residual->forward(dout.view(), executor);
  return dout;
}

/// Back to the tables of tokens and positions from dx of the stream before the first block, which changes. `lengths` as in
/// DecoderTape.
inline void embed_back(const model::Decoder& d, std::span<const TokenId> ids, std::span<const Index> lengths, MutableMatrix dx,
                       Gradients& g, ExecutorRef executor) {
  const model::DecoderForm& f = d.config.form;
  if (d.online.residual) d.online.residual->inverse(dx, executor);
  if (f.positions == model::Positions::learned) {
    if (Matrix& table = g[place(d.weight("position_embd.weight"))].linear.weight; !table.empty()) {
      std::vector<TokenId> rows;
      for (const Index n : lengths)
        for (Index t = 0; t < n; ++t) rows.push_back(static_cast<TokenId>(t + f.position_offset));
      backward::embed(rows, dx, table.view(), executor);
    }
  }
  Matrix& table = g[place(d.blueprint->embedding)].linear.weight;
  if (f.embedding_width == 0) {
    if (!table.empty()) backward::embed(ids, dx, table.view(), executor, f.embedding_scale);
    return;
  }
  if (f.embedding_scale != 1)
    for (Index t = 0; t < dx.rows; ++t)
      for (float& x : dx.row(t)) x *= f.embedding_scale;
  Matrix narrow(dx.rows, f.embedding_width), dnarrow(dx.rows, f.embedding_width);
  nn::embed(d.token_embedding(), ids, narrow.view());
  const model::WeightId projection = d.weight("token_embd_proj.weight");
  backward::linear(d[projection].linear, narrow.view(), dx, dnarrow.view(), g[place(projection)].linear, executor);
  if (!table.empty()) backward::embed(ids, dnarrow.view(), table.view(), executor);
}

}  // namespace detail

/// The loss of `batch`, and its gradients added to `gradients`, which make_gradients() made for this decoder: a batch may come in
/// pieces. A loss that is not finite is no error here; the caller stops before it steps. The same bits for any number of threads.
inline Result<Loss> loss_and_gradients(const model::Decoder& d, std::span<const Example> batch, Gradients& gradients,
                                       const LossOptions& o = {}) {
  ANYBIT_CHECK(gradients.size() == d.weights.size(), "train::loss_and_gradients: gradients of another model");
  ANYBIT_TRY_STATUS(detail::check_batch(d, batch, o));
  const model::DecoderConfig& c = d.config;
  std::vector<Index> lengths, rows;
  std::vector<TokenId> ids, labels;
  for (const Example& e : batch) {
    const auto first = static_cast<Index>(ids.size()), length = static_cast<Index>(e.ids.size());
    lengths.push_back(length);
    ids.insert(ids.end(), e.ids.begin(), e.ids.end());
    for (Index t = 1; t < length; ++t)
      if (e.counts(t)) rows.push_back(first + t - 1), labels.push_back(e.ids[static_cast<std::size_t>(t)]);
  }
  const auto tokens = static_cast<Index>(ids.size());
  Matrix taught;
  if (o.teacher) {
    ANYBIT_TRY(taught, detail::teacher_states(*o.teacher, batch, tokens, o.executor));
  }

  DecoderTape tape(d, lengths, o.dropout, o.taps, o.executor, o.on_linear);
  const model::Architecture& architecture = *d.blueprint->architecture;
  Matrix x(tokens, c.dim);
  Index row = 0;
  for (const Example& e : batch) {
    const Index end = row + static_cast<Index>(e.ids.size());
    architecture.embed(d, {.ids = e.ids}, x.view().row_range(row, end), o.executor);
    row = end;
  }
  std::vector<BlockTape> tapes(o.recompute_blocks ? 1 : static_cast<std::size_t>(c.blocks));
  const auto tape_of = [&](Index block) -> BlockTape& { return tapes[o.recompute_blocks ? 0 : static_cast<std::size_t>(block)]; };
  std::vector<Matrix> streams;
  for (Index i = 0; i < c.blocks; ++i) {
    if (o.recompute_blocks) streams.emplace_back(x.view());
    tape.forward(i, x.view(), tape_of(i));
  }

  Matrix out(tokens, c.embedding_width()), dout(tokens, c.embedding_width());
  const model::WeightId head = d.has_head() ? d.blueprint->head : d.blueprint->embedding;
  architecture.finish(d, model::Stack::last, x.view(), out.view(), o.executor);
  const double divisor = o.divisor > 0 ? o.divisor : static_cast<double>(rows.size());
  Loss loss;
  loss.predictions = static_cast<Index>(rows.size());
  loss.sum = detail::head_loss(d, out.view(), taught.view(), rows, labels, static_cast<float>(1 / divisor), o, dout.view(),
                               gradients[place(head)].linear);
  Matrix dx = detail::finish_back(d, x.view(), std::move(dout), gradients, o.executor);

  // Weights stand in the order of the pass: whether any before this place is trained.
  const auto trained_before = [&](std::size_t end) {
    return o.on_linear || std::any_of(gradients.begin(), gradients.begin() + static_cast<std::ptrdiff_t>(end),
                                      [](const WeightGradient& g) { return !g.empty(); });
  };
  for (Index i = c.blocks - 1; i >= 0 && trained_before(d.blueprint->blocks[static_cast<std::size_t>(i) + 1]); --i) {
    if (o.recompute_blocks && i < c.blocks - 1) tape.forward(i, streams[static_cast<std::size_t>(i)].view(), tape_of(i));
    tape.backward(i, tape_of(i), dx.view(), gradients);
  }
  if (trained_before(d.blueprint->blocks[0])) detail::embed_back(d, ids, lengths, dx.view(), gradients, o.executor);
  return loss;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
