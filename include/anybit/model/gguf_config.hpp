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
  Status number_or(std::string_view name, float fallback, float& to) {
    const std::string key = use(name);
    to = fallback;
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(const double value, file_.get_f64(key));
    to = static_cast<float>(value);
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

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
