#pragma once
// Gemma 3 (arXiv:2503.19786), the text model: Gemma 2 without caps, with an RMSNorm of every head of queries and keys, five
// blocks with a window to one without, and a rotary base of its own where the window is.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include <anybit/model/arch/gemma2.hpp>

namespace anybit::model::gemma3 {
inline namespace ANYBIT_CODE {

inline constexpr std::array<std::string_view, 2> model_types{"gemma3_text", "gemma3"};

inline Result<DecoderConfig> read_hugging_face(HfConfigReader& read) {
  DecoderConfig c;
  c.form.head_norm = HeadNorm::rms;
  ANYBIT_TRY_STATUS(gemma2::read_common(read, c));
  ANYBIT_TRY_STATUS(read.number_or("rope_theta", c.rope_base == 10000 ? 1e6f : c.rope_base, c.rope_base));
  ANYBIT_TRY_STATUS(read.number_or("rope_local_base_freq", 10000, c.rope_window_base));
  if (read.has("rope_parameters")) {  // one object for each kind of block
    ANYBIT_TRY(const io::JsonObject all, read.json().object("rope_parameters"));
    ANYBIT_TRY(const io::JsonObject full, all.object("full_attention"));
    ANYBIT_TRY(const io::JsonObject sliding, all.object("sliding_attention"));
    ANYBIT_TRY(const double base, hf_config::positive(full, "rope_theta", 1e6));
    ANYBIT_TRY(const double window_base, hf_config::positive(sliding, "rope_theta", 10000));
    c.rope_base = static_cast<float>(base), c.rope_window_base = static_cast<float>(window_base);
    ANYBIT_TRY_STATUS(hf_config::read_scaling(read, full, c));
  }
  Index pattern = 6;
  ANYBIT_TRY_STATUS(read.count_or(read.either({"sliding_window_pattern", "_sliding_window_pattern"}), 6, pattern));
  ANYBIT_TRY_STATUS(hf_config::read_window(read, "sliding_window", c, [&](Index i) { return (i + 1) % pattern != 0; }));
  return c;
}

/// GGUF does not store query_pre_attn_scalar: it is head_dim but in the model of 27 billion weights, 62 blocks of width 5376.
inline Result<DecoderConfig> read_gguf(GgufConfigReader& read) {
  DecoderConfig c;
  c.form.order = BlockOrder::sandwich, c.form.head_norm = HeadNorm::rms;
  ANYBIT_TRY_STATUS(gemma::read_gguf_common(read, c));
  if (c.blocks == 62 && c.dim == 5376)
    c.form.attention_scale = 1 / std::sqrt(static_cast<float>(c.dim) / static_cast<float>(c.heads));
  ANYBIT_TRY_STATUS(read.number_or("rope.freq_base", 1e6f, c.rope_base));
  ANYBIT_TRY_STATUS(read.number_or("rope.freq_base_swa", 10000, c.rope_window_base));
  ANYBIT_TRY_STATUS(read.count_or("attention.sliding_window", 1024, c.form.window));
  Index pattern = 6;
  ANYBIT_TRY_STATUS(read.count_or("attention.sliding_window_pattern", 6, pattern));
  c.form.set_windowed(c.blocks, [&](Index i) { return (i + 1) % pattern != 0; });
  return c;
}

/// The pattern is left out where it is the usual one, as converters do.
inline void write_gguf(GgufConfigWriter& w, const DecoderConfig& c) {
  gguf_config::write_shape(w, c);
  w.number("rope.freq_base_swa", c.rope_window_base);
  w.count("attention.sliding_window", c.form.window);
  Index pattern = 1;
  while (pattern < c.blocks && c.form.window_of(pattern - 1) != 0) ++pattern;
  if (c.form.windowed.empty() || c.form.window_of(pattern - 1) != 0) return;
  if (pattern != 6) w.count("attention.sliding_window_pattern", pattern);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::gemma3

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Architecture gemma3_architecture = [] {
  Architecture a = decoder_block::architecture("gemma3");
  a.model_types = gemma3::model_types;
  a.names = gemma2_architecture.names;
  a.read_gguf = gemma3::read_gguf;
  a.write_gguf = gemma3::write_gguf;
  a.read_hugging_face = gemma3::read_hugging_face;
  return a;
}();

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
