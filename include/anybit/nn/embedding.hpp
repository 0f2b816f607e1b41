#pragma once
// Rows of a table by token: the first op of a decoder.

#include <cstdint>
#include <span>

#include <anybit/nn/linear.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

/// Row t of x becomes row ids[t] of the table (vocabulary, width); x is (ids, width).
inline void embed(const Linear& table, std::span<const std::int32_t> ids, MutableMatrix x) {
  for (std::size_t t = 0; t < ids.size(); ++t) table.read_row(ids[t], x.row(static_cast<Index>(t)));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn
