#pragma once
// PaLM (arXiv:2204.02311): attention with one key-value head and SwiGLU side by side behind one LayerNorm without bias, which
// five linears read. GGUF has no such architecture.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/llama.hpp>

namespace anybit::model::palm {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 1> model_types{"palm"};

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form.norm = NormKind::layer_gain, c.form.order = BlockOrder::parallel;
  ANYBIT_TRY_STATUS(hf_config::read_shape(read, c));
  ANYBIT_TRY_STATUS(read.number_or("layer_norm_eps", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read.activation("hidden_act", "silu", c.form.activation));
  ANYBIT_TRY_STATUS(read.read_tie(true));
  ANYBIT_TRY_STATUS(hf_config::read_rope(read, c));
  return c;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::palm

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture palm_architecture = [] {
  Architecture a = decoder_block::architecture("palm");
  a.model_types = palm::model_types;
  a.names = llama_architecture.names;
  a.read_hugging_face = palm::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
