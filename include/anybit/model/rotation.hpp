#pragma once
// Rotations of a decoder's activations, as data: the requested ones, and those that run in the forward pass.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <anybit/transform/hadamard.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

/// The rotations that rotate() applies to a decoder. "Fused": into weights, so that the model runs as before.
struct RotationOptions {
  std::uint64_t seed = 1;  ///< of the random signs; 0: none
  bool residual = true;    ///< the residual stream; fused, but for a tied embedding, see keep_tied
  /// Where one tensor is embedding and head, it stays one and unrotated: a token's embedding and, at the end, its residual stream
  /// are rotated as the model runs. Without it the model gets a head of its own, in memory and in its file.
  bool keep_tied = true;
  bool values = true;        ///< the values of every head; fused into v and o
  bool attn_output = false;  ///< the input of o across all heads, as the model runs
  bool ffn_down = true;      ///< the input of down, as the model runs

  friend bool operator==(const RotationOptions&, const RotationOptions&) = default;
};

/// "rotated(residual, values, ffn_down, seed=1)", for provenance.
inline std::string describe(const RotationOptions& o) {
  std::string text;
  const auto add = [&](bool on, std::string_view name) {
    if (on) text.append(text.empty() ? "" : ", ").append(name);
  };
  add(o.residual, "residual"), add(o.values, "values"), add(o.attn_output, "attn_output"), add(o.ffn_down, "ffn_down");
  return "rotated(" + text + (text.empty() ? "" : ", ") + "seed=" + std::to_string(o.seed) + ")";
}

}  // namespace ANYBIT_ABI
}  // namespace anybit::model

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Rotations that the forward pass makes; the weights behind them expect it.
struct OnlineRotations {
  std::optional<Hadamard> residual;     ///< of embeddings on their way into the residual stream; undone before the output norm
  std::optional<Hadamard> attn_output;  ///< of the input of every o
  std::optional<Hadamard> ffn_down;     ///< of the input of every down

  bool any() const { return residual || attn_output || ffn_down; }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
