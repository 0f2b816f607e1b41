#pragma once
// The types of floating-point numbers that kernels read and write in the caller's memory.

#include <cstdint>

#include <anybit/core/config.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// How a number is stored: a float, IEEE binary16 or bfloat16.
enum class FloatType : std::uint8_t { f32, f16, bf16 };

}  // namespace ANYBIT_ABI
}  // namespace anybit
