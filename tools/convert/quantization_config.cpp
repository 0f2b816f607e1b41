#include "quantization_config.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include <nlohmann/json.hpp>

namespace tool {

using namespace anybit;
using nlohmann::ordered_json;

namespace {

/// A pattern that matches this name only.
std::string exactly(const std::string& name) {
  std::string out = "^";
  for (const char c : name) {
    if (c == '.') out += '\\';
    out += c;
  }
  return out + "$";
}

/// Bits and group of most modules, which the config states for all but exceptions.
std::pair<int, Index> usual(const std::vector<WrittenModule>& modules) {
  std::map<std::pair<int, Index>, int> count;
  for (const WrittenModule& m : modules) ++count[{m.bits, m.group}];
  const auto most =
      std::max_element(count.begin(), count.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == count.end() ? std::pair<int, Index>{4, 128} : most->first;
}

bool has_head(const std::vector<WrittenModule>& modules) {
  return std::any_of(modules.begin(), modules.end(), [](const WrittenModule& m) { return m.name == "lm_head"; });
}

ordered_json gptq_config(Format to, const std::vector<WrittenModule>& modules, const std::vector<std::string>& floats) {
  const auto [bits, group] = usual(modules);
  ordered_json dynamic = ordered_json::object();
  for (const std::string& f : floats)
    if (f != "lm_head") dynamic["-:" + exactly(f)] = ordered_json::object();
  bool ordered = false, symmetric = true;
  for (const WrittenModule& m : modules) {
    ordered = ordered || m.ordered;
    symmetric = symmetric && m.symmetric;
    if (m.bits != bits || m.group != group || m.name == "lm_head")
      dynamic["+:" + exactly(m.name)] = {{"bits", m.bits}, {"group_size", m.group}};
  }
  ordered_json out{{"quant_method", "gptq"},
                   {"checkpoint_format", name_of(to)},
                   {"bits", bits},
                   {"group_size", group},
                   {"desc_act", ordered},
                   {"sym", symmetric},
                   {"lm_head", has_head(modules)},
                   {"pack_dtype", "int32"}};
  if (!dynamic.empty()) out["dynamic"] = std::move(dynamic);
  return out;
}

ordered_json compressed_config(const std::vector<WrittenModule>& modules, const std::vector<std::string>& floats) {
  using Kind = std::tuple<io::Levels, int, Index, bool>;
  std::map<Kind, std::vector<std::string>> kinds;
  for (const WrittenModule& m : modules) kinds[{m.levels, m.bits, m.group, m.symmetric}].push_back(m.name);
  ordered_json groups = ordered_json::object();
  std::string format;
  for (const auto& [kind, names] : kinds) {
    const auto& [levels, bits, group, symmetric] = kind;
    const bool fp4 = levels == io::Levels::e2m1, nvidia = fp4 && group == 16;
    const std::string of_group = nvidia                       ? "nvfp4-pack-quantized"
                                 : fp4                        ? "mxfp4-pack-quantized"
                                 : levels == io::Levels::e4m3 ? "float-quantized"
                                                              : "pack-quantized";
    format = format.empty() || format == of_group ? of_group : "mixed-precision";
    const ordered_json weights{{"num_bits", bits},
                               {"type", levels == io::Levels::integer ? "int" : "float"},
                               {"symmetric", symmetric},
                               {"strategy", group == -1 ? "channel"
                                            : nvidia    ? "tensor_group"
                                                        : "group"},
                               {"group_size", group == -1 ? ordered_json(nullptr) : ordered_json(group)},
                               {"dynamic", false}};
    groups["group_" + std::to_string(groups.size())] = {
        {"targets", kinds.size() == 1 ? ordered_json{"Linear"} : ordered_json(names)},
        {"weights", weights},
        {"input_activations", nullptr},
        {"output_activations", nullptr},
        {"format", of_group}};
  }
  return {{"quant_method", "compressed-tensors"}, {"format", format}, {"quantization_status", "compressed"},
          {"config_groups", std::move(groups)},   {"ignore", floats}, {"version", "0.19.0"}};
}

ordered_json bitsandbytes_config(const std::vector<WrittenModule>& modules, const std::vector<std::string>& floats) {
  const bool four = std::any_of(modules.begin(), modules.end(), [](const WrittenModule& m) { return m.bits == 4; });
  const bool fp4 =
      std::any_of(modules.begin(), modules.end(), [](const WrittenModule& m) { return m.levels == io::Levels::fp4; });
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", four},
          {"load_in_8bit", !four},
          {"bnb_4bit_quant_type", fp4 ? "fp4" : "nf4"},
          {"bnb_4bit_use_double_quant", false},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_compute_dtype", "float16"},
          {"llm_int8_threshold", 6.0},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_skip_modules", floats}};
}

}  // namespace

ordered_json quantization_config(Format to, std::vector<WrittenModule> modules, const std::vector<std::string>& floats) {
  // One group a row goes by the name -1 only where no module has more.
  if (std::all_of(modules.begin(), modules.end(),
                  [](const WrittenModule& m) { return m.group == m.inputs && m.levels != io::Levels::e2m1; }))
    for (WrittenModule& m : modules) m.group = -1;
  switch (to) {
    case Format::awq:
      return {{"quant_method", "awq"},
              {"version", "gemm"},
              {"bits", 4},
              {"group_size", usual(modules).second},
              {"zero_point", true},
              {"modules_to_not_convert", floats}};
    case Format::compressed_tensors: return compressed_config(modules, floats);
    case Format::bitsandbytes: return bitsandbytes_config(modules, floats);
    default: return gptq_config(to, modules, floats);
  }
}

}  // namespace tool
