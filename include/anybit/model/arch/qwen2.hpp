#pragma once
// Qwen2 (arXiv:2407.10671): llama with biases on q, k and v, and a window in the upper blocks of some models.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/llama.hpp>

namespace anybit::model::qwen2 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"qwen2"};

/// The window of Qwen2 and Qwen3, which few models use.
inline Status read_window(HfConfigReader& read, DecoderConfig& c) {
  bool used = false;
  Index first = 28;
  ANYBIT_TRY_STATUS(read.flag_or("use_sliding_window", false, used));
  ANYBIT_TRY_STATUS(read.size_or("max_window_layers", 28, first));
  return used ? hf_config::read_window(read, "sliding_window", c, [&](Index i) { return i >= first; }) : Status(Ok{});
}

/// Biases are part of the architecture, whatever the configuration says.
inline Blueprint blueprint(const DecoderConfig& c) {
  DecoderConfig biased = c;
  biased.form.qkv_bias = true;
  return decoder_block::blueprint(biased);
}

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  read.use("attention_bias");
  ANYBIT_TRY_STATUS(llama::read_common(read, c));
  ANYBIT_TRY_STATUS(read_window(read, c));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::qwen2

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture qwen2_architecture = [] {
  Architecture a = decoder_block::architecture("qwen2");
  a.model_types = qwen2::model_types;
  a.names = llama_architecture.names;
  a.read_gguf = [](GgufConfigReader& read) { return llama::read_gguf(read); };
  a.read_hugging_face = qwen2::read_hugging_face;
  a.blueprint = qwen2::blueprint;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
