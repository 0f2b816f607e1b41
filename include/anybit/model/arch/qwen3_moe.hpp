#pragma once
// Qwen3-MoE (arXiv:2505.09388): qwen3 with experts, without a shared one; some blocks may be dense.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <string_view>

#include <anybit/model/arch/qwen2_moe.hpp>
#include <anybit/model/arch/qwen3.hpp>

namespace anybit::model::qwen3_moe {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"qwen3_moe"};

inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  ANYBIT_TRY(DecoderConfig c, llama::read_gguf(read, {.head_norm = HeadNorm::rms}));
  ANYBIT_TRY_STATUS(qwen2_moe::read_experts(read, c, true));
  return c;
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  ANYBIT_TRY(DecoderConfig c, qwen3::read_hugging_face(read));
  ANYBIT_TRY_STATUS(qwen2_moe::read_experts(read, c, false));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::qwen3_moe

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture qwen3_moe_architecture = [] {
  Architecture a = qwen3_architecture;
  a.name = "qwen3moe";
  a.model_types = qwen3_moe::model_types;
  a.names = qwen2_moe_architecture.names;
  a.read_gguf = qwen3_moe::read_gguf;
  a.write_gguf = qwen2_moe::write_gguf;
  a.read_hugging_face = qwen3_moe::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
