#pragma once
// Mixtral (arXiv:2401.04088): llama with a mixture of experts in the place of the feed-forward part. In GGUF it is the
// architecture llama with a number of experts, so arch/llama.hpp runs it; here are its names and the numbers of its
// configuration.

#include <anybit/core/macros_begin.hpp>

#include <array>

#include <anybit/model/arch/decoder_block.hpp>

namespace anybit::model::mixtral {
inline namespace ANYBIT_CODE {

inline constexpr std::array expert_names{
    TensorNames{"ffn_gate_inp.weight", {"block_sparse_moe.gate.weight"}, {}, {"mlp.gate.weight"}},
    TensorNames{"ffn_gate.*.weight",
                {"block_sparse_moe.experts.*.w1.weight"},
                {"ffn_gate_exps.weight", Part::expert},
                {"mlp.experts.gate_up_proj", Part::expert_gate}},
    TensorNames{"ffn_up.*.weight",
                {"block_sparse_moe.experts.*.w3.weight"},
                {"ffn_up_exps.weight", Part::expert},
                {"mlp.experts.gate_up_proj", Part::expert_up}},
    TensorNames{"ffn_down.*.weight",
                {"block_sparse_moe.experts.*.w2.weight"},
                {"ffn_down_exps.weight", Part::expert},
                {"mlp.experts.down_proj", Part::expert}}};

/// Experts are as wide as the feed-forward part would be.
inline Status read_hugging_face(HfConfigReader& read, DecoderConfig& c) {
  ExpertForm& e = c.form.experts;
  ANYBIT_TRY_STATUS(read.count("num_local_experts", e.count));
  ANYBIT_TRY_STATUS(read.count("num_experts_per_tok", e.used));
  e.hidden = c.hidden, e.weights = nn::RouterWeights::renormalized;
  return Ok{};
}

/// Of a llama that may have no experts.
inline Status read_gguf(GgufConfigReader& read, DecoderConfig& c) {
  ExpertForm& e = c.form.experts;
  ANYBIT_TRY_STATUS(read.size_or("expert_count", 0, e.count));
  if (e.count == 0) return Ok{};
  ANYBIT_TRY_STATUS(read.count("expert_used_count", e.used));
  ANYBIT_TRY_STATUS(read.count_or("expert_feed_forward_length", c.hidden, e.hidden));
  e.weights = nn::RouterWeights::renormalized;
  return Ok{};
}

inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  const ExpertForm& e = c.form.experts;
  gguf_config::write_shape(w, c);
  if (e.count == 0) return;
  w.count("expert_count", e.count), w.count("expert_used_count", e.used);
  if (e.hidden != c.hidden) w.count("expert_feed_forward_length", e.hidden);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::mixtral

#include <anybit/core/macros_end.hpp>
