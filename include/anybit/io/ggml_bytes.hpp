#pragma once
// Numbers inside ggml's blocks, at any alignment.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <anybit/core/half.hpp>
#include <anybit/core/types.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {
namespace ggml {

inline std::uint8_t u8(const std::byte* b) { return std::to_integer<std::uint8_t>(*b); }
inline std::int8_t i8(const std::byte* b) { return static_cast<std::int8_t>(u8(b)); }
inline std::uint16_t u16(const std::byte* b) { return static_cast<std::uint16_t>(u8(b) | u8(b + 1) << 8); }
inline float f16(const std::byte* b) { return f16_to_f32(u16(b)); }
inline std::uint32_t u32(const std::byte* b) {
  std::uint32_t v;
  std::memcpy(&v, b, sizeof v);
  return v;
}

}  // namespace ggml
}  // namespace ANYBIT_CODE
}  // namespace anybit::io
