#pragma once
// Writes a quantized decoder into anybit's container, under GGUF's names for tensors and configuration.

#include <string>

#include <anybit/io/anybit_file.hpp>
#include <anybit/model/decoder.hpp>

namespace anybit::model::inline ANYBIT_CODE {

/// Packed linears as they are, floats where a linear is float, the configuration as metadata. No vocabulary: a reader takes
/// the tokenizer from the file that the model came from, named in `source`.
inline Status save_decoder(const std::string& path, const Decoder& d, const std::string& recipe, const std::string& source) {
  using io::detail::text;
  io::AnybitWriter writer;
  const DecoderConfig& c = d.config;
  writer.set_metadata("general.architecture", "llama");
  writer.set_metadata("general.source", source);
  writer.set_metadata("general.recipe", recipe);
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, Index>>{{"llama.vocab_size", c.vocabulary},
                                                                                      {"llama.embedding_length", c.dim},
                                                                                      {"llama.feed_forward_length", c.hidden},
                                                                                      {"llama.block_count", c.blocks},
                                                                                      {"llama.attention.head_count", c.heads},
                                                                                      {"llama.attention.head_count_kv", c.kv_heads},
                                                                                      {"llama.attention.key_length", c.head_dim},
                                                                                      {"llama.rope.dimension_count", c.rotary_dim},
                                                                                      {"llama.context_length", c.context}})
    writer.set_metadata(key, std::to_string(value));
  writer.set_metadata("llama.attention.layer_norm_rms_epsilon", text(c.norm_epsilon));
  writer.set_metadata("llama.rope.freq_base", text(c.rope_base));
  writer.set_metadata("llama.rope.scaling.factor", text(c.rope_scale));

  const auto add_gains = [&](std::string name, const std::vector<float>& g) { writer.add(std::move(name), ConstMatrix(g.data(), 1, static_cast<Index>(g.size()))); };
  for_each_linear(d, [&](const std::string& name, const Linear& linear) {
    if (linear.dense()) writer.add(name, linear.dense()->view());
    else writer.add(name, linear.packed()->bytes());
  });
  for (std::size_t i = 0; i < d.blocks.size(); ++i) {
    add_gains(text("blk.", i, ".attn_norm.weight"), d.blocks[i].attn_norm);
    add_gains(text("blk.", i, ".ffn_norm.weight"), d.blocks[i].ffn_norm);
  }
  add_gains("output_norm.weight", d.output_norm);
  if (!c.rope_factors.empty()) add_gains("rope_freqs.weight", c.rope_factors);
  return writer.write(path);
}

}  // namespace anybit::model::inline ANYBIT_CODE
