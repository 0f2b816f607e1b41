#pragma once
// The architectures that anybit runs. A new one is a file beside this and a line here.

#include <array>
#include <string>
#include <string_view>

#include <anybit/model/arch/llama.hpp>
#include <anybit/model/arch/qwen2.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr std::array<const Architecture*, 2> architectures{&llama_architecture, &qwen2_architecture};

/// By general.architecture; null if there is none.
inline const Architecture* find_architecture(std::string_view name) {
  for (const Architecture* a : architectures)
    if (a->name == name) return a;
  return nullptr;
}

/// "'llama', 'qwen2'", for messages.
inline std::string architecture_names() {
  std::string all;
  for (const Architecture* a : architectures) all.append(all.empty() ? "'" : ", '").append(a->name).append("'");
  return all;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
