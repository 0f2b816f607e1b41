#pragma once
// What the tests of reference/ read from the reference vectors, as matrices of doubles.

#include <string>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/reference/matrix.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"

namespace reference_tests {

namespace ref = anybit::reference;

inline ref::Matrix read(const anybit::io::SafetensorsFile& file, const std::string& name) {
  return ref::matrix_of(*file.read_f32(name));
}

/// X^T X times `factor`.
inline ref::Matrix gram(const ref::Matrix& x, double factor) {
  ref::Matrix h = ref::times_transposed(ref::transposed(x), ref::transposed(x));
  for (double& v : h.values) v *= factor;
  return h;
}

/// sum (a - b)^2 over sum a^2.
inline double relative_square(const ref::Matrix& a, const ref::Matrix& b) {
  double off = 0, all = 0;
  for (anybit::Index r = 0; r < a.rows; ++r)
    for (anybit::Index c = 0; c < a.cols; ++c) off += (a(r, c) - b(r, c)) * (a(r, c) - b(r, c)), all += a(r, c) * a(r, c);
  return off / all;
}

/// Numbers without structure, between -1 and 1.
inline ref::Matrix some_matrix(anybit::Index rows, anybit::Index cols, unsigned seed) {
  ref::Matrix m(rows, cols);
  unsigned state = seed * 2654435761u + 1;
  for (double& v : m.values) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<double>(state >> 8) / (1 << 23) - 1;
  }
  return m;
}

}  // namespace reference_tests
