#pragma once
// Contrast vectors (Zou et al., arXiv:2310.01405): the difference of the activations of the same tokens behind two prefixes, one
// that asks for the concept and one that asks for its opposite. They depend on the text and are recomputed while it grows:
//
//   h_t <- h_t + c (h_t behind `with` - h_t behind `without`)       in chosen blocks

#include <anybit/core/macros_begin.hpp>

#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/model/run.hpp>
#include <anybit/steer/states.hpp>

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// Directions between the activations of one prompt in two templates, at the last token of each. Not normalized; control_taps()
/// does that.
inline Result<std::vector<BlockDirection>> contrast_directions(const model::Model& m, std::string_view with,
                                                               std::string_view without, const StateOptions& o = {}) {
  const std::string texts[] = {std::string(with), std::string(without)};
  ANYBIT_TRY(const std::vector<Matrix> both, states(m, texts, "{}", o));
  std::vector<BlockDirection> out;
  for (std::size_t b = 0; b < both.size(); ++b) {
    Direction d{.center = std::vector<double>(static_cast<std::size_t>(both[b].cols()))};
    for (Index j = 0; j < both[b].cols(); ++j)
      d.vector.push_back(static_cast<double>(both[b](0, j)) - static_cast<double>(both[b](1, j)));
    out.push_back({static_cast<Index>(b), std::move(d)});
  }
  return out;
}

/// Two runs beside that of the text. The decoder must outlive it. Every token costs two more passes through the model.
class ContrastControl {
 public:
  /// Runs the prefixes, of at least one token each. `capacity`: tokens of the text that is to follow, at most.
  static Result<ContrastControl> start(const model::Decoder& d, std::span<const model::TokenId> with,
                                       std::span<const model::TokenId> without, Index capacity, std::vector<Index> blocks,
                                       double coefficient, ExecutorRef executor = {}) {
    using io::detail::text;
    if (!is_finite(coefficient))
      return {ErrorCode::not_finite, text("steer: the coefficient is ", coefficient, ": give a finite number")};
    for (const Index b : blocks)
      if (b < 0 || b >= d.config.blocks)
        return {ErrorCode::invalid_argument, text("steer: contrast in block ", b, ", the model has ", d.config.blocks,
                                                  ", counted from 0: choose one of these")};
    ContrastControl out(d, std::move(blocks), coefficient, executor);
    for (const auto prefix : {with, without}) {
      if (prefix.empty()) return {ErrorCode::insufficient_data, "steer: a prefix of contrast vectors is empty: give a text"};
      const auto length = static_cast<Index>(prefix.size()) + capacity;
      if (capacity < 1 || length > d.config.context)
        return {ErrorCode::invalid_argument,
                text("steer: a prefix of ", prefix.size(), " tokens and a text of ", capacity, " need ", length,
                     " positions, the model's context holds ", d.config.context, ": shorten them")};
      nn::KvCache& cache = out.caches_.emplace_back(cache_shape(d.config), length);
      ANYBIT_TRY_STATUS(hidden_states(d, prefix, cache, {.executor = executor}));
    }
    return out;
  }

  /// Runs `ids`, the next tokens of the text, behind both prefixes. The taps add the differences to the run of the same tokens.
  /// The first `skipped` of them are left out, as the token that begins texts must be behind a prefix that has it.
  Result<std::vector<model::Tap>> taps(std::span<const model::TokenId> ids, Index skipped = 0) {
    const auto tokens = static_cast<Index>(ids.size());
    ANYBIT_CHECK(skipped >= 0 && skipped <= tokens, "ContrastControl::taps: more tokens skipped than there are");
    std::vector<std::shared_ptr<Matrix>> contrast;
    for (std::size_t i = 0; i < blocks_.size(); ++i) contrast.push_back(std::make_shared<Matrix>(tokens, d_->config.dim));
    for (std::size_t side = 0; side < 2 && skipped < tokens; ++side) {
      std::vector<model::Tap> read;
      for (std::size_t i = 0; i < blocks_.size(); ++i)
        read.push_back({blocks_[i], model::Point::residual, [&contrast, i, side, skipped](MutableMatrix x, model::TokenRange) {
                          for (Index t = 0; t < x.rows; ++t)
                            for (Index j = 0; j < x.cols; ++j) (*contrast[i])(skipped + t, j) += side == 0 ? x(t, j) : -x(t, j);
                        }});
      ANYBIT_TRY_STATUS(hidden_states(*d_, ids.subspan(static_cast<std::size_t>(skipped)), caches_[side],
                                      {.executor = executor_, .taps = read}));
    }
    std::vector<model::Tap> out;
    for (std::size_t i = 0; i < blocks_.size(); ++i)
      out.push_back(
          {blocks_[i], model::Point::residual, [by = contrast[i], c = coefficient_](MutableMatrix x, model::TokenRange) {
             ANYBIT_CHECK(x.rows == by->rows(), "ContrastControl: the taps belong to another piece of the text");
             for (Index t = 0; t < x.rows; ++t)
               for (Index j = 0; j < x.cols; ++j) x(t, j) += static_cast<float>(c * static_cast<double>((*by)(t, j)));
           }});
    return out;
  }

 private:
  ContrastControl(const model::Decoder& d, std::vector<Index> blocks, double coefficient, ExecutorRef executor)
      : d_(&d), blocks_(std::move(blocks)), coefficient_(coefficient), executor_(executor) {}

  const model::Decoder* d_;
  std::vector<Index> blocks_;
  double coefficient_;
  ExecutorRef executor_;
  std::vector<nn::KvCache> caches_;  ///< behind `with`, behind `without`
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
