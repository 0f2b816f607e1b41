#pragma once
// The architectures that anybit runs. A new one is a file beside this and a line here.

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/edit_distance.hpp>
#include <anybit/model/arch/bart.hpp>
#include <anybit/model/arch/bert.hpp>
#include <anybit/model/arch/falcon.hpp>
#include <anybit/model/arch/gemma.hpp>
#include <anybit/model/arch/gemma2.hpp>
#include <anybit/model/arch/gemma3.hpp>
#include <anybit/model/arch/gpt2.hpp>
#include <anybit/model/arch/gpt_neox.hpp>
#include <anybit/model/arch/gptj.hpp>
#include <anybit/model/arch/llama.hpp>
#include <anybit/model/arch/opt.hpp>
#include <anybit/model/arch/palm.hpp>
#include <anybit/model/arch/phi2.hpp>
#include <anybit/model/arch/phi3.hpp>
#include <anybit/model/arch/qwen2.hpp>
#include <anybit/model/arch/qwen2_moe.hpp>
#include <anybit/model/arch/qwen3.hpp>
#include <anybit/model/arch/qwen3_moe.hpp>
#include <anybit/model/arch/t5.hpp>
#include <anybit/model/arch/whisper.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr std::array architectures{
    &llama_architecture,  &bart_architecture,      &bert_architecture,      &falcon_architecture,   &gemma_architecture,
    &gemma2_architecture, &gemma3_architecture,    &gpt2_architecture,      &gpt_neox_architecture, &gptj_architecture,
    &opt_architecture,    &palm_architecture,      &phi2_architecture,      &phi3_architecture,     &qwen2_architecture,
    &qwen3_architecture,  &qwen2_moe_architecture, &qwen3_moe_architecture, &t5_architecture,       &whisper_architecture};

/// By general.architecture; null if there is none.
inline const Architecture* find_architecture(std::string_view name) {
  for (const Architecture* a : architectures)
    if (a->name == name) return a;
  return nullptr;
}

/// By model_type of config.json; null if there is none.
inline const Architecture* find_model_type(std::string_view type) {
  for (const Architecture* a : architectures)
    if (std::find(a->model_types.begin(), a->model_types.end(), type) != a->model_types.end()) return a;
  return nullptr;
}

namespace detail {
/// "'llama', 'qwen2'", and which of them is nearest to `asked`, unless that is empty.
inline std::string listed(std::span<const std::string_view> names, std::string_view asked) {
  std::string all;
  for (const std::string_view name : names) all.append(all.empty() ? "'" : ", '").append(name).append("'");
  if (asked.empty() || names.empty()) return all;
  const std::string_view word = asked.substr(0, 64);  // a damaged file's name may be of any length
  const std::string_view nearest = *std::min_element(names.begin(), names.end(), [&](std::string_view a, std::string_view b) {
    return edit_distance(word, a) < edit_distance(word, b);
  });
  return all.append(" (nearest in name: '").append(nearest).append("')");
}
}  // namespace detail

/// "'llama', 'qwen2'", those that GGUF has, for messages; and which is nearest to a name that is none of them.
inline std::string architecture_names(std::string_view asked = {}) {
  std::vector<std::string_view> names;
  for (const Architecture* a : architectures)
    if (a->read_gguf) names.push_back(a->name);
  return detail::listed(names, asked);
}
/// Likewise the model types of config.json.
inline std::string model_type_names(std::string_view asked = {}) {
  std::vector<std::string_view> names;
  for (const Architecture* a : architectures) names.insert(names.end(), a->model_types.begin(), a->model_types.end());
  return detail::listed(names, asked);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
