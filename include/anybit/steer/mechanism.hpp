#pragma once
// Small instruments of mechanistic interpretability over taps: logit lens, direct logit attribution, activation patching, head
// ablation.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/model/run.hpp>
#include <anybit/steer/control.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

/// Two tokens whose logits are compared at the end of a prompt: logit(wanted) - logit(other).
struct TokenPair {
  std::int32_t wanted = 0, other = 0;
};

/// What each part of a model adds to a difference of logits. The parts and `unexplained` add up to `total`.
struct LogitAttribution {
  double embedding = 0;
  std::vector<double> attention{}, mlp{};  ///< by block
  double unexplained = 0;                  ///< biases of the output norm; rounding alone where there are none
  double total = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

namespace detail {

inline Status check_pair(const model::Decoder& d, TokenPair pair) {
  for (const auto id : {pair.wanted, pair.other})
    if (id < 0 || id >= d.config.vocabulary)
      return {ErrorCode::invalid_argument, io::detail::text("steer: token ", id, " is outside the vocabulary of ",
                                                            d.config.vocabulary, ": use the model's own tokenizer")};
  return Ok{};
}

}  // namespace detail

/// logit(wanted) - logit(other) after the last token of a prompt.
inline Result<double> logit_difference(const model::Decoder& d, std::span<const model::TokenId> ids, TokenPair pair,
                                       std::span<const model::Tap> taps = {}, ExecutorRef executor = {}) {
  ANYBIT_TRY_STATUS(detail::check_pair(d, pair));
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  ANYBIT_TRY(const Matrix logits, forward(d, ids, cache, {.executor = executor, .taps = taps, .last_only = true}));
  return static_cast<double>(logits(0, pair.wanted)) - static_cast<double>(logits(0, pair.other));
}

/// Logit lens (nostalgebraist 2020): the output norm and the head on the residual stream before the first block and behind each,
/// at the prompt's last token: (blocks + 1, vocabulary). The last row is the model's own prediction.
inline Result<Matrix> logit_lens(const model::Decoder& d, std::span<const model::TokenId> ids, ExecutorRef executor = {}) {
  Matrix stream(d.config.blocks + 1, d.config.dim);
  std::vector<model::Tap> taps;
  const auto keep = [&](Index block, model::Point point, Index row) {
    taps.push_back({block, point, [&stream, row](MutableMatrix x, model::TokenRange) {
                      std::copy_n(x.row(x.rows - 1).data(), x.cols, stream.view().row(row).data());
                    }});
  };
  keep(0, model::Point::embedding, 0);
  for (Index b = 0; b < d.config.blocks; ++b) keep(b, model::Point::residual, b + 1);
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  ANYBIT_TRY_STATUS(hidden_states(d, ids, cache, {.executor = executor, .taps = taps}));
  Matrix normed(stream.rows(), d.config.dim);
  model::Pass(d, stream.rows()).finish(stream.view(), normed.view(), {.executor = executor});
  return model::logits(d, normed.view(), executor);
}

/// Direct logit attribution (Elhage et al. 2021): each write to the residual stream, through the output norm at the scale of the
/// whole stream, times the difference of the head's rows. The norm divides by the root mean square r of its input x, so a part c
/// of x comes out as norm(c) r(c) / r(x).
inline Result<LogitAttribution> attribute_logits(const model::Decoder& d, std::span<const model::TokenId> ids, TokenPair pair,
                                                 ExecutorRef executor = {}) {
  ANYBIT_TRY_STATUS(detail::check_pair(d, pair));
  const Index blocks = d.config.blocks, parts = 2 * blocks + 1, dim = d.config.dim;
  Matrix writes(parts + 1, dim);  // the stream itself is the last row
  std::vector<model::Tap> taps;
  const auto keep = [&](Index block, model::Point point, Index row) {
    taps.push_back({block, point, [&writes, row](MutableMatrix x, model::TokenRange) {
                      std::copy_n(x.row(x.rows - 1).data(), x.cols, writes.view().row(row).data());
                    }});
  };
  keep(0, model::Point::embedding, 0);
  for (Index b = 0; b < blocks; ++b) keep(b, model::Point::attn_out, 1 + 2 * b), keep(b, model::Point::mlp_out, 2 + 2 * b);
  keep(blocks - 1, model::Point::residual, parts);
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  ANYBIT_TRY_STATUS(hidden_states(d, ids, cache, {.executor = executor, .taps = taps}));

  const auto root_mean_square = [&](Index row) {
    const auto x = std::as_const(writes).view().row(row);
    return std::sqrt(dot(x, x) / static_cast<double>(dim) + static_cast<double>(d.config.norm_epsilon));
  };
  std::vector<double> scale;
  for (Index r = 0; r <= parts; ++r) scale.push_back(root_mean_square(r));
  Matrix normed(parts + 1, dim);
  model::Pass(d, parts + 1).finish(writes.view(), normed.view(), {.executor = executor});
  const auto dims = static_cast<std::size_t>(dim);
  std::vector<float> wanted(dims), other(dims);
  d.output_head().read_row(pair.wanted, wanted), d.output_head().read_row(pair.other, other);
  const auto difference = [&](Index row) {
    const auto x = std::as_const(normed).view().row(row);
    return dot(x, wanted) - dot(x, other);
  };
  LogitAttribution out{.total = difference(parts)};
  double sum = 0;
  for (Index r = 0; r < parts; ++r) {
    const double part = difference(r) * scale[static_cast<std::size_t>(r)] / scale.back();
    sum += part;
    if (r == 0)
      out.embedding = part;
    else
      (r % 2 == 1 ? out.attention : out.mlp).push_back(part);
  }
  out.unexplained = out.total - sum;
  return out;
}

/// Activation patching (Meng et al., arXiv:2202.05262): the activations of `clean` at one token and block, put into the run of
/// `corrupted`. Of each block and each of the positions the logit difference: (blocks, positions). Both prompts have as many
/// tokens.
inline Result<Matrix> patch_activations(const model::Decoder& d, std::span<const model::TokenId> clean,
                                        std::span<const model::TokenId> corrupted, TokenPair pair,
                                        std::span<const Index> positions, model::Point point = model::Point::residual,
                                        ExecutorRef executor = {}) {
  using io::detail::text;
  if (clean.size() != corrupted.size())
    return {ErrorCode::shape_mismatch, text("steer: patching from ", clean.size(), " tokens to ", corrupted.size(),
                                            ": write both prompts with as many tokens")};
  for (const Index p : positions)
    if (p < 0 || p >= static_cast<Index>(clean.size()))
      return {ErrorCode::invalid_argument, text("steer: position ", p, " of a prompt of ", clean.size(), " tokens")};
  const auto blocks = static_cast<std::size_t>(d.config.blocks);
  std::vector<Matrix> kept(blocks);
  std::vector<model::Tap> taps;
  for (std::size_t b = 0; b < blocks; ++b)
    taps.push_back({static_cast<Index>(b), point, [&kept, b](MutableMatrix x, model::TokenRange) { kept[b] = Matrix(x); }});
  ANYBIT_TRY_STATUS(logit_difference(d, clean, pair, taps, executor));
  Matrix out(d.config.blocks, static_cast<Index>(positions.size()));
  for (std::size_t b = 0; b < blocks; ++b)
    for (std::size_t i = 0; i < positions.size(); ++i) {
      const Index at = positions[i];
      const model::Tap patch{static_cast<Index>(b), point, [&kept, b, at](MutableMatrix x, model::TokenRange) {
                               std::copy_n(std::as_const(kept[b]).view().row(at).data(), x.cols, x.row(at).data());
                             }};
      ANYBIT_TRY(const double difference, logit_difference(d, corrupted, pair, {&patch, 1}, executor));
      out(static_cast<Index>(b), static_cast<Index>(i)) = static_cast<float>(difference);
    }
  return out;
}

/// The change of the logit difference where one head's output is zero at all positions: (blocks, heads).
inline Result<Matrix> ablate_heads(const model::Decoder& d, std::span<const model::TokenId> ids, TokenPair pair,
                                   ExecutorRef executor = {}) {
  if (d.online.attn_output)
    return {ErrorCode::unsupported,
            "steer: this model rotates its head outputs, which mixes the heads: ablate the model without "
            "that rotation"};
  ANYBIT_TRY(const double whole, logit_difference(d, ids, pair, {}, executor));
  const Index size = d.config.head_dim;
  Matrix out(d.config.blocks, d.config.heads);
  for (Index b = 0; b < d.config.blocks; ++b)
    for (Index h = 0; h < d.config.heads; ++h) {
      const model::Tap zero{b, model::Point::head_out, [h, size](MutableMatrix x, model::TokenRange) {
                              for (Index t = 0; t < x.rows; ++t) std::fill_n(x.row(t).data() + h * size, size, 0.0f);
                            }};
      ANYBIT_TRY(const double without, logit_difference(d, ids, pair, {&zero, 1}, executor));
      out(b, h) = static_cast<float>(without - whole);
    }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
