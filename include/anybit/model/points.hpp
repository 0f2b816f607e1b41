#pragma once
// Places in the forward pass where taps can read and write.

#include <array>
#include <cstdint>
#include <string_view>

#include <anybit/core/types.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

/// In the order of a pass. Matrices are (tokens, width).
enum class Point : std::uint8_t {
  encoder_embedding,  ///< the residual stream before the first block of the encoder, where a decoder follows
  encoder_out,        ///< what such an encoder makes of the source
  embedding,          ///< the residual stream before the first block, behind an encoder that of the decoder
  attn_in,            ///< what q, k and v read
  q,                  ///< queries, before positions turn them
  k,                  ///< keys, likewise
  v,                  ///< values
  head_out,           ///< the mixed values of all heads, as o reads them
  attn_out,           ///< what attention adds to the residual stream
  cross_in,           ///< what the queries of cross-attention read
  memory,             ///< what its keys and values read: the encoder's output, (source positions, width), once per source
  cross_head_out,     ///< the mixed values of all its heads
  cross_out,          ///< what cross-attention adds to the residual stream
  mlp_in,             ///< what gate and up read; with experts, what the router and all of them read
  router,             ///< logits (tokens, experts), before experts are chosen by them
  // Once for each expert, with a row for every token that it was chosen for, of none where there are none (Tap::expert).
  expert_in,      ///< what gate and up of one expert read
  expert_hidden,  ///< what down of one expert reads
  mlp_hidden,     ///< what down reads; with experts, that of the shared one
  mlp_out,        ///< what the feed-forward part adds to the residual stream
  residual,       ///< the residual stream behind the block
  final_norm,     ///< what the head reads
  logits,
};

inline constexpr std::array<std::string_view, 22> point_names{
    "encoder_embedding", "encoder_out", "embedding", "attn_in",        "q",          "k",      "v",      "head_out",
    "attn_out",          "cross_in",    "memory",    "cross_head_out", "cross_out",  "mlp_in", "router", "expert_in",
    "expert_hidden",     "mlp_hidden",  "mlp_out",   "residual",       "final_norm", "logits"};
constexpr std::string_view name(Point p) { return point_names[static_cast<std::size_t>(p)]; }
/// Whether the point is in every block, and not once in the model.
constexpr bool is_in_blocks(Point p) { return p > Point::embedding && p < Point::final_norm; }

/// Of one expert, which sees some of the tokens.
constexpr bool is_of_expert(Point p) { return p == Point::expert_in || p == Point::expert_hidden; }
/// Experts stand beside each other: what enters one of them is there as soon as what enters them all, and likewise inside.
constexpr Point stage_of(Point p) {
  return p == Point::expert_in ? Point::mlp_in : p == Point::expert_hidden ? Point::mlp_hidden : p;
}

/// Positions of the rows that a tap is given: of the source in an encoder and at Point::memory, at the points of one expert of
/// all tokens of the pass.
struct TokenRange {
  Index begin = 0, end = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::model
