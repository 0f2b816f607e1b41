#pragma once
// A configuration as metadata of a GGUF file: the inverse of gguf_config.hpp. What an architecture has beyond the common keys it
// writes beside its reader (Architecture::write_gguf).

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <anybit/io/gguf_writer.hpp>
#include <anybit/model/config.hpp>
#include <anybit/model/rope_scaling.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Keys by their names behind that of the architecture.
class GgufConfigWriter {
 public:
  GgufConfigWriter(io::GgufWriter& to, std::string_view architecture) : to_(to), prefix_(std::string(architecture) + ".") {}

  void count(std::string_view name, Index value) { to_.add_metadata(key(name), static_cast<std::uint32_t>(value)); }
  void number(std::string_view name, float value) { to_.add_metadata(key(name), value); }
  /// Of the tokenizer, where its metadata do not have it.
  void tokenizer_count(std::string_view name, Index value) {
    to_.add_metadata("tokenizer.ggml." + std::string(name), static_cast<std::uint32_t>(value));
  }
  void flag(std::string_view name, bool value) { to_.add_metadata(key(name), value); }
  void text(std::string_view name, std::string_view value) { to_.add_metadata(key(name), value); }

 private:
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  io::GgufWriter& to_;
  std::string prefix_;
};

namespace gguf_config {

/// The YaRN options whose factors and magnitude these are; nothing where they are others'.
inline std::optional<YarnOptions> find_yarn(const DecoderConfig& c) {
  if (c.rope_factors.empty() || !(c.rope_magnitude > 1)) return std::nullopt;
  const double factor = std::round(std::exp((static_cast<double>(c.rope_magnitude) - 1) / 0.1) * 1024) / 1024;
  if (static_cast<float>(yarn_magnitude(factor)) != c.rope_magnitude) return std::nullopt;
  for (const double original :
       {static_cast<double>(c.rope_original_context), std::round(static_cast<double>(c.context) / factor)}) {
    const YarnOptions o{.factor = factor, .original = original};
    if (original > 0 && yarn_factors(c, o) == c.rope_factors) return o;
  }
  return std::nullopt;
}

inline void write_rope(GgufConfigWriter& w, const DecoderConfig& c) {
  w.count("rope.dimension_count", c.rotary_dim);
  w.number("rope.freq_base", c.rope_base);
  if (const auto yarn = find_yarn(c)) {
    w.text("rope.scaling.type", "yarn");
    w.number("rope.scaling.factor", static_cast<float>(yarn->factor));
    w.count("rope.scaling.original_context_length", static_cast<Index>(yarn->original));
    w.number("rope.scaling.yarn_beta_fast", static_cast<float>(yarn->beta_fast));
    w.number("rope.scaling.yarn_beta_slow", static_cast<float>(yarn->beta_slow));
  } else if (c.rope_scale != 1) {
    w.text("rope.scaling.type", "linear");
    w.number("rope.scaling.factor", c.rope_scale);
  }
}

/// Dimensions, norm epsilon and rotary positions, as read_shape() reads them.
inline void write_shape(GgufConfigWriter& w, const DecoderConfig& c) {
  w.count("context_length", c.context);
  w.count("embedding_length", c.dim);
  w.count("block_count", c.blocks);
  w.count("feed_forward_length", c.hidden);
  w.count("attention.head_count", c.heads);
  w.count("attention.head_count_kv", c.kv_heads);
  w.number(c.form.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", c.norm_epsilon);
  if (c.heads * c.head_dim != c.dim || c.form.norm == NormKind::rms) {
    w.count("attention.key_length", c.head_dim);
    w.count("attention.value_length", c.head_dim);
  }
  w.count("vocab_size", c.vocabulary);
  if (c.form.positions == Positions::rotary) write_rope(w, c);
}

}  // namespace gguf_config
}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
