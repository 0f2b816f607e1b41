#pragma once
// Qwen1.5-MoE and Qwen2-MoE (arXiv:2407.10671): qwen2 with experts narrower than a feed-forward part, and one shared expert that
// sees every token, behind a gate of its own. Qwen3-MoE shares its names and configuration.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/arch/qwen2.hpp>

namespace anybit::model::qwen2_moe {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"qwen2_moe"};

inline constexpr std::array expert_names{TensorNames{"ffn_gate_inp.weight", {"mlp.gate.weight"}},
                                         TensorNames{"ffn_gate.*.weight",
                                                     {"mlp.experts.*.gate_proj.weight"},
                                                     {"ffn_gate_exps.weight", Part::expert},
                                                     {"mlp.experts.gate_up_proj", Part::expert_gate}},
                                         TensorNames{"ffn_up.*.weight",
                                                     {"mlp.experts.*.up_proj.weight"},
                                                     {"ffn_up_exps.weight", Part::expert},
                                                     {"mlp.experts.gate_up_proj", Part::expert_up}},
                                         TensorNames{"ffn_down.*.weight",
                                                     {"mlp.experts.*.down_proj.weight"},
                                                     {"ffn_down_exps.weight", Part::expert},
                                                     {"mlp.experts.down_proj", Part::expert}},
                                         TensorNames{"ffn_gate_inp_shexp.weight", {"mlp.shared_expert_gate.weight"}},
                                         TensorNames{"ffn_gate_shexp.weight", {"mlp.shared_expert.gate_proj.weight"}},
                                         TensorNames{"ffn_up_shexp.weight", {"mlp.shared_expert.up_proj.weight"}},
                                         TensorNames{"ffn_down_shexp.weight", {"mlp.shared_expert.down_proj.weight"}}};
inline constexpr auto names = llama::names_with(expert_names);

/// Experts from config.json. Block i has them unless mlp_only_layers names it or decoder_sparse_step does not divide i + 1.
inline Status read_experts(HfConfigReader& read, DecoderConfig& c, bool renormalized) {
  ExpertForm& e = c.form.experts;
  read.use("num_experts"), read.use("num_local_experts");  // transformers 4 and 5
  ANYBIT_TRY_STATUS(read.size_or(read.either({"num_experts", "num_local_experts"}), 0, e.count));
  if (e.count == 0) return Ok{};
  ANYBIT_TRY_STATUS(read.count("num_experts_per_tok", e.used));
  ANYBIT_TRY_STATUS(read.count("moe_intermediate_size", e.hidden));
  ANYBIT_TRY_STATUS(read.flag_or("norm_topk_prob", renormalized, renormalized));
  e.weights = renormalized ? nn::RouterWeights::renormalized : nn::RouterWeights::softmax;
  Index step = 1;
  ANYBIT_TRY_STATUS(read.count_or("decoder_sparse_step", 1, step));
  std::vector<double> dense;
  if (read.has("mlp_only_layers")) {
    ANYBIT_TRY(dense, read.json().numbers("mlp_only_layers"));
  }
  c.form.set_sparse(c.blocks, [&](Index i) {
    return (i + 1) % step == 0 && std::find(dense.begin(), dense.end(), static_cast<double>(i)) == dense.end();
  });
  if (!e.sparse.empty() && std::find(e.sparse.begin(), e.sparse.end(), std::uint8_t{1}) == e.sparse.end()) e = {};
  return Ok{};
}

/// Experts from GGUF. Blocks without a router are dense.
inline Status read_experts(GgufConfigReader& read, DecoderConfig& c, bool renormalized) {
  ExpertForm& e = c.form.experts;
  ANYBIT_TRY_STATUS(read.count("expert_count", e.count));
  ANYBIT_TRY_STATUS(read.count("expert_used_count", e.used));
  Index found = read.rows_of("blk.0.ffn_up_exps.weight");
  for (Index i = 1; i < c.blocks && i < 65536 && found == 0; ++i)
    found = read.rows_of("blk." + std::to_string(i) + ".ffn_up_exps.weight");
  ANYBIT_TRY_STATUS(read.count_or("expert_feed_forward_length", std::max<Index>(found / e.count, 1), e.hidden));
  ANYBIT_TRY_STATUS(read.flag_or("expert_weights_norm", renormalized, renormalized));
  e.weights = renormalized ? nn::RouterWeights::renormalized : nn::RouterWeights::softmax;
  c.form.set_sparse(c.blocks, [&](Index i) { return read.has_tensor("blk." + std::to_string(i) + ".ffn_gate_inp.weight"); });
  return Ok{};
}

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  ANYBIT_TRY(DecoderConfig c, llama::read_gguf(read));
  ANYBIT_TRY_STATUS(read_experts(read, c, false));
  ExpertForm& e = c.form.experts;
  ANYBIT_TRY_STATUS(
      read.size_or("expert_shared_feed_forward_length", read.rows_of("blk.0.ffn_up_shexp.weight"), e.shared_hidden));
  e.shared_gate = e.shared_hidden > 0;
  return c;
}

/// GGUF does not say whether weights are renormalized: it follows from the architecture.
inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  const ExpertForm& e = c.form.experts;
  gguf_config::write_shape(w, c);
  w.count("expert_count", e.count), w.count("expert_used_count", e.used);
  w.count("expert_feed_forward_length", e.hidden);
  if (e.shared_hidden > 0) w.count("expert_shared_feed_forward_length", e.shared_hidden);
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  ANYBIT_TRY(DecoderConfig c, qwen2::read_hugging_face(read));
  ANYBIT_TRY_STATUS(read_experts(read, c, false));
  if (c.form.experts.count == 0) return c;
  ANYBIT_TRY_STATUS(read.count("shared_expert_intermediate_size", c.form.experts.shared_hidden));
  c.form.experts.shared_gate = true;
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::qwen2_moe

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture qwen2_moe_architecture = [] {
  Architecture a = qwen2_architecture;
  a.name = "qwen2moe";
  a.model_types = qwen2_moe::model_types;
  a.names = [](const DecoderConfig&) { return std::span<const TensorNames>(qwen2_moe::names); };
  a.read_gguf = qwen2_moe::read_gguf;
  a.write_gguf = qwen2_moe::write_gguf;
  a.read_hugging_face = qwen2_moe::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
