#pragma once
// The source of an encoder, and what an encoder in front of a decoder makes of it.

#include <anybit/core/macros_begin.hpp>

#include <span>
#include <string>
#include <string_view>

#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>
#include <anybit/nn/kv_cache.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The input of an encoder: tokens, or features where its form says so.
struct Source {
  std::span<const TokenId> ids{};
  ConstMatrix features{};  ///< (frames, DecoderForm::feature_bins)
};

/// The states that an encoder made of one source, and its keys and values for cross-attention, which the first pass of the
/// decoder writes and later ones read.
struct Encoded {
  Matrix states;  ///< (source positions, dim)
  nn::KvCache cross;
};

/// Positions that an encoder has for so many frames of features: the second convolution takes every other one.
constexpr Index positions_of_frames(Index frames) { return (frames + 1) / 2; }

namespace detail {

/// Ids within the vocabulary.
inline Status check_ids(const Decoder& d, std::span<const TokenId> ids, std::string_view what = "token") {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= d.config.vocabulary)
      return {ErrorCode::invalid_argument,
              io::detail::text("forward: ", what, " ", i, " has the id ", ids[i], ", outside the vocabulary of ",
                               d.config.vocabulary, ": use the model's own tokenizer")};
  return Ok{};
}

/// As the encoder of `d` needs it.
inline Status check(const Source& s, const Decoder& d) {
  const auto bad = [](auto... what) { return Error{ErrorCode::invalid_argument, io::detail::text("encode: ", what...)}; };
  ANYBIT_CHECK(!d.config.encoder.empty(), "encode: the model has no encoder in front of a decoder");
  const DecoderConfig& c = d.config.encoder.front();
  if (c.form.feature_bins == 0) {
    if (s.features.rows > 0) return bad("the source is features, but the model's encoder reads tokens: give ids");
    if (s.ids.empty()) return {ErrorCode::insufficient_data, "encode: the source has no tokens: give at least one"};
    if (const auto tokens = static_cast<Index>(s.ids.size()); c.form.positions == Positions::learned && tokens > c.context)
      return bad("a source of ", tokens, " tokens exceeds the ", c.context,
                 " positions that the encoder has learned: give fewer");
    return check_ids(d, s.ids, "source token");
  }
  if (!s.ids.empty()) return bad("the source is tokens, but the model's encoder reads features: give (frames, bins)");
  if (s.features.rows == 0) return {ErrorCode::insufficient_data, "encode: the source has no frames: give at least one"};
  if (s.features.cols != c.form.feature_bins)
    return bad("frames of ", s.features.cols, " bins: the model reads ", c.form.feature_bins, " bins per frame");
  if (positions_of_frames(s.features.rows) > c.context)
    return bad(s.features.rows, " frames of features exceed the ", 2 * c.context,
               " that the encoder has positions for: cut them");
  return Ok{};
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
