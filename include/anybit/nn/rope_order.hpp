#pragma once
// The two orders in which files keep the rows that rotary positions turn together.

#include <cstdint>
#include <string_view>

#include <anybit/core/config.hpp>

namespace anybit::nn {
inline namespace ANYBIT_ABI {

/// Which values of a head turn together.
enum class RopeOrder : std::uint8_t {
  pairs,   ///< 2i and 2i + 1, as in the paper: GGUF's llama, llama2.c, GPT-J
  halves,  ///< i and i + rotary_dim / 2: Hugging Face's llama, GGUF's qwen2
};
constexpr std::string_view name(RopeOrder o) { return o == RopeOrder::pairs ? "pairs" : "halves"; }

}  // namespace ANYBIT_ABI
}  // namespace anybit::nn
