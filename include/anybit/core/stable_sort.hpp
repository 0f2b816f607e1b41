#pragma once
// std::stable_sort without the temporary buffer of libstdc++, about whose deprecated function clang warns in the caller's code.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

#include <anybit/core/config.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Sorts [first, last) by less(a, b); equal elements keep their order. Call it by its full name: std has one of this name, too.
template <std::random_access_iterator It, class Less>
void stable_sort(It first, It last, Less less) {
  using T = std::iter_value_t<It>;
  const std::ptrdiff_t n = last - first;
  constexpr std::ptrdiff_t run = 8;
  for (std::ptrdiff_t begin = 0; begin < n; begin += run)
    for (std::ptrdiff_t i = begin + 1; i < std::min(begin + run, n); ++i) {
      T moving = std::move(first[i]);
      std::ptrdiff_t to = i;
      for (; to > begin && less(moving, first[to - 1]); --to) first[to] = std::move(first[to - 1]);
      first[to] = std::move(moving);
    }
  if (n <= run) return;
  std::vector<T> buffer(std::make_move_iterator(first), std::make_move_iterator(last));
  // Runs of `width` elements are in order, and in the buffer; after an even number of passes they are there again.
  bool in_buffer = true;
  const auto pass = [&](auto from, auto to, std::ptrdiff_t width) {
    for (std::ptrdiff_t begin = 0; begin < n; begin += 2 * width) {
      const std::ptrdiff_t middle = std::min(begin + width, n), end = std::min(begin + 2 * width, n);
      std::merge(std::make_move_iterator(from + begin), std::make_move_iterator(from + middle),
                 std::make_move_iterator(from + middle), std::make_move_iterator(from + end), to + begin,
                 [&](const T& a, const T& b) { return less(a, b); });
    }
  };
  for (std::ptrdiff_t width = run; width < n; width *= 2, in_buffer = !in_buffer) {
    if (in_buffer)
      pass(buffer.begin(), first, width);
    else
      pass(first, buffer.begin(), width);
  }
  if (in_buffer) std::move(buffer.begin(), buffer.end(), first);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
