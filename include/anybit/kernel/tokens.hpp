#pragma once
// The two sides of a product as an engine holds them: activations that enter and results that leave, in 32 or 16 bits, at any
// stride, all rows of a matrix or those of a list.

#include <cstdint>
#include <span>

#include <anybit/core/config.hpp>
#include <anybit/core/float_type.hpp>
#include <anybit/core/types.hpp>
#include <anybit/core/view.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// x of y = x W^T. Token t is row t of a matrix, or row list[t].
struct InputTokens {
  const void* data = nullptr;
  FloatType type = FloatType::f32;
  Index tokens = 0, cols = 0, stride = 0;  ///< in elements
  const std::int32_t* list = nullptr;

  InputTokens() = default;
  InputTokens(ConstMatrix x)  // NOLINT(google-explicit-constructor)
      : data(x.data), tokens(x.rows), cols(x.cols), stride(x.stride) {}
  InputTokens(MutableMatrix x) : InputTokens(ConstMatrix(x)) {}  // NOLINT(google-explicit-constructor)
  InputTokens(const float* data_, Index tokens_, Index cols_) : InputTokens(ConstMatrix(data_, tokens_, cols_)) {}
  InputTokens(const void* data_, FloatType type_, Index tokens_, Index cols_, Index stride_)
      : data(data_), type(type_), tokens(tokens_), cols(cols_), stride(stride_) {}

  /// Rows list[0], list[1], .. of this matrix, in that order; a row may come again. The list must outlive the result.
  ANYBIT_INLINE InputTokens at(std::span<const std::int32_t> rows) const {
    for (const std::int32_t r : rows)
      ANYBIT_CHECK(0 <= r && r < tokens, "InputTokens::at: the list names a row that is not there");
    InputTokens some = *this;
    some.tokens = static_cast<Index>(rows.size()), some.list = rows.data();
    return some;
  }

  bool in_floats() const { return type == FloatType::f32; }
  /// Of the matrix that token t is in.
  Index row(Index t) const { return list ? list[t] : t; }
  const float* floats(Index t) const { return static_cast<const float*>(data) + row(t) * stride; }
  const std::uint16_t* halves(Index t) const { return static_cast<const std::uint16_t*>(data) + row(t) * stride; }
};

/// y of y = x W^T, (tokens, outputs), and what happens to a result on its way there:
///   y = (y if accumulate) + factor of the token * (product + bias)
/// computed in float and rounded once to the type of y.
struct OutputTokens {
  void* data = nullptr;
  FloatType type = FloatType::f32;
  Index tokens = 0, cols = 0, stride = 0;  ///< in elements
  const std::int32_t* list = nullptr;
  bool accumulate = false;
  const float* bias = nullptr;     ///< one for each output
  const float* factors = nullptr;  ///< one for each token: the weight of an expert

  OutputTokens() = default;
  OutputTokens(MutableMatrix y)  // NOLINT(google-explicit-constructor)
      : data(y.data), tokens(y.rows), cols(y.cols), stride(y.stride) {}
  OutputTokens(float* data_, Index tokens_, Index cols_) : OutputTokens(MutableMatrix(data_, tokens_, cols_)) {}
  OutputTokens(void* data_, FloatType type_, Index tokens_, Index cols_, Index stride_)
      : data(data_), type(type_), tokens(tokens_), cols(cols_), stride(stride_) {}

  /// Token t goes to row list[t]. Where a row comes again, accumulate: else which of its tokens stays is not said.
  ANYBIT_INLINE OutputTokens at(std::span<const std::int32_t> rows) const {
    for (const std::int32_t r : rows)
      ANYBIT_CHECK(0 <= r && r < tokens, "OutputTokens::at: the list names a row that is not there");
    OutputTokens some = *this;
    some.tokens = static_cast<Index>(rows.size()), some.list = rows.data();
    return some;
  }
  OutputTokens added() const {
    OutputTokens some = *this;
    some.accumulate = true;
    return some;
  }
  ANYBIT_INLINE OutputTokens with_bias(std::span<const float> b) const {
    ANYBIT_CHECK(static_cast<Index>(b.size()) == cols, "OutputTokens::with_bias: one value for each output");
    OutputTokens some = *this;
    some.bias = b.data();
    return some;
  }
  /// After at(): one factor for each token of the list.
  ANYBIT_INLINE OutputTokens times(std::span<const float> f) const {
    ANYBIT_CHECK(static_cast<Index>(f.size()) == tokens, "OutputTokens::times: one factor for each token");
    OutputTokens some = *this;
    some.factors = f.data();
    return some;
  }

  Index row(Index t) const { return list ? list[t] : t; }
  /// Whether products are what is stored, where a matrix of floats has them.
  bool plain() const { return type == FloatType::f32 && !list && !accumulate && !bias && !factors; }
  MutableMatrix matrix() const { return {static_cast<float*>(data), tokens, cols, stride}; }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
