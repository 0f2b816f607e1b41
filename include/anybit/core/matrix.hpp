#pragma once
// A float matrix that owns its memory.

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/view.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// An owned row-major float matrix, zero at first. It does without Eigen because it crosses interfaces.
class Matrix {
 public:
  Matrix() = default;
  Matrix(Index rows, Index cols)
      : buffer_(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * sizeof(float)), rows_(rows), cols_(cols) {}
  explicit Matrix(ConstMatrix v) : Matrix(v.rows, v.cols) {
    if (v.cols == 0) return;
    for (Index r = 0; r < v.rows; ++r)
      std::memcpy(data() + r * cols_, v.data + r * v.stride, static_cast<std::size_t>(cols_) * sizeof(float));
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Extents extents() const { return {rows_, cols_}; }
  bool empty() const { return rows_ == 0 || cols_ == 0; }
  float* data() { return buffer_.as<float>(); }
  const float* data() const { return buffer_.as<float>(); }
  float& operator()(Index r, Index c) { return data()[r * cols_ + c]; }
  float operator()(Index r, Index c) const { return data()[r * cols_ + c]; }
  MutableMatrix view() { return {data(), rows_, cols_}; }
  ConstMatrix view() const { return {data(), rows_, cols_}; }

 private:
  AlignedBuffer buffer_;
  Index rows_ = 0, cols_ = 0;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
