#pragma once
// A configuration out of a config.json of Hugging Face, in the forms that transformers 4 and 5 write.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/json.hpp>
#include <anybit/model/config.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/model/rope_scaling.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// Keys that change what a model computes, with the value that does not; true is 1. Where an architecture does not read one of
/// them, it must have this value. (A config.json has many more keys that only describe or steer training, so that refusing what
/// nobody asked for, as with GGUF, would refuse most models.)
inline constexpr std::pair<std::string_view, double> hf_neutral_keys[] = {{"attention_bias", 0},
                                                                          {"mlp_bias", 0},
                                                                          {"qk_layernorm", 0},
                                                                          {"use_qk_norm", 0},
                                                                          {"logit_scale", 1},
                                                                          {"logits_scaling", 1},
                                                                          {"residual_multiplier", 1},
                                                                          {"embedding_multiplier", 1},
                                                                          {"partial_rotary_factor", 1},
                                                                          {"num_local_experts", 0},
                                                                          {"num_experts", 0},
                                                                          {"n_routed_experts", 0},
                                                                          {"is_encoder_decoder", 0},
                                                                          {"add_cross_attention", 0},
                                                                          {"use_bidirectional_attention", 0},
                                                                          {"scale_attn_by_inverse_layer_idx", 0},
                                                                          {"attn_logit_softcapping", 0},
                                                                          {"final_logit_softcapping", 0},
                                                                          {"scale_embedding", 0},
                                                                          {"scale_logits", 0},
                                                                          {"alibi", 0}};

}  // namespace detail

/// Keys of one config.json as numbers of the configuration. It remembers which were asked for.
class HfConfigReader {
 public:
  explicit HfConfigReader(io::JsonObject config) : config_(std::move(config)) {}

  const io::JsonObject& json() const { return config_; }
  bool has(std::string_view key) const { return config_.has(key); }
  std::string model_type() const {
    const auto text = config_.text("model_type");
    return text ? *text : std::string();
  }

  /// From 1 to 2^31 - 1.
  Status count(std::string_view key, Index& to) {
    use(key);
    ANYBIT_TRY(const std::int64_t value, config_.integer(key));
    constexpr std::int64_t limit = std::int64_t{1} << 31;
    if (value < 1 || value >= limit) return config_.wrong(key, io::detail::text("1 to ", limit - 1));
    to = static_cast<Index>(value);
    return Ok{};
  }
  Status count_or(std::string_view key, Index fallback, Index& to) {
    to = fallback;
    use(key);
    return has(key) ? count(key, to) : Status(Ok{});
  }
  /// 0 or more.
  Status size_or(std::string_view key, Index fallback, Index& to) {
    to = fallback;
    use(key);
    if (!has(key)) return Ok{};
    ANYBIT_TRY(const std::int64_t value, config_.integer(key));
    if (value == 0) to = 0;
    return value == 0 ? Status(Ok{}) : count(key, to);
  }
  Status number_or(std::string_view key, float fallback, float& to) {
    use(key);
    to = fallback;
    if (!has(key)) return Ok{};
    ANYBIT_TRY(const double value, config_.number(key));
    to = static_cast<float>(value);
    return Ok{};
  }
  Status flag_or(std::string_view key, bool fallback, bool& to) {
    use(key);
    to = fallback;
    if (!has(key)) return Ok{};
    ANYBIT_TRY(to, config_.boolean(key));
    return Ok{};
  }
  Status text_or(std::string_view key, std::string_view fallback, std::string& to) {
    use(key);
    to = fallback;
    if (!has(key)) return Ok{};
    ANYBIT_TRY(to, config_.text(key));
    return Ok{};
  }
  /// The first of `keys` that is there.
  std::string_view either(std::initializer_list<std::string_view> keys) const {
    for (const std::string_view key : keys)
      if (has(key)) return key;
    return *keys.begin();
  }
  /// Whether the head is the embedding.
  Status read_tie(bool fallback) { return flag_or("tie_word_embeddings", fallback, tied_); }
  bool tied() const { return tied_; }

  Status activation(std::string_view key, std::string_view fallback, nn::Activation& to) {
    std::string text;
    ANYBIT_TRY_STATUS(text_or(key, fallback, text));
    for (const auto& [name, activation] :
         std::initializer_list<std::pair<std::string_view, nn::Activation>>{{"silu", nn::Activation::silu},
                                                                            {"swish", nn::Activation::silu},
                                                                            {"gelu", nn::Activation::gelu},
                                                                            {"gelu_new", nn::Activation::gelu_tanh},
                                                                            {"gelu_fast", nn::Activation::gelu_tanh},
                                                                            {"gelu_pytorch_tanh", nn::Activation::gelu_tanh},
                                                                            {"relu", nn::Activation::relu}})
      if (text == name) {
        to = activation;
        return Ok{};
      }
    return unsupported(key, "anybit computes silu, gelu, gelu_new and relu, use a model with one of these");
  }

  Error unsupported(std::string_view key, std::string_view remedy) const {
    const io::JsonValue* const value = config_.find(key);
    return {ErrorCode::unsupported, io::detail::text(config_.file(), ": ", config_.path(key), " is ",
                                                     value ? io::detail::shown(*value) : "absent", ": ", remedy)};
  }
  Error contradiction(std::string_view key, std::string_view what) const {
    const io::JsonValue* const value = config_.find(key);
    return {ErrorCode::corrupt_data,
            io::detail::text(config_.file(), ": ", config_.path(key), " is ", value ? io::detail::shown(*value) : "absent", ", ",
                             what, ": correct the file or fetch it again")};
  }

  /// Keys that change the computation and that nobody asked for must be neutral.
  Status all_neutral() const {
    for (const auto& [key, neutral] : detail::hf_neutral_keys) {
      const io::JsonValue* const value = config_.find(key);
      if (!value || used_.contains(key)) continue;
      const bool* const flag = value->as<bool>();
      const double* const number = value->as<double>();
      if ((flag && (*flag ? 1.0 : 0.0) == neutral) || (number && *number == neutral)) continue;
      return unsupported(key, io::detail::text("anybit runs ", model_type(), " only with ", detail::number_text(neutral),
                                               " (or false for 0) here, use a model without it"));
    }
    return Ok{};
  }

  void use(std::string_view key) { used_.insert(std::string(key)); }

 private:
  io::JsonObject config_;
  std::set<std::string, std::less<>> used_;
  bool tied_ = false;
};

namespace hf_config {

/// The names of what every decoder has.
struct ShapeKeys {
  std::string_view dim = "hidden_size", hidden = "intermediate_size", blocks = "num_hidden_layers", heads = "num_attention_heads",
                   kv_heads = "num_key_value_heads", context = "max_position_embeddings";
};

/// Dimensions. A hidden width or number of key-value heads that is absent is `4 * dim` or that of heads; head_dim is dim / heads.
inline Status read_shape(HfConfigReader& read, DecoderConfig& c, const ShapeKeys& keys = {}) {
  ANYBIT_TRY_STATUS(read.count("vocab_size", c.vocabulary));
  ANYBIT_TRY_STATUS(read.count(keys.dim, c.dim));
  ANYBIT_TRY_STATUS(read.count_or(keys.hidden, 4 * c.dim, c.hidden));
  ANYBIT_TRY_STATUS(read.count(keys.blocks, c.blocks));
  ANYBIT_TRY_STATUS(read.count(keys.heads, c.heads));
  c.kv_heads = c.heads;
  if (!keys.kv_heads.empty()) ANYBIT_TRY_STATUS(read.count_or(keys.kv_heads, c.heads, c.kv_heads));
  if (!read.has("head_dim") && c.dim % c.heads != 0)
    return read.contradiction(keys.heads, io::detail::text("which does not divide the width ", c.dim));
  ANYBIT_TRY_STATUS(read.count_or("head_dim", c.dim / c.heads, c.head_dim));
  if (c.head_dim > head_dim_limit)
    return read.contradiction(read.has("head_dim") ? "head_dim" : keys.dim, "which gives heads that are too wide");
  ANYBIT_TRY_STATUS(read.count_or(keys.context, 2048, c.context));
  c.rotary_dim = c.head_dim;
  return Ok{};
}

/// A window from `key`; in the blocks whose `layer_types` say so, else in those that `windowed(block)` says.
template <class Windowed>
Status read_window(HfConfigReader& read, std::string_view key, DecoderConfig& c, Windowed windowed) {
  DecoderForm& f = c.form;
  ANYBIT_TRY_STATUS(read.size_or(key, 0, f.window));
  if (f.window == 0) return Ok{};
  if (read.has("layer_types")) {
    ANYBIT_TRY(const std::vector<std::string> types, read.json().texts("layer_types"));
    if (static_cast<Index>(types.size()) != c.blocks)
      return read.contradiction("layer_types", io::detail::text("but the model has ", c.blocks, " layers"));
    for (const std::string& type : types)
      if (type != "sliding_attention" && type != "full_attention")
        return {ErrorCode::unsupported,
                io::detail::text(read.json().file(), ": layer_types holds ", io::detail::shown(type),
                                 ": anybit knows full_attention and sliding_attention, use a model with these")};
    f.set_windowed(c.blocks, [&](Index i) { return types[static_cast<std::size_t>(i)] == "sliding_attention"; });
  } else {
    f.set_windowed(c.blocks, windowed);
  }
  const auto without = std::count(f.windowed.begin(), f.windowed.end(), std::uint8_t{0});
  if (without == static_cast<std::ptrdiff_t>(f.windowed.size())) f.window = 0;
  if (without == 0 || f.window == 0) f.windowed.clear();
  return Ok{};
}

/// A number of a rope scaling that must be above 0.
inline Result<double> positive(const io::JsonObject& from, std::string_view key, double fallback) {
  if (!from.has(key)) return fallback;
  ANYBIT_TRY(const double value, from.number(key));
  if (!(value > 0)) return from.wrong(key, "a number above 0");
  return value;
}

/// Frequencies of one scaling, an object with rope_type (or type) and its numbers. c.rope_base and c.rotary_dim are set already.
inline Status read_scaling(HfConfigReader& read, const io::JsonObject& from, DecoderConfig& c) {
  const std::string_view type_key = from.has("rope_type") ? "rope_type" : "type";
  std::string type = "default";
  if (from.has(type_key)) {
    ANYBIT_TRY(type, from.text(type_key));
  }
  if (type == "default") return Ok{};
  ANYBIT_TRY(double factor, positive(from, "factor", 1));
  // Stands beside the scaling in some configurations, and in it in others.
  double original = 0;
  for (const io::JsonObject& where : {from, read.json()})
    if (original == 0 && where.has("original_max_position_embeddings")) {
      ANYBIT_TRY(original, positive(where, "original_max_position_embeddings", 0));
    }
  if (original >= 2147483648.0) return from.wrong("original_max_position_embeddings", "below 2^31");
  const double context = static_cast<double>(c.context);
  if (type == "linear") {
    c.rope_scale = static_cast<float>(factor);
    return Ok{};
  }
  if (type == "dynamic") {
    c.rope_dynamic = static_cast<float>(factor);
    return Ok{};
  }
  if (type == "llama3") {
    ANYBIT_TRY(const double low, positive(from, "low_freq_factor", 1));
    ANYBIT_TRY(const double high, positive(from, "high_freq_factor", 4));
    if (!(low < high)) return from.wrong("high_freq_factor", io::detail::text("above low_freq_factor, ", low));
    c.rope_factors = llama3_factors(c, factor, low, high, original > 0 ? original : context);
    return Ok{};
  }
  if (type == "yarn") {
    YarnOptions o{.factor = factor, .original = original > 0 ? original : context};
    ANYBIT_TRY(o.beta_fast, positive(from, "beta_fast", 32));
    ANYBIT_TRY(o.beta_slow, positive(from, "beta_slow", 1));
    if (from.has("truncate")) {
      ANYBIT_TRY(o.truncate, from.boolean("truncate"));
    }
    c.rope_factors = yarn_factors(c, o);
    double value = yarn_magnitude(factor);
    if (from.has("attention_factor")) {
      ANYBIT_TRY(value, positive(from, "attention_factor", 1));
    } else if (from.has("mscale") && from.has("mscale_all_dim")) {
      ANYBIT_TRY(const double m, from.number("mscale"));
      ANYBIT_TRY(const double all, from.number("mscale_all_dim"));
      if (m != 0 && all != 0) value = yarn_magnitude(factor, m) / yarn_magnitude(factor, all);
    }
    c.rope_magnitude = static_cast<float>(value);
    return Ok{};
  }
  if (type == "longrope" || type == "su") {
    if (original == 0) return from.wrong("original_max_position_embeddings", "a number above 0");
    c.rope_original_context = static_cast<Index>(original);
    for (const auto& [key, to] : {std::pair{"short_factor", &c.rope_factors}, std::pair{"long_factor", &c.rope_long_factors}}) {
      ANYBIT_TRY(const std::vector<double> values, from.numbers(key));
      to->clear();
      for (const double v : values) to->push_back(static_cast<float>(v));
    }
    const double extended = from.has("factor") ? factor : context / original;
    double value = extended > 1 ? std::sqrt(1 + std::log(extended) / std::log(original)) : 1;
    if (from.has("attention_factor")) {
      ANYBIT_TRY(value, positive(from, "attention_factor", 1));
    }
    c.rope_magnitude = static_cast<float>(value);
    return Ok{};
  }
  return {ErrorCode::unsupported,
          io::detail::text(from.file(), ": ", from.path(type_key), " is ", io::detail::shown(type),
                           ": anybit knows default, linear, dynamic, llama3, yarn and longrope, use a model with one of these")};
}

/// Base, rotated values per head and scaling, from rope_theta and rope_scaling (transformers 4) or rope_parameters (5).
inline Status read_rope(HfConfigReader& read, DecoderConfig& c, float base = 10000, std::string_view base_key = "rope_theta",
                        std::string_view part_key = "partial_rotary_factor", float part = 1) {
  io::JsonObject parameters;
  if (read.has("rope_parameters")) {
    ANYBIT_TRY(parameters, read.json().object("rope_parameters"));
  }
  ANYBIT_TRY_STATUS(read.number_or(base_key, base, c.rope_base));
  ANYBIT_TRY_STATUS(read.number_or(part_key, part, part));
  if (parameters.has("rope_theta")) {
    ANYBIT_TRY(const double value, parameters.number("rope_theta"));
    c.rope_base = static_cast<float>(value);
  }
  if (parameters.has("partial_rotary_factor")) {
    ANYBIT_TRY(const double value, parameters.number("partial_rotary_factor"));
    part = static_cast<float>(value);
  }
  if (!(part > 0 && part <= 1)) return read.contradiction(part_key, "not above 0 up to 1");
  c.rotary_dim = static_cast<Index>(static_cast<double>(c.head_dim) * static_cast<double>(part) + 1e-6);
  if (c.rotary_dim < 2 || c.rotary_dim % 2 != 0)
    return read.contradiction(part_key, io::detail::text("which rotates ", c.rotary_dim, " of ", c.head_dim, " values"));
  if (read.has("rope_scaling")) {
    ANYBIT_TRY(const io::JsonObject scaling, read.json().object("rope_scaling"));
    return read_scaling(read, scaling, c);
  }
  return read_scaling(read, parameters, c);
}

}  // namespace hf_config

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
