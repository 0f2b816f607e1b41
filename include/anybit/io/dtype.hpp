#pragma once
// The element types of model files: their sizes, and their conversion to floats.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

#include <anybit/core/half.hpp>
#include <anybit/core/types.hpp>
#include <anybit/format/minifloat.hpp>
#include <anybit/io/ggml_blocks.hpp>
#include <anybit/io/ggml_iq_blocks.hpp>
#include <anybit/scheme/scale_e8m0.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

/// One element: conversion by value, rounded to nearest (64-bit integers and F64 can lose bits).
template <class T>
void plain_to_f32(const std::byte* b, float* y) {
  T value;
  std::memcpy(&value, b, sizeof value);
  *y = static_cast<float>(value);
}
inline void f16_bytes_to_f32(const std::byte* b, float* y) { *y = ggml::f16(b); }
inline void bf16_bytes_to_f32(const std::byte* b, float* y) {
  *y = bf16_to_f32(static_cast<std::uint16_t>(ggml::u8(b) | ggml::u8(b + 1) << 8));
}

/// One byte that is the code of a Minifloat or the exponent of OCP Microscaling, whose highest one is NaN.
template <class Format>
void minifloat_to_f32(const std::byte* b, float* y) {
  *y = Format::decode(static_cast<Code>(ggml::u8(b)));
}
inline void e8m0_to_f32(const std::byte* b, float* y) {
  *y = ggml::u8(b) == 255 ? std::numeric_limits<float>::quiet_NaN() : ScaleE8M0::decode(ggml::u8(b));
}

}  // namespace detail

/// Elements come in blocks of `block_values` in `block_bytes` bytes; plain types have blocks of one.
struct DType {
  std::string_view name;
  int block_values, block_bytes;
  int gguf_id;  ///< -1: unknown to GGUF
  bool in_safetensors;
  void (*to_f32)(const std::byte* from, Index blocks, float* to);  ///< null: only the size is known
};

namespace detail {

template <int Values, int Bytes, auto Block>
void blocks_to_f32(const std::byte* from, Index blocks, float* to) {
  for (Index i = 0; i < blocks; ++i) Block(from + i * Bytes, to + i * Values);
}
template <int Bytes, auto Element>
constexpr DType plain(std::string_view name, int gguf_id = -1) {
  return {name, 1, Bytes, gguf_id, true, blocks_to_f32<1, Bytes, Element>};
}
template <int Values, int Bytes, auto Block>
constexpr DType gguf_blocks(std::string_view name, int gguf_id) {
  return {name, Values, Bytes, gguf_id, false, blocks_to_f32<Values, Bytes, Block>};
}
constexpr DType plain_size(std::string_view name, int bytes) { return {name, 1, bytes, -1, true, nullptr}; }

}  // namespace detail

// The names of plain types are the same in GGUF and safetensors, so both share their rows.
inline constexpr std::array dtypes = {
    detail::plain<4, detail::plain_to_f32<float>>("F32", 0),
    detail::plain<2, detail::f16_bytes_to_f32>("F16", 1),
    detail::plain<2, detail::bf16_bytes_to_f32>("BF16", 30),
    detail::plain<8, detail::plain_to_f32<double>>("F64", 28),
    detail::plain<1, detail::plain_to_f32<std::int8_t>>("I8", 24),
    detail::plain<2, detail::plain_to_f32<std::int16_t>>("I16", 25),
    detail::plain<4, detail::plain_to_f32<std::int32_t>>("I32", 26),
    detail::plain<8, detail::plain_to_f32<std::int64_t>>("I64", 27),
    detail::plain<1, detail::plain_to_f32<std::uint8_t>>("U8"),
    detail::plain<2, detail::plain_to_f32<std::uint16_t>>("U16"),
    detail::plain<4, detail::plain_to_f32<std::uint32_t>>("U32"),
    detail::plain<8, detail::plain_to_f32<std::uint64_t>>("U64"),
    detail::plain<1, detail::plain_to_f32<std::uint8_t>>("BOOL"),
    detail::plain<1, detail::minifloat_to_f32<Minifloat<4, 3>>>("F8_E4M3"),
    detail::plain<1, detail::minifloat_to_f32<Minifloat<5, 2>>>("F8_E5M2"),
    detail::plain<1, detail::e8m0_to_f32>("F8_E8M0"),
    detail::plain_size("C64", 8),
    detail::gguf_blocks<32, 18, ggml::q4_0>("Q4_0", 2),
    detail::gguf_blocks<32, 20, ggml::q4_1>("Q4_1", 3),
    detail::gguf_blocks<32, 22, ggml::q5_0>("Q5_0", 6),
    detail::gguf_blocks<32, 24, ggml::q5_1>("Q5_1", 7),
    detail::gguf_blocks<32, 34, ggml::q8_0>("Q8_0", 8),
    detail::gguf_blocks<256, 84, ggml::q2_k>("Q2_K", 10),
    detail::gguf_blocks<256, 110, ggml::q3_k>("Q3_K", 11),
    detail::gguf_blocks<256, 144, ggml::q45_k<false>>("Q4_K", 12),
    detail::gguf_blocks<256, 176, ggml::q45_k<true>>("Q5_K", 13),
    detail::gguf_blocks<256, 210, ggml::q6_k>("Q6_K", 14),
    detail::gguf_blocks<32, 36, ggml::q8_1>("Q8_1", 9),
    detail::gguf_blocks<256, 292, ggml::q8_k>("Q8_K", 15),
    detail::gguf_blocks<256, 66, ggml::iq2_xxs>("IQ2_XXS", 16),
    detail::gguf_blocks<256, 74, ggml::iq2_xs>("IQ2_XS", 17),
    detail::gguf_blocks<256, 98, ggml::iq3_xxs>("IQ3_XXS", 18),
    detail::gguf_blocks<256, 50, ggml::iq1_s>("IQ1_S", 19),
    detail::gguf_blocks<32, 18, ggml::iq4_nl>("IQ4_NL", 20),
    detail::gguf_blocks<256, 110, ggml::iq3_s>("IQ3_S", 21),
    detail::gguf_blocks<256, 82, ggml::iq2_s>("IQ2_S", 22),
    detail::gguf_blocks<256, 136, ggml::iq4_xs>("IQ4_XS", 23),
    detail::gguf_blocks<256, 56, ggml::iq1_m>("IQ1_M", 29),
    detail::gguf_blocks<256, 54, ggml::tq1_0>("TQ1_0", 34),
    detail::gguf_blocks<256, 66, ggml::tq2_0>("TQ2_0", 35),
    detail::gguf_blocks<32, 17, ggml::mxfp4>("MXFP4", 39),
    detail::gguf_blocks<64, 36, ggml::nvfp4>("NVFP4", 40),
    detail::gguf_blocks<128, 18, ggml::q1_0>("Q1_0", 41),
    detail::gguf_blocks<64, 18, ggml::q2_0>("Q2_0", 42),
};

/// Null if the table has none.
constexpr const DType* find_dtype(std::string_view name) {
  const auto d = std::find_if(dtypes.begin(), dtypes.end(), [&](const DType& t) { return t.name == name; });
  return d == dtypes.end() ? nullptr : &*d;
}
constexpr const DType* find_gguf_dtype(std::uint32_t id) {
  const auto d = std::find_if(dtypes.begin(), dtypes.end(),
                              [&](const DType& t) { return t.gguf_id >= 0 && static_cast<std::uint32_t>(t.gguf_id) == id; });
  return d == dtypes.end() ? nullptr : &*d;
}

/// The safetensors name of a C++ type.
template <class T>
inline constexpr std::string_view dtype_name_v = "";
template <>
inline constexpr std::string_view dtype_name_v<float> = "F32";
template <>
inline constexpr std::string_view dtype_name_v<double> = "F64";
template <>
inline constexpr std::string_view dtype_name_v<std::int8_t> = "I8";
template <>
inline constexpr std::string_view dtype_name_v<std::int16_t> = "I16";
template <>
inline constexpr std::string_view dtype_name_v<std::int32_t> = "I32";
template <>
inline constexpr std::string_view dtype_name_v<std::int64_t> = "I64";
template <>
inline constexpr std::string_view dtype_name_v<std::uint8_t> = "U8";
template <>
inline constexpr std::string_view dtype_name_v<std::uint16_t> = "U16";
template <>
inline constexpr std::string_view dtype_name_v<std::uint32_t> = "U32";
template <>
inline constexpr std::string_view dtype_name_v<std::uint64_t> = "U64";

}  // namespace ANYBIT_CODE
}  // namespace anybit::io
