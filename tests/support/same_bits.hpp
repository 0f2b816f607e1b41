#pragma once

#include <cstring>

#include <anybit/core/matrix.hpp>

namespace test_support {

inline bool same_bits(const anybit::Matrix& a, const anybit::Matrix& b) {
  return a.extents() == b.extents() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.extents().size()) * sizeof(float)) == 0;
}

}  // namespace test_support
