#pragma once
// The architectures that anybit runs. A new one is a file beside this and a line here.

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

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

/// "'llama', 'qwen2'", those that GGUF has, for messages.
inline std::string architecture_names() {
  std::string all;
  for (const Architecture* a : architectures)
    if (a->read_gguf) all.append(all.empty() ? "'" : ", '").append(a->name).append("'");
  return all;
}
/// Likewise the model types of config.json.
inline std::string model_type_names() {
  std::string all;
  for (const Architecture* a : architectures)
    for (const std::string_view type : a->model_types) all.append(all.empty() ? "'" : ", '").append(type).append("'");
  return all;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
