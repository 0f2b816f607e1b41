#pragma once
// Qwen3 (arXiv:2505.09388): llama with an RMSNorm of every head of queries and keys.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/qwen2.hpp>

namespace anybit::model::qwen3 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"qwen3"};

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form.head_norm = HeadNorm::rms;
  ANYBIT_TRY_STATUS(llama::read_common(read, c));
  ANYBIT_TRY_STATUS(read.flag_or("attention_bias", false, c.form.qkv_bias));
  c.form.output_bias = c.form.qkv_bias;
  ANYBIT_TRY_STATUS(qwen2::read_window(read, c));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::qwen3

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture qwen3_architecture = [] {
  Architecture a = decoder_block::architecture("qwen3");
  a.model_types = qwen3::model_types;
  a.names = llama_architecture.names;
  a.read_gguf = [](GgufConfigReader& read) { return llama::read_gguf(read, {.head_norm = HeadNorm::rms}); };
  a.read_hugging_face = qwen3::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
