#pragma once
// The ends of a stack of blocks: from tokens or features to the residual stream, and from there to what the head or, behind an
// encoder, the decoder reads.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/architecture.hpp>
#include <anybit/nn/activation.hpp>
#include <anybit/nn/convolution.hpp>
#include <anybit/nn/embedding.hpp>
#include <anybit/nn/norm.hpp>

namespace anybit::model::decoder_block {
inline namespace ANYBIT_CODE {

/// RMSNorm or LayerNorm, as the form says.
inline void normalize(const DecoderConfig& c, ConstMatrix x, const Weight& gain, const Weight* bias, MutableMatrix y,
                      ExecutorRef executor) {
  if (c.form.norm == NormKind::rms)
    nn::rms_norm(x, gain.values, c.norm_epsilon, y, executor);
  else
    nn::layer_norm(x, gain.values, bias ? std::span<const float>(bias->values) : std::span<const float>(), c.norm_epsilon, y,
                   executor);
}

inline void copy(ConstMatrix from, MutableMatrix to) {
  for (Index t = 0; t < from.rows; ++t) std::copy(from.row(t).begin(), from.row(t).end(), to.row(t).begin());
}

/// "enc." in front of what the encoder has once, where a decoder follows.
inline WeightId weight_of(const Decoder& d, Stack stack, std::string_view name) {
  return d.weight(stack == Stack::encoder ? "enc." + std::string(name) : std::string(name));
}

/// gelu(conv2(gelu(conv1 features))), conv2 of every other frame.
inline void convolve(const Decoder& d, Stack stack, ConstMatrix features, MutableMatrix x, ExecutorRef executor) {
  Workspace workspace;
  Matrix middle(features.rows, x.cols);
  nn::conv1d(d[weight_of(d, stack, "conv1.weight")].linear, {}, features, middle.view(), executor, workspace);
  nn::activate(nn::Activation::gelu, middle.view(), executor);
  nn::conv1d(d[weight_of(d, stack, "conv2.weight")].linear, {.stride = 2}, middle.view(), x, executor, workspace);
  nn::activate(nn::Activation::gelu, x, executor);
}

/// x_t += row row_of(t) of the table.
template <class RowOf>
void add_rows(const nn::Linear& table, MutableMatrix x, const RowOf& row_of) {
  std::vector<float> row(static_cast<std::size_t>(x.cols));
  for (Index t = 0; t < x.rows; ++t) {
    table.read_row(row_of(t), row);
    for (std::size_t j = 0; j < row.size(); ++j) x.row(t)[j] += row[j];
  }
}

/// Rows of the embedding or what convolutions make of features, scaled, with positions and types, behind a norm where the form
/// has one.
inline void embed(const Decoder& d, const StackInput& in, MutableMatrix x, ExecutorRef executor) {
  const DecoderConfig& c = in.stack == Stack::encoder ? d.config.encoder.front() : d.config;
  const DecoderForm& f = c.form;
  if (f.feature_bins > 0) {
    convolve(d, in.stack, in.features, x, executor);
  } else if (f.embedding_width > 0) {
    Matrix narrow(x.rows, f.embedding_width);
    nn::embed(d.token_embedding(), in.ids, narrow.view());
    Workspace workspace;
    d[d.weight("token_embd_proj.weight")].linear.apply(narrow.view(), x, executor, workspace);
  } else {
    nn::embed(d.token_embedding(), in.ids, x);
  }
  if (f.embedding_scale != 1)
    for (Index t = 0; t < x.rows; ++t)
      for (float& value : x.row(t)) value *= f.embedding_scale;
  if (f.token_types > 0)
    add_rows(d[weight_of(d, in.stack, "token_types.weight")].linear, x,
             [&](Index t) { return in.types.empty() ? Index{0} : Index{in.types[static_cast<std::size_t>(t)]}; });
  if (f.positions == Positions::learned)
    add_rows(d[weight_of(d, in.stack, "position_embd.weight")].linear, x,
             [&](Index t) { return in.position + t + f.position_offset; });
  if (f.embedding_norm) {
    const Weight* const bias = f.norm == NormKind::layer ? &d[weight_of(d, in.stack, "token_embd_norm.bias")] : nullptr;
    normalize(c, x, d[weight_of(d, in.stack, "token_embd_norm.weight")], bias, x, executor);
  }
  if (d.online.residual) d.online.residual->forward(x, executor);
}

/// The norm behind the last block, and the projection out of the stream.
inline void finish(const Decoder& d, Stack stack, MutableMatrix x, MutableMatrix normed, ExecutorRef executor) {
  const DecoderConfig& c = stack == Stack::encoder ? d.config.encoder.front() : d.config;
  const DecoderForm& f = c.form;
  if (d.online.residual) d.online.residual->inverse(x, executor);
  Matrix wide;  // between the norm and the projection out of the stream
  if (f.embedding_width > 0) wide = Matrix(x.rows, x.cols);
  const MutableMatrix to = f.embedding_width > 0 ? wide.view() : normed;
  if (f.final_norm) {
    const Weight* const bias = f.norm == NormKind::layer ? &d[weight_of(d, stack, "output_norm.bias")] : nullptr;
    normalize(c, x, d[weight_of(d, stack, "output_norm.weight")], bias, to, executor);
  } else {
    copy(x, to);
  }
  if (f.embedding_width == 0) return;
  Workspace workspace;
  d[d.weight("output_proj.weight")].linear.apply(to, normed, executor, workspace);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::decoder_block

#include <anybit/core/macros_end.hpp>
