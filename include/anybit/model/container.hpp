#pragma once
// A whole model in anybit's container: linears packed or float under GGUF's names, gains, configuration and vocabulary. The
// file needs no other beside it.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <charconv>
#include <cstring>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <anybit/io/anybit_file.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/load_tensors.hpp>
#include <anybit/model/model.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/model/tokenizer/rules_text.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Text that the file carries along. Bytes that are not UTF-8 become U+FFFD.
struct Provenance {
  std::string recipe, source;
};

namespace detail {

/// The numbers of a configuration by their keys in GGUF, behind the architecture's name, for both directions.
template <class Config, class F>
void for_each_number(Config& c, F&& f) {
  f("vocab_size", c.vocabulary), f("embedding_length", c.dim), f("feed_forward_length", c.hidden);
  f("block_count", c.blocks), f("attention.head_count", c.heads), f("attention.head_count_kv", c.kv_heads);
  f("attention.key_length", c.head_dim), f("rope.dimension_count", c.rotary_dim), f("context_length", c.context);
  f("attention.layer_norm_rms_epsilon", c.norm_epsilon), f("rope.freq_base", c.rope_base);
  f("rope.scaling.factor", c.rope_scale);
}
/// What configurations have beyond these numbers: written where it is not the default, so that a llama's file has none of it.
template <class Config, class Default, class F>
void for_each_option(Config& c, Default& d, F&& f) {
  f("rope.magnitude", c.rope_magnitude, d.rope_magnitude), f("rope.dynamic", c.rope_dynamic, d.rope_dynamic);
  f("rope.scaling.original_context_length", c.rope_original_context, d.rope_original_context);
  f("rope.freq_base_swa", c.rope_window_base, d.rope_window_base);
  auto& x = c.form;
  const auto& y = d.form;
  f("form.norm", x.norm, y.norm), f("form.order", x.order, y.order), f("form.head_norm", x.head_norm, y.head_norm);
  f("form.positions", x.positions, y.positions), f("form.final_norm", x.final_norm, y.final_norm);
  f("form.gated", x.gated, y.gated), f("form.activation", x.activation, y.activation);
  f("form.qkv_bias", x.qkv_bias, y.qkv_bias), f("form.output_bias", x.output_bias, y.output_bias);
  f("form.mlp_bias", x.mlp_bias, y.mlp_bias), f("form.head_bias", x.head_bias, y.head_bias);
  f("form.embedding_width", x.embedding_width, y.embedding_width);
  f("form.embedding_scale", x.embedding_scale, y.embedding_scale);
  f("form.position_offset", x.position_offset, y.position_offset);
  f("form.attention_scale", x.attention_scale, y.attention_scale);
  f("form.scale_by_layer", x.scale_by_layer, y.scale_by_layer), f("form.attention_cap", x.attention_cap, y.attention_cap);
  f("form.logit_cap", x.logit_cap, y.logit_cap), f("form.alibi_scale", x.alibi_scale, y.alibi_scale);
  f("form.window", x.window, y.window);
  f("form.causal", x.causal, y.causal), f("form.cross_attention", x.cross_attention, y.cross_attention);
  f("form.k_bias", x.k_bias, y.k_bias), f("form.embedding_norm", x.embedding_norm, y.embedding_norm);
  f("form.pooler", x.pooler, y.pooler), f("form.head", x.head, y.head), f("form.logit_scale", x.logit_scale, y.logit_scale);
  f("form.logit_bias", x.logit_bias, y.logit_bias);
  f("form.token_types", x.token_types, y.token_types), f("form.feature_bins", x.feature_bins, y.feature_bins);
  f("form.relative_buckets", x.relative_buckets, y.relative_buckets);
  f("form.relative_distance", x.relative_distance, y.relative_distance);
  f("expert_count", x.experts.count, y.experts.count), f("expert_used_count", x.experts.used, y.experts.used);
  f("expert_feed_forward_length", x.experts.hidden, y.experts.hidden);
  f("expert_shared_feed_forward_length", x.experts.shared_hidden, y.experts.shared_hidden);
  f("form.expert_weights", x.experts.weights, y.experts.weights);
  f("form.shared_expert_gate", x.experts.shared_gate, y.experts.shared_gate);
}
/// Of flags and kinds, the number that for_each_option()'s value is in a file.
template <class T>
auto number_of(T value) {
  if constexpr (std::is_enum_v<T> || std::is_same_v<T, bool>)
    return static_cast<int>(value);
  else
    return value;
}
/// Behind the architecture's name, in the keys of an encoder in front of the decoder.
inline constexpr std::string_view encoder_suffix = ".encoder";

/// Behind the architecture's name: "1" or "0" for each block, whether the window holds there.
inline constexpr std::string_view windowed_key = "form.windowed";
/// Likewise whether the block has experts, where not all have.
inline constexpr std::string_view sparse_key = "form.sparse";
/// Calls f(key, flags) for both.
template <class Form, class F>
void for_each_flags(Form& form, F&& f) {
  f(windowed_key, form.windowed), f(sparse_key, form.experts.sparse);
}

/// Behind the architecture's name: "pairs" or "halves", where the rows of q and k are not in the architecture's order in GGUF.
inline constexpr std::string_view rope_order_key = "rope.order";
inline constexpr std::array<std::string_view, 2> rope_orders{"pairs", "halves"};

class MetadataReader {
 public:
  MetadataReader(const std::map<std::string, std::string>& metadata, const std::string& file)
      : metadata_(metadata), file_(file) {}

  bool has(const std::string& key) const { return metadata_.contains(key); }
  Result<std::string> text(const std::string& key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end())
      return {ErrorCode::corrupt_data,
              io::detail::text(file_, ": no metadata key ", io::detail::shown(key), ": the file holds no model, or was cut")};
    return found->second;
  }
  template <class Number>
  Status number(const std::string& key, Number& to) const {
    ANYBIT_TRY(const std::string value, text(key));
    const char* const end = value.data() + value.size();
    const auto parsed = std::from_chars(value.data(), end, to);
    if (parsed.ec == std::errc() && parsed.ptr == end) return Ok{};
    return {ErrorCode::corrupt_data, io::detail::text(file_, ": metadata ", key, " is ", io::detail::shown(value),
                                                      ", no number in range: save the model again")};
  }
  /// One of `names`, as its position.
  template <std::size_t N>
  Result<std::size_t> choice(const std::string& key, const std::array<std::string_view, N>& names) const {
    ANYBIT_TRY(const std::string value, text(key));
    for (std::size_t i = 0; i < N; ++i)
      if (names[i] == value) return i;
    return {ErrorCode::unsupported, io::detail::text(file_, ": metadata ", key, " is ", io::detail::shown(value),
                                                     ", which this build does not know: use a newer anybit")};
  }

 private:
  const std::map<std::string, std::string>& metadata_;
  const std::string& file_;
};

inline Status read_options(const MetadataReader& read, const std::string& architecture, DecoderConfig& c) {
  const DecoderConfig usual;
  Status status = Ok{};
  for_each_option(c, usual, [&](const char* name, auto& to, const auto&) {
    const std::string key = architecture + "." + name;
    if (!status || !read.has(key)) return;
    auto number = number_of(to);
    status = read.number(key, number);
    using Value = std::remove_cvref_t<decltype(to)>;
    if constexpr (std::is_enum_v<Value> || std::is_same_v<Value, bool>) {
      // A kind that this build does not know must not become one that it knows.
      if (status && (number < 0 || number > (std::is_same_v<Value, bool> ? 1 : 255)))
        status = Error{ErrorCode::corrupt_data, io::detail::text("metadata ", key, " is ", number, ": save the model again")};
    }
    to = static_cast<Value>(number);
  });
  ANYBIT_TRY_STATUS(status);
  for_each_flags(c.form, [&](std::string_view name, std::vector<std::uint8_t>& to) {
    const std::string key = architecture + "." + std::string(name);
    if (!status || !read.has(key)) return;
    const auto flags = read.text(key);
    if (flags->find_first_not_of("01") != std::string::npos)
      status = Error{ErrorCode::corrupt_data, "metadata " + key + " must hold 0 and 1 only: save the model again"};
    for (const char flag : *flags) to.push_back(flag == '1');
  });
  return status;
}

inline constexpr std::array<std::string_view, 5> tokenizer_kinds{"byte_bpe", "score_bpe", "merge_bpe", "unigram", "word_piece"};
inline constexpr std::array<std::string_view, 2> no_yes{"0", "1"};
inline constexpr std::string_view vocabulary_prefix = "tokenizer.";
/// Models with rotations in their forward pass have an architecture of their own ("llama-rotated"), so that no reader runs them
/// without.
inline constexpr std::string_view rotated_suffix = "-rotated";

/// Before a tensor's name: how its activations enter the product, if not as floats, and the scale of int8_static. Readers that do
/// not know a way refuse the file.
inline constexpr std::string_view compute_key = "compute.", activation_scale_key = "activation_scale.";

/// Always as long as any other, so that the size of a file is known before the scales are.
inline std::string scale_text(float scale) {
  std::array<char, 32> out{};
  return {out.data(), std::to_chars(out.data(), out.data() + out.size(), scale, std::chars_format::scientific, 8).ptr};
}

/// The scale that the file gives a tensor.
inline Result<ActivationMode> read_activation_scale(const MetadataReader& read, const std::string& file,
                                                    const std::string& tensor) {
  const std::string key = std::string(activation_scale_key) + tensor;
  float scale = 0;
  ANYBIT_TRY_STATUS(read.number(key, scale));
  if (ActivationMode::valid_scale(scale)) return ActivationMode::int8_static(scale);
  ANYBIT_TRY(const std::string value, read.text(key));
  return {ErrorCode::corrupt_data, io::detail::text(file, ": metadata ", key, " is ", io::detail::shown(value),
                                                    "; a scale must be finite and above 0: save the model again")};
}

inline constexpr std::string_view no_rotation = "none";

/// Each rotation that may run in the forward pass: its key, whose value is the seed or "none", and its length.
template <class Rotations, class F>
void for_each_rotation(Rotations& r, const DecoderConfig& c, F&& f) {
  f("rotation.residual", r.residual, c.dim), f("rotation.attn_output", r.attn_output, c.query_width());
  f("rotation.ffn_down", r.ffn_down, c.hidden);
}

template <class V, class F>
void for_each_special_id(V& v, F&& f) {
  f("tokenizer.bos", v.bos), f("tokenizer.eos", v.eos), f("tokenizer.unknown", v.unknown);
}

/// Files of rotated models have all keys of for_each_rotation(), so that none is lost unnoticed; others have none.
inline Status read_rotations(const io::AnybitFile& file, bool rotated, Decoder& d) {
  const MetadataReader read(file.metadata(), file.name());
  Status status = Ok{};
  const auto one = [&](const char* key, std::optional<Hadamard>& rotation, Index width) -> Status {
    if (!rotated && read.has(key))
      return {ErrorCode::corrupt_data,
              io::detail::text(file.name(), ": metadata ", key, " is for models of the architecture '",
                               d.blueprint->architecture->name, rotated_suffix, "': save the model again")};
    if (!rotated) return Ok{};
    ANYBIT_TRY(const std::string text, read.text(key));
    if (text == no_rotation) return Ok{};
    std::uint64_t seed = 0;
    ANYBIT_TRY_STATUS(read.number(key, seed));
    auto made = Hadamard::make(width, seed);
    if (!made) return in_context(made.error(), io::detail::text(file.name(), ": metadata ", key));
    rotation = *std::move(made);
    return Ok{};
  };
  for_each_rotation(d.online, d.config, [&](const char* key, std::optional<Hadamard>& rotation, Index width) {
    if (status) status = one(key, rotation, width);
  });
  return status;
}

/// A scale that no linear multiplies with means that its `compute.` key was lost.
inline Status check_activation_scales(const io::AnybitFile& file, const Decoder& d) {
  std::set<std::string, std::less<>> used;
  for_each_linear(d, [&](const std::string& name, const nn::Linear& linear) {
    if (linear.compute() == Compute::int8_static) used.insert(std::string(activation_scale_key) + name);
  });
  for (const auto& [key, value] : file.metadata())
    if (key.starts_with(activation_scale_key) && !used.contains(key))
      return {ErrorCode::corrupt_data, io::detail::text(file.name(), ": metadata ", io::detail::shown(key),
                                                        " is of no tensor that multiplies with it: save the model again")};
  return Ok{};
}

/// A vocabulary as flat arrays: what a safetensors file can hold. They stay in memory until the file is written.
struct FlatVocabulary {
  std::vector<std::uint8_t> bytes, kinds;
  std::vector<std::int32_t> lengths, merges;

  explicit FlatVocabulary(const Vocabulary& v) {
    for (const std::string& t : v.tokens) {
      bytes.insert(bytes.end(), t.begin(), t.end());
      lengths.push_back(static_cast<std::int32_t>(t.size()));
    }
    for (const TokenKind k : v.kinds) kinds.push_back(static_cast<std::uint8_t>(k));
    for (const MergePair m : v.merges) merges.push_back(m.left), merges.push_back(m.right);
  }
  FlatVocabulary(const FlatVocabulary&) = delete;
  FlatVocabulary& operator=(const FlatVocabulary&) = delete;

  void add_to(io::AnybitWriter& writer, const Vocabulary& v) const {
    const auto add = [&](const char* name, const char* dtype, const auto& values) {
      writer.add(io::TensorInfo{name, dtype, {static_cast<Index>(values.size())}, std::as_bytes(std::span(values))});
    };
    add("tokenizer.bytes", "U8", bytes), add("tokenizer.lengths", "I32", lengths), add("tokenizer.kinds", "U8", kinds);
    add("tokenizer.merges", "I32", merges), add("tokenizer.scores", "F32", v.scores);
    writer.set_metadata("tokenizer.kind", std::string(tokenizer_kinds[static_cast<std::size_t>(v.kind)]));
    writer.set_metadata("tokenizer.pre", v.pre);
    if (std::string rules = rules_text(v); !rules.empty()) writer.set_metadata("tokenizer.rules", std::move(rules));
    writer.set_metadata("tokenizer.add_bos", v.add_bos ? "1" : "0");
    writer.set_metadata("tokenizer.add_space_prefix", v.add_space_prefix ? "1" : "0");
    for_each_special_id(v, [&](const char* key, const std::optional<TokenId>& id) {
      if (id) writer.set_metadata(key, number_text(*id));
    });
  }
};

inline Result<Tokenizer> read_vocabulary(const io::AnybitFile& file) {
  const MetadataReader read(file.metadata(), file.name());
  Vocabulary v;
  ANYBIT_TRY(const std::size_t kind, read.choice("tokenizer.kind", tokenizer_kinds));
  ANYBIT_TRY(v.pre, read.text("tokenizer.pre"));
  ANYBIT_TRY(const std::size_t add_bos, read.choice("tokenizer.add_bos", no_yes));
  ANYBIT_TRY(const std::size_t add_space, read.choice("tokenizer.add_space_prefix", no_yes));
  v.kind = static_cast<TokenizerKind>(kind);
  if (read.has("tokenizer.rules")) {
    ANYBIT_TRY(const std::string rules, read.text("tokenizer.rules"));
    if (auto known = read_rules(rules, v); !known) return in_context(known.error(), file.name() + ": metadata tokenizer.rules");
  }
  v.add_bos = add_bos == 1, v.add_space_prefix = add_space == 1;
  Status ids = Ok{};
  for_each_special_id(v, [&](const char* key, std::optional<TokenId>& id) {
    if (ids && read.has(key)) ids = read.number(key, id.emplace());
  });
  if (!ids) return ids.error();

  ANYBIT_TRY(const std::vector<std::uint8_t> bytes, file.read<std::uint8_t>("tokenizer.bytes"));
  ANYBIT_TRY(const std::vector<std::int32_t> lengths, file.read<std::int32_t>("tokenizer.lengths"));
  ANYBIT_TRY(const std::vector<std::uint8_t> kinds, file.read<std::uint8_t>("tokenizer.kinds"));
  ANYBIT_TRY(const std::vector<std::int32_t> merges, file.read<std::int32_t>("tokenizer.merges"));
  ANYBIT_TRY(v.scores, file.read<float>("tokenizer.scores"));
  const auto bad = [&](const auto&... what) {
    return Error{ErrorCode::corrupt_data, io::detail::text(file.name(), ": ", what..., ": save the model again")};
  };
  std::size_t at = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] < 0 || static_cast<std::size_t>(lengths[i]) > bytes.size() - at)
      return bad("tokenizer.lengths: token ", i, " has ", lengths[i], " bytes, but ", bytes.size() - at, " are left");
    v.tokens.emplace_back(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                          bytes.begin() + static_cast<std::ptrdiff_t>(at) + lengths[i]);
    at += static_cast<std::size_t>(lengths[i]);
  }
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i] < 1 || kinds[i] > 6)
      return bad("tokenizer.kinds: token ", i, " has kind ", static_cast<int>(kinds[i]), ", not 1 to 6");
    v.kinds.push_back(static_cast<TokenKind>(kinds[i]));
  }
  if (merges.size() % 2 != 0) return bad("tokenizer.merges has an odd number of ids, ", merges.size());
  for (std::size_t i = 0; i < merges.size(); i += 2) v.merges.push_back({merges[i], merges[i + 1]});
  auto tokenizer = Tokenizer::make(std::move(v));
  if (!tokenizer) return in_context(tokenizer.error(), file.name());
  return tokenizer;
}

/// The container as TensorReader wants a file, without the tensors of the vocabulary. Packed weights are copied, so that the
/// model does not depend on the mapping.
class ContainerTensors {
 public:
  ContainerTensors(const io::AnybitFile& file, const SchemeRegistry& schemes) : file_(file), schemes_(schemes) {
    for (const io::TensorInfo& t : file.tensors())
      if (!t.name.starts_with(vocabulary_prefix)) tensors_.add(t);
  }
  const std::string& name() const { return file_.name(); }
  const std::vector<io::TensorInfo>& tensors() const { return tensors_.all(); }
  const io::TensorInfo* find(std::string_view tensor) const { return tensors_.find(tensor); }
  Result<Matrix> read_f32(std::string_view tensor) const { return file_.read_f32(tensor); }
  bool is_packed(std::string_view tensor) const { return file_.is_packed(tensor); }
  Result<nn::Linear> packed(const std::string& tensor) const {
    ANYBIT_TRY(const PackedBytes view, file_.packed(tensor));
    ANYBIT_TRY(PackedBytes copy, PackedBytes::copy(view.bytes()));
    auto packed = schemes_.open(std::move(copy));
    if (!packed) return in_context(in_context(packed.error(), "tensor " + tensor), name());
    const MetadataReader read(file_.metadata(), name());
    std::size_t compute = 0;
    if (const std::string key = std::string(compute_key) + tensor; read.has(key)) {
      ANYBIT_TRY(compute, read.choice(key, compute_names));
    }
    if (static_cast<Compute>(compute) != Compute::int8_static)
      return nn::Linear(*std::move(packed), static_cast<Compute>(compute));
    ANYBIT_TRY(const ActivationMode activations, read_activation_scale(read, name(), tensor));
    return nn::Linear(*std::move(packed), activations);
  }

 private:
  const io::AnybitFile& file_;
  const SchemeRegistry& schemes_;
  io::TensorList tensors_;
};

}  // namespace detail

namespace detail {

/// Numbers and options of one stack.
inline void write_config(io::AnybitWriter& writer, const std::string& prefix, const DecoderConfig& c) {
  for_each_number(c, [&](const char* key, auto number) { writer.set_metadata(prefix + "." + key, number_text(number)); });
  const DecoderConfig usual;
  for_each_option(c, usual, [&](const char* key, const auto& value, const auto& standard) {
    if (value != standard) writer.set_metadata(prefix + "." + key, number_text(number_of(value)));
  });
  for_each_flags(c.form, [&](std::string_view name, const std::vector<std::uint8_t>& flags) {
    std::string text;
    for (const std::uint8_t flag : flags) text += flag ? '1' : '0';
    if (!text.empty()) writer.set_metadata(prefix + "." + std::string(name), text);
  });
}
inline Status read_config(const MetadataReader& read, const std::string& prefix, DecoderConfig& c) {
  Status numbers = Ok{};
  for_each_number(c, [&](const char* key, auto& to) {
    if (numbers) numbers = read.number(prefix + "." + key, to);
  });
  ANYBIT_TRY_STATUS(std::move(numbers));
  return read_options(read, prefix, c);
}

/// Hands use(writer) a writer that holds the whole model.
template <class Use>
auto with_writer(const Model& m, const Provenance& provenance, Use use) {
  const Decoder& d = m.decoder;
  io::AnybitWriter writer;
  const std::string architecture(d.blueprint->architecture->name);
  writer.set_metadata("general.architecture", architecture + std::string(d.online.any() ? rotated_suffix : ""));
  if (d.online.any())
    for_each_rotation(d.online, d.config, [&](const char* key, const std::optional<Hadamard>& rotation, Index) {
      writer.set_metadata(key, rotation ? number_text(rotation->seed()) : std::string(no_rotation));
    });
  writer.set_metadata("general.name", io::detail::to_utf8(m.name));
  if (!provenance.recipe.empty()) writer.set_metadata("general.recipe", io::detail::to_utf8(provenance.recipe));
  if (!provenance.source.empty()) writer.set_metadata("general.source", io::detail::to_utf8(provenance.source));
  write_config(writer, architecture, d.config);
  for (const DecoderConfig& encoder : d.config.encoder) write_config(writer, architecture + std::string(encoder_suffix), encoder);
  if (d.config.rope_order != d.blueprint->architecture->gguf_order)
    writer.set_metadata(architecture + "." + std::string(rope_order_key), std::string(name(d.config.rope_order)));
  const auto add_gains = [&](std::string name, const std::vector<float>& g) {
    writer.add(std::move(name), ConstMatrix(g.data(), 1, static_cast<Index>(g.size())));
  };
  for_each_linear(d, [&](const std::string& name, const nn::Linear& linear) {
    if (linear.dense())
      writer.add(name, linear.dense()->view());
    else
      writer.add(name, linear.packed()->bytes());
    if (linear.compute() == Compute::f32) return;
    writer.set_metadata(std::string(compute_key) + name, std::string(anybit::name(linear.compute())));
    if (linear.compute() == Compute::int8_static)
      writer.set_metadata(std::string(activation_scale_key) + name, scale_text(linear.activations().scale()));
  });
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const WeightSpec& spec = d.blueprint->weights[i];
    if (!spec.multiplies()) add_gains(spec.name, d.weights[i].values);
    if (!spec.bias.empty() && d.weights[i].linear.extents().size() > 0) add_gains(spec.bias, d.weights[i].linear.bias());
  }
  if (!d.config.rope_factors.empty()) add_gains("rope_freqs.weight", d.config.rope_factors);
  if (!d.config.rope_long_factors.empty()) add_gains("rope_factors_long.weight", d.config.rope_long_factors);
  const FlatVocabulary vocabulary(m.tokenizer.vocabulary());
  vocabulary.add_to(writer, m.tokenizer.vocabulary());
  return use(writer);
}

}  // namespace detail

/// Writes the whole model or nothing. load_model() reads it back, given a registry of its schemes.
inline Status save_model(const std::string& path, const Model& m, const Provenance& provenance = {}) {
  return detail::with_writer(m, provenance, [&](const io::AnybitWriter& writer) { return writer.write(path); });
}

/// Bytes of the file that save_model() would make.
inline Result<Index> saved_bytes(const Model& m, const Provenance& provenance = {}) {
  return detail::with_writer(m, provenance, [](const io::AnybitWriter& writer) { return writer.file_bytes(); });
}

/// Reads a file that save_model() wrote. `schemes` must know the schemes of the packed tensors.
inline Result<Model> model_from_container(const io::AnybitFile& file, const SchemeRegistry& schemes) {
  const detail::MetadataReader read(file.metadata(), file.name());
  ANYBIT_TRY(const std::string named, read.text("general.architecture"));
  const bool rotated = named.ends_with(detail::rotated_suffix);
  const std::string own = named.substr(0, named.size() - (rotated ? detail::rotated_suffix.size() : 0));
  const Architecture* const architecture = find_architecture(own);
  if (!architecture)
    return {ErrorCode::unsupported, io::detail::text(file.name(), ": general.architecture is ", io::detail::shown(named),
                                                     "; anybit runs ", architecture_names(own))};
  DecoderConfig config;
  ANYBIT_TRY_STATUS(detail::read_config(read, own, config));
  if (const std::string encoder = own + std::string(detail::encoder_suffix); read.has(encoder + ".block_count"))
    ANYBIT_TRY_STATUS(detail::read_config(read, encoder, config.encoder.emplace_back()));
  config.rope_order = architecture->gguf_order;
  if (const std::string key = own + "." + std::string(detail::rope_order_key); read.has(key)) {
    ANYBIT_TRY(const std::size_t order, read.choice(key, detail::rope_orders));
    config.rope_order = static_cast<nn::RopeOrder>(order);
  }
  for (DecoderConfig& encoder : config.encoder) encoder.rope_order = config.rope_order;
  ANYBIT_TRY(Decoder decoder, detail::read_decoder(detail::ContainerTensors(file, schemes), *architecture, std::move(config)));
  ANYBIT_TRY_STATUS(detail::read_rotations(file, rotated, decoder));
  ANYBIT_TRY_STATUS(detail::check_activation_scales(file, decoder));
  ANYBIT_TRY(Tokenizer tokenizer, detail::read_vocabulary(file));
  if (auto agree = check_sizes_agree(decoder, tokenizer); !agree) return in_context(agree.error(), file.name());
  ANYBIT_TRY(std::string name, read.text("general.name"));
  return Model{io::detail::readable_name(name), std::move(decoder), std::move(tokenizer)};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
