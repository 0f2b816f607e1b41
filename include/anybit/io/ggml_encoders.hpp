#pragma once
// Floats as rows of any type that GGUF files are written in.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/io/dtype.hpp>
#include <anybit/io/ggml_encode.hpp>
#include <anybit/io/ggml_encode_search.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace ggml {

inline void encode_f32(const float* x, std::byte* b) { std::memcpy(b, x, sizeof *x); }
inline void encode_f16(const float* x, std::byte* b) { put_f16(b, *x); }
inline void encode_bf16(const float* x, std::byte* b) { put_u16(b, f32_to_bf16(*x)); }

}  // namespace ggml

/// How floats become blocks of the type in io::dtypes with the same name.
struct GgmlEncoder {
  std::string_view name;
  void (*encode)(const float* x, std::byte* block);
  float limit;  ///< no element of larger magnitude comes near what the type can hold
};

/// The most that binary16 scales can reach, and what exponents of 8 bits can.
inline constexpr float f16_scale_limit = 0x1p30f, f32_limit = 0x1.fffffep127f, e8m0_limit = 0x1p120f;

inline constexpr std::array ggml_encoders = {
    GgmlEncoder{"F32", ggml::encode_f32, f32_limit},
    GgmlEncoder{"F16", ggml::encode_f16, f16_scale_limit},
    GgmlEncoder{"BF16", ggml::encode_bf16, f32_limit},
    GgmlEncoder{"Q4_0", ggml::encode_q4_0, f16_scale_limit},
    GgmlEncoder{"Q4_1", ggml::encode_q4_1, f16_scale_limit},
    GgmlEncoder{"Q5_0", ggml::encode_q5_0, f16_scale_limit},
    GgmlEncoder{"Q5_1", ggml::encode_q5_1, f16_scale_limit},
    GgmlEncoder{"Q8_0", ggml::encode_q8_0, f16_scale_limit},
    GgmlEncoder{"Q2_K", ggml::encode_q2_k, f16_scale_limit},
    GgmlEncoder{"Q3_K", ggml::encode_q3_k, f16_scale_limit},
    GgmlEncoder{"Q4_K", ggml::encode_q45_k<false>, f16_scale_limit},
    GgmlEncoder{"Q5_K", ggml::encode_q45_k<true>, f16_scale_limit},
    GgmlEncoder{"Q6_K", ggml::encode_q6_k, f16_scale_limit},
    GgmlEncoder{"IQ4_NL", ggml::encode_iq4_nl, f16_scale_limit},
    GgmlEncoder{"IQ4_XS", ggml::encode_iq4_xs, f16_scale_limit},
    GgmlEncoder{"TQ1_0", ggml::encode_tq1_0, f16_scale_limit},
    GgmlEncoder{"TQ2_0", ggml::encode_tq2_0, f16_scale_limit},
    GgmlEncoder{"MXFP4", ggml::encode_mxfp4, e8m0_limit},
    GgmlEncoder{"NVFP4", ggml::encode_nvfp4, f16_scale_limit},
    GgmlEncoder{"Q1_0", ggml::encode_q1_0, f16_scale_limit},
    GgmlEncoder{"Q2_0", ggml::encode_q2_0, f16_scale_limit},
};

/// Null if the type cannot be written.
constexpr const GgmlEncoder* find_ggml_encoder(std::string_view name) {
  for (const GgmlEncoder& e : ggml_encoders)
    if (e.name == name) return &e;
  return nullptr;
}
/// "F32, F16, ..", for messages.
inline std::string ggml_encoder_names() {
  std::string all;
  for (const GgmlEncoder& e : ggml_encoders) all.append(all.empty() ? "" : ", ").append(e.name);
  return all;
}

/// Of weights, absolute.
struct RoundingError {
  double largest = 0, sum = 0;
  void add(const RoundingError& other) { largest = std::max(largest, other.largest), sum += other.sum; }
};

/// Rows in the type of `encoder`, nearest or by ggml's search, to rows.rows * cols / block_values blocks at `to`. An error where
/// cols is no multiple of the block, a weight is not finite, or the type cannot hold a weight's magnitude; it names the row.
inline Result<RoundingError> encode_rows(const GgmlEncoder& encoder, ConstMatrix rows, std::byte* to) {
  const DType& type = *find_dtype(encoder.name);
  if (rows.cols % type.block_values != 0)
    return {ErrorCode::unsupported, detail::text("rows of ", rows.cols, " values are no multiple of the ", type.block_values,
                                                 " values in a block of ", type.name, ": choose a type with smaller blocks")};
  RoundingError out;
  std::vector<float> decoded(static_cast<std::size_t>(rows.cols));
  for (Index r = 0; r < rows.rows; ++r) {
    const float* const x = rows.row(r).data();
    const auto cannot_hold = [&](Index c) {
      char value[32];
      std::snprintf(value, sizeof value, "%g", static_cast<double>(x[c]));
      return Error{ErrorCode::unsupported, detail::text("row ", r, ", column ", c, " is ", value, ", which ", type.name,
                                                        " cannot hold: correct the weight, or choose BF16 or F32")};
    };
    for (Index c = 0; c < rows.cols; ++c)
      if (!is_finite(x[c]) || std::fabs(x[c]) > encoder.limit) return cannot_hold(c);
    const Index blocks = rows.cols / type.block_values;
    for (Index i = 0; i < blocks; ++i) encoder.encode(x + i * type.block_values, to + i * type.block_bytes);
    type.to_f32(to, blocks, decoded.data());  // in which scales that overflowed show
    for (Index c = 0; c < rows.cols; ++c)
      if (!is_finite(decoded[static_cast<std::size_t>(c)])) {
        const Index first = c / type.block_values * type.block_values;
        const auto* const top = std::max_element(x + first, x + first + type.block_values,
                                                 [](float a, float b) { return std::fabs(a) < std::fabs(b); });
        return cannot_hold(top - x);
      }
    for (Index c = 0; c < rows.cols; ++c) {
      const double error = std::fabs(static_cast<double>(x[c]) - static_cast<double>(decoded[static_cast<std::size_t>(c)]));
      out.add({error, error});
    }
    to += blocks * type.block_bytes;
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
