#pragma once
// The quantization config of a checkpoint: "quantization_config" of config.json, quantize_config.json (GPTQ, AWQ) or
// quant_config.json (AWQ), and what it says about a module.

#include <anybit/core/macros_begin.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/awq.hpp>
#include <anybit/io/compressed_tensors.hpp>
#include <anybit/io/detail/name_pattern.hpp>
#include <anybit/io/gptq.hpp>
#include <anybit/io/json.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

enum class CheckpointMethod { none, gptq, awq, compressed_tensors, fp8, bitsandbytes, hqq, exl3 };

constexpr std::string_view name_of(CheckpointMethod m) {
  constexpr std::string_view names[] = {"none", "gptq", "awq", "compressed-tensors", "fp8", "bitsandbytes", "hqq", "exl3"};
  return names[static_cast<std::size_t>(m)];
}

/// A rule of GPTQModel's "dynamic": the first that matches a module's name decides.
struct GptqRule {
  std::string text;
  detail::NamePattern pattern;
  bool skip = false;  ///< "-:": the module is not quantized
  std::optional<int> bits;
  std::optional<Index> group;
};

/// A config group of compressed-tensors.
struct CompressedGroup {
  std::string name;
  std::vector<std::string> targets;  ///< names of modules, "re:" patterns, or classes ("Linear"), which every module may be
  CompressedFormat format;
};

struct CheckpointConfig {
  CheckpointMethod method = CheckpointMethod::none;
  std::string source;  ///< "config.json: quantization_config", for messages
  GptqFormat gptq;
  bool gptq_zeros_stated = false;
  std::vector<GptqRule> dynamic;
  AwqFormat awq;
  std::vector<CompressedGroup> groups;
  std::vector<std::string> ignore;  ///< of compressed-tensors: names or "re:" patterns
};

namespace detail {

/// A name itself, or a pattern behind "re:".
inline Result<bool> names_module(const std::string& target, std::string_view module, std::string_view source) {
  if (!target.starts_with("re:")) return target == module;
  auto pattern = NamePattern::compile(std::string_view(target).substr(3));
  if (!pattern) return in_context(pattern.error(), source);
  return pattern->matches_start(module);
}

inline Result<int> small_number(const JsonObject& o, std::string_view key, int least, int most) {
  ANYBIT_TRY(const std::int64_t value, o.integer(key));
  if (value < least || value > most) return o.wrong(key, text("a number from ", least, " to ", most));
  return static_cast<int>(value);
}
inline constexpr int largest_group = 1 << 24;

inline Status read_dynamic(const JsonObject& rules, CheckpointConfig& out) {
  for (const std::string_view key : rules.keys()) {
    GptqRule rule;
    rule.text = key;
    std::string_view pattern = key;
    rule.skip = pattern.starts_with("-:");
    if (rule.skip || pattern.starts_with("+:")) pattern.remove_prefix(2);
    auto compiled = NamePattern::compile(pattern);
    if (!compiled) return in_context(compiled.error(), rules.file() + ": " + rules.path("dynamic"));
    rule.pattern = *std::move(compiled);
    if (const JsonValue* const value = rules.find(key); value && value->as<JsonValue::Object>()) {
      ANYBIT_TRY(const JsonObject settings, rules.object(key));
      if (settings.has("bits")) {
        ANYBIT_TRY(rule.bits, small_number(settings, "bits", 2, 8));
      }
      if (settings.has("group_size")) {
        ANYBIT_TRY(rule.group, small_number(settings, "group_size", -1, largest_group));
      }
    }
    out.dynamic.push_back(std::move(rule));
  }
  return Ok{};
}

inline Status read_gptq_config(const JsonObject& o, CheckpointConfig& out) {
  ANYBIT_TRY(out.gptq.bits, small_number(o, "bits", 2, 8));
  if (o.has("group_size")) {
    ANYBIT_TRY(out.gptq.group, small_number(o, "group_size", -1, largest_group));
  }
  if (out.gptq.group == 0) out.gptq.group = -1;
  std::string format = "gptq";  // of AutoGPTQ's first files, which state none
  for (const char* key : {"checkpoint_format", "format"})
    if (o.has(key)) {
      ANYBIT_TRY(format, o.text(key));
      out.gptq_zeros_stated = true;
      break;
    }
  if (format != "gptq" && format != "gptq_v2" && format != "gptq_p")
    return Error{ErrorCode::unsupported, text(o.file(), ": ", o.path("checkpoint_format"), " is ", shown(format),
                                              ", and gptq, gptq_v2 and gptq_p are read: convert the checkpoint")};
  out.gptq.zeros = format == "gptq" ? GptqZeros::minus_one : GptqZeros::as_is;
  out.gptq.layout = format == "gptq_p" ? WordLayout::planar : WordLayout::dense;
  if (o.has("dynamic")) {
    ANYBIT_TRY(const JsonObject rules, o.object("dynamic"));
    ANYBIT_TRY_STATUS(read_dynamic(rules, out));
  }
  return Ok{};
}

inline Status read_awq_config(const JsonObject& o, CheckpointConfig& out) {
  const char* const bits = o.has("bits") ? "bits" : "w_bit";
  const char* const group = o.has("group_size") ? "group_size" : "q_group_size";
  ANYBIT_TRY(out.awq.bits, small_number(o, bits, 1, 8));
  if (o.has(group)) {
    ANYBIT_TRY(out.awq.group, small_number(o, group, -1, largest_group));
  }
  if (out.awq.group == 0) out.awq.group = -1;
  for (const char* key : {"version", "checkpoint_format", "format"})
    if (o.has(key)) {
      ANYBIT_TRY(const std::string version, o.text(key));
      if (version != "gemm" && version != "GEMM")
        return Error{ErrorCode::unsupported, text(o.file(), ": ", o.path(key), " is ", shown(version),
                                                  ", and only AWQ's GEMM order is read: convert the checkpoint to gemm")};
    }
  return Ok{};
}

inline Status read_compressed_config(const JsonObject& o, CheckpointConfig& out) {
  if (o.has("ignore")) {
    ANYBIT_TRY(out.ignore, o.texts("ignore"));
  }
  if (o.has("sparsity_config")) {
    ANYBIT_TRY(const JsonObject sparsity, o.object("sparsity_config"));
    if (sparsity.has("format")) {
      ANYBIT_TRY(const std::string format, sparsity.text("format"));
      if (format != "dense")
        return Error{ErrorCode::unsupported, text(o.file(), ": ", sparsity.path("format"), " is ", shown(format),
                                                  ", and sparse checkpoints are not read: convert it to dense")};
    }
  }
  ANYBIT_TRY(const JsonObject groups, o.object("config_groups"));
  for (const std::string_view key : groups.keys()) {
    if (!groups.has(key)) continue;
    ANYBIT_TRY(const JsonObject group, groups.object(key));
    CompressedGroup g;
    g.name = groups.path(key);
    ANYBIT_TRY(g.targets, group.texts("targets"));
    if (!group.has("weights")) continue;
    ANYBIT_TRY(const JsonObject weights, group.object("weights"));
    ANYBIT_TRY(g.format.bits, small_number(weights, "num_bits", 1, 16));
    if (weights.has("type")) {
      ANYBIT_TRY(const std::string type, weights.text("type"));
      if (type != "int" && type != "float") return weights.wrong("type", "'int' or 'float'");
      g.format.is_float = type == "float";
    }
    const bool grouped = weights.has("group_size");
    if (grouped) {
      ANYBIT_TRY(const int size, small_number(weights, "group_size", -1, largest_group));
      g.format.group = size > 0 ? size : 0;
    }
    if (weights.has("block_structure")) {
      ANYBIT_TRY(const std::vector<double> block, weights.numbers("block_structure"));
      if (block.size() != 2 || !(block[0] >= 1 && block[0] <= largest_group && block[1] >= 1 && block[1] <= largest_group))
        return weights.wrong("block_structure", "two numbers of at least 1");
      g.format.block = {static_cast<Index>(block[0]), static_cast<Index>(block[1])};
      g.format.group = 0;
    }
    out.groups.push_back(std::move(g));
  }
  return Ok{};
}

/// transformers' "fp8" (DeepSeek, Qwen 3): E4M3 with a scale per block of weight_block_size, or one per tensor.
inline Status read_fp8_config(const JsonObject& o, CheckpointConfig& out) {
  CompressedGroup g;
  g.name = out.source;
  g.targets = {"Linear"};
  g.format.bits = 8;
  g.format.is_float = true;
  if (o.has("weight_block_size")) {
    ANYBIT_TRY(const std::vector<double> block, o.numbers("weight_block_size"));
    if (block.size() != 2 || !(block[0] >= 1 && block[0] <= largest_group && block[1] >= 1 && block[1] <= largest_group))
      return o.wrong("weight_block_size", "two numbers of at least 1");
    g.format.block = {static_cast<Index>(block[0]), static_cast<Index>(block[1])};
  }
  out.groups.push_back(std::move(g));
  return Ok{};
}

inline CheckpointMethod method_named(std::string_view name) {
  for (const auto m : {CheckpointMethod::gptq, CheckpointMethod::awq, CheckpointMethod::compressed_tensors, CheckpointMethod::fp8,
                       CheckpointMethod::bitsandbytes, CheckpointMethod::hqq, CheckpointMethod::exl3})
    if (name == name_of(m)) return m;
  return name == "gptqmodel" ? CheckpointMethod::gptq : CheckpointMethod::none;
}

}  // namespace detail

/// A config object; `source` names it in messages. Without "quant_method" it is that of `otherwise`.
inline Result<CheckpointConfig> read_checkpoint_config(const JsonObject& o, std::string source,
                                                       CheckpointMethod otherwise = CheckpointMethod::none) {
  CheckpointConfig out;
  out.source = std::move(source);
  out.method = otherwise;
  if (o.has("quant_method")) {
    ANYBIT_TRY(const std::string method, o.text("quant_method"));
    out.method = detail::method_named(method);
    if (out.method == CheckpointMethod::none)
      return {ErrorCode::unsupported,
              detail::text(o.file(), ": ", o.path("quant_method"), " is ", detail::shown(method),
                           "; gptq, awq, compressed-tensors, fp8, bitsandbytes, hqq and exl3 are read: convert the checkpoint")};
  }
  switch (out.method) {
    case CheckpointMethod::gptq: ANYBIT_TRY_STATUS(detail::read_gptq_config(o, out)); break;
    case CheckpointMethod::awq: ANYBIT_TRY_STATUS(detail::read_awq_config(o, out)); break;
    case CheckpointMethod::compressed_tensors: ANYBIT_TRY_STATUS(detail::read_compressed_config(o, out)); break;
    case CheckpointMethod::fp8: ANYBIT_TRY_STATUS(detail::read_fp8_config(o, out)); break;
    default: break;  // bitsandbytes, HQQ and EXL3 say everything in their tensors
  }
  return out;
}

/// The settings of one GPTQ module; an error where the config says that it is not quantized.
inline Result<GptqFormat> gptq_format_of(const CheckpointConfig& c, std::string_view module) {
  GptqFormat f = c.gptq;
  for (const GptqRule& rule : c.dynamic) {
    if (!rule.pattern.matches_start(module)) continue;
    if (rule.skip)
      return {ErrorCode::corrupt_data,
              detail::text("module ", detail::shown(module), ": its tensors are quantized, but ", c.source, " dynamic ",
                           detail::shown(rule.text), " skips it: correct the config or fetch it again")};
    f.bits = rule.bits.value_or(f.bits);
    f.group = rule.group.value_or(f.group);
    break;
  }
  return f;
}

/// The settings of one module of compressed-tensors: names and patterns go before classes.
inline Result<CompressedFormat> compressed_format_of(const CheckpointConfig& c, std::string_view module) {
  for (const std::string& ignored : c.ignore) {
    ANYBIT_TRY(const bool named, detail::names_module(ignored, module, c.source));
    if (named)
      return {ErrorCode::corrupt_data,
              detail::text("module ", detail::shown(module), ": its tensors are quantized, but ", c.source, " ignore ",
                           detail::shown(ignored), " says that it is not: correct the config or fetch it again")};
  }
  const CompressedGroup* by_class = nullptr;
  for (const CompressedGroup& g : c.groups)
    for (const std::string& target : g.targets) {
      ANYBIT_TRY(const bool named, detail::names_module(target, module, c.source));
      if (named) return g.format;
      const bool is_class = !target.starts_with("re:") && target.find('.') == std::string::npos;
      if (is_class && !by_class) by_class = &g;
    }
  if (by_class) return by_class->format;
  return {ErrorCode::corrupt_data,
          detail::text("module ", detail::shown(module), ": its tensors are quantized, but no config group of ", c.source,
                       " targets it: correct the config or fetch it again")};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
