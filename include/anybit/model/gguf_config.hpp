#pragma once
// A configuration out of the metadata of a GGUF file, with every key of the architecture accounted for.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <string_view>

#include <anybit/core/result.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/model/config.hpp>
#include <anybit/model/number_text.hpp>
#include <anybit/model/rope_scaling.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// A key whose value, where a file has it, must be this one: with any other the model computes something else.
struct NeutralKey {
  std::string_view name;  ///< behind the name of the architecture
  double value;           ///< of a bool 0 or 1
};
inline constexpr NeutralKey neutral_keys[] = {
    {"expert_count", 0},        {"expert_used_count", 0},        {"use_parallel_residual", 0},
    {"attention.causal", 1},    {"attention.sliding_window", 0}, {"attention.max_alibi_bias", 0},
    {"attention.clamp_kqv", 0}, {"attn_logit_softcapping", 0},   {"final_logit_softcapping", 0},
    {"logit_scale", 1},         {"embedding_scale", 1},          {"residual_scale", 1},
    {"pooling_type", 0},        {"rope.scaling.attn_factor", 1},
};
/// Keys that describe a model and change nothing that it computes.
inline constexpr std::string_view descriptive_keys[] = {"vocab_size", "tensor_data_layout", "rope.scaling.finetuned",
                                                        "rope.scaling.original_context_length"};

}  // namespace detail

/// Keys of one GGUF file as numbers of the configuration. It remembers which were asked for.
class GgufConfigReader {
 public:
  GgufConfigReader(const io::GgufFile& file, std::string_view architecture)
      : file_(file), architecture_(architecture), prefix_(std::string(architecture) + ".") {}

  bool has(std::string_view name) const { return file_.has(key(name)); }
  const std::string& file() const { return file_.name(); }
  /// Some facts about a model are only in the tensors it has.
  bool has_tensor(std::string_view name) const { return file_.find(name) != nullptr; }
  /// The number of rows of a tensor; 0 where there is none.
  Index rows_of(std::string_view name) const {
    const io::TensorInfo* const t = file_.find(name);
    return t ? t->extents().rows : 0;
  }
  /// "llama.block_count" for "block_count".
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  // Numbers and texts by their names behind that of the architecture.
  Status count(std::string_view name, Index& to) {
    const std::string key = use(name);
    ANYBIT_TRY(const std::uint64_t value, file_.get_u64(key));
    constexpr std::uint64_t limit = std::uint64_t{1} << 31;
    if (value == 0 || value >= limit)
      return {ErrorCode::corrupt_data,
              io::detail::text(file_.name(), ": ", key, " is ", value, ", not 1 to ", limit - 1, ": convert the model again")};
    to = static_cast<Index>(value);
    return Ok{};
  }
  Status count_or(std::string_view name, Index fallback, Index& to) {
    to = fallback;
    return has(name) ? count(name, to) : Status(Ok{});
  }
  /// 0 or more.
  Status size_or(std::string_view name, Index fallback, Index& to) {
    to = fallback;
    const std::string key = use(name);
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(const std::uint64_t value, file_.get_u64(key));
    if (value == 0) to = 0;
    return value == 0 ? Status(Ok{}) : count(name, to);
  }
  Status number_or(std::string_view name, float fallback, float& to) {
    const std::string key = use(name);
    to = fallback;
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(const double value, file_.get_f64(key));
    to = static_cast<float>(value);
    return Ok{};
  }
  Status flag_or(std::string_view name, bool fallback, bool& to) {
    const std::string key = use(name);
    to = fallback;
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(to, file_.get_bool(key));
    return Ok{};
  }
  Status text_or(std::string_view name, std::string_view fallback, std::string& to) {
    const std::string key = use(name);
    to = fallback;
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(to, file_.get_string(key));
    return Ok{};
  }
  Error unsupported(std::string_view name, std::string_view value, std::string_view remedy) const {
    return {ErrorCode::unsupported, io::detail::text(file_.name(), ": ", key(name), " is ", value, ": ", remedy)};
  }

  /// A key of the architecture that nobody asked for may change what the model computes: it is refused by name, unless its
  /// value says that it does not.
  Status all_used() const {
    for (const std::string& key : file_.keys()) {
      if (!key.starts_with(prefix_) || used_.contains(key)) continue;
      const std::string_view name = std::string_view(key).substr(prefix_.size());
      if (std::find(std::begin(detail::descriptive_keys), std::end(detail::descriptive_keys), name) !=
          std::end(detail::descriptive_keys))
        continue;
      const auto* const neutral = std::find_if(std::begin(detail::neutral_keys), std::end(detail::neutral_keys),
                                               [&](const detail::NeutralKey& k) { return k.name == name; });
      if (neutral == std::end(detail::neutral_keys))
        return {ErrorCode::unsupported,
                io::detail::text(file_.name(), ": ", io::detail::shown(key),
                                 " is no key that anybit applies, and it may change what the model computes: use a model "
                                 "without it, or remove the key if it is only a note")};
      double value = 0;
      if (const auto yes = file_.get_bool(key); yes) {
        value = *yes ? 1 : 0;
      } else {
        ANYBIT_TRY(value, file_.get_f64(key));
      }
      if (!(value == neutral->value))
        return unsupported(name, detail::number_text(value),
                           io::detail::text("anybit runs the ", architecture_, " architecture only with ",
                                            detail::number_text(neutral->value), " here, use a model without it"));
    }
    return Ok{};
  }

 private:
  std::string use(std::string_view name) {
    std::string full = key(name);
    used_.insert(full);
    return full;
  }

  const io::GgufFile& file_;
  std::string_view architecture_;
  std::string prefix_;
  std::set<std::string, std::less<>> used_;
};

namespace gguf_config {

/// Positions are divided by rope.scaling.factor, in older files rope.scale_linear, where the type is linear or not given; 0
/// means 1. YaRN's frequencies follow from factor and original context.
inline Status read_rope_scaling(GgufConfigReader& read, DecoderConfig& c) {
  ANYBIT_TRY_STATUS(read.number_or("rope.freq_base", 10000, c.rope_base));
  std::string type;
  float older = 1, factor = 1;
  ANYBIT_TRY_STATUS(read.text_or("rope.scaling.type", "linear", type));
  ANYBIT_TRY_STATUS(read.number_or("rope.scale_linear", 1, older));
  ANYBIT_TRY_STATUS(read.number_or("rope.scaling.factor", older, factor));
  if (type == "yarn" && factor > 1 && c.rotary_dim <= head_dim_limit && read.has("rope.scaling.original_context_length")) {
    Index original = 0;
    ANYBIT_TRY_STATUS(read.count("rope.scaling.original_context_length", original));
    YarnOptions o{.factor = static_cast<double>(factor), .original = static_cast<double>(original)};
    float fast = 32, slow = 1;
    ANYBIT_TRY_STATUS(read.number_or("rope.scaling.yarn_beta_fast", 32, fast));
    ANYBIT_TRY_STATUS(read.number_or("rope.scaling.yarn_beta_slow", 1, slow));
    o.beta_fast = static_cast<double>(fast), o.beta_slow = static_cast<double>(slow);
    if (!(o.beta_fast > 0 && o.beta_slow > 0))
      return read.unsupported("rope.scaling.yarn_beta_fast", std::to_string(fast), "both betas must be above 0, convert again");
    c.rope_factors = yarn_factors(c, o);
    c.rope_magnitude = static_cast<float>(yarn_magnitude(o.factor));
    return Ok{};
  }
  if (type != "none" && type != "linear")
    return read.unsupported("rope.scaling.type", io::detail::shown(type),
                            "anybit knows 'none', 'linear' and 'yarn' with its original context, use a model with one of these");
  c.rope_scale = type == "none" || factor == 0 ? 1 : factor;
  return Ok{};
}

/// Dimensions, norm epsilon and rotary positions. The embedding says how large the vocabulary is, and the architecture in which
/// order rows of q and k lie.
inline Status read_shape(GgufConfigReader& read, DecoderConfig& c) {
  ANYBIT_TRY_STATUS(read.count("embedding_length", c.dim));
  ANYBIT_TRY_STATUS(read.count("feed_forward_length", c.hidden));
  ANYBIT_TRY_STATUS(read.count("block_count", c.blocks));
  ANYBIT_TRY_STATUS(read.count("attention.head_count", c.heads));
  ANYBIT_TRY_STATUS(read.count_or("attention.head_count_kv", c.heads, c.kv_heads));
  if (!read.has("attention.key_length") && c.dim % c.heads != 0)
    return {ErrorCode::corrupt_data,
            io::detail::text(read.file(), ": ", read.key("attention.head_count"), " is ", c.heads,
                             ", which does not divide the embedding length ", c.dim, ": convert the model again")};
  ANYBIT_TRY_STATUS(read.count_or("attention.key_length", c.dim / c.heads, c.head_dim));
  Index value_length = 0;
  ANYBIT_TRY_STATUS(read.count_or("attention.value_length", c.head_dim, value_length));
  if (value_length != c.head_dim)
    return read.unsupported("attention.value_length", std::to_string(value_length),
                            io::detail::text("it must equal the key length ", c.head_dim));
  ANYBIT_TRY_STATUS(read.count_or("rope.dimension_count", c.head_dim, c.rotary_dim));
  ANYBIT_TRY_STATUS(read.count("context_length", c.context));
  ANYBIT_TRY_STATUS(read.number_or(
      c.form.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", 1e-5f, c.norm_epsilon));
  return read_rope_scaling(read, c);
}

}  // namespace gguf_config

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
