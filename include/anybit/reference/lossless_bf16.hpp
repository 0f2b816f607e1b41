#pragma once
// bfloat16 without loss (DFloat11: Zhang et al. 2025, arXiv:2504.11651), bit by bit.
//
//   w = (-1)^sign 2^(e - 127) (1 + m / 128):   sign and m, 8 bits, as they are;   e in a canonical Huffman code
//
// A code is complete where sum over e of 2^-length(e) = 1. The canonical code of given lengths counts up: codes rise with their
// length, and at one length with e; a bit more appends a 0.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// The least sum of count(e) * length(e) of any prefix code (Huffman 1952): the two rarest are joined until one is left, and each
/// joint costs its count. Symbols with count 0 have no code; one symbol alone costs a bit.
inline Index huffman_cost(const Row<Index>& counts) {
  Row<Index> left;
  for (const Index n : counts)
    if (n > 0) left.values.push_back(n);
  if (left.size() == 1) return left[0];
  Index cost = 0;
  while (left.size() > 1) {
    std::sort(left.begin(), left.end());
    const Index joint = left[0] + left[1];
    left.values.erase(left.values.begin(), left.values.begin() + 2);
    left.values.push_back(joint);
    cost += joint;
  }
  return cost;
}

/// The code of symbol e at each e; where length(e) is 0 there is none.
inline Row<Index> canonical_code(const Row<Index>& lengths) {
  Row<Index> code(lengths.size());
  Index next = 0;
  for (Index bits = 1; bits <= 16; ++bits, next *= 2)
    for (Index e = 0; e < lengths.size(); ++e)
      if (lengths[e] == bits) code[e] = next++;
  return code;
}

/// The sections of a tensor, as scheme/lossless_bf16.hpp describes them.
struct LosslessBf16Bytes {
  Row<std::uint8_t> code_lengths, offsets, signs_mantissas, exponents;
};

/// Bit patterns of the weights.
inline Table<std::uint16_t> lossless_bf16_words(const LosslessBf16Bytes& bytes, Index rows, Index cols) {
  constexpr Index block = 512, blocks_per_base = 64;
  Row<Index> lengths(256);
  for (Index e = 0; e < 256; ++e) lengths[e] = bytes.code_lengths[e / 2] >> (e % 2 * 4) & 15;
  const Row<Index> code = canonical_code(lengths);
  const Index blocks_per_row = (cols + block - 1) / block, blocks = rows * blocks_per_row;
  const Index bases = (blocks + blocks_per_base - 1) / blocks_per_base;
  const auto number = [&](Index first, Index count) {
    Index value = 0;
    for (Index i = count - 1; i >= 0; --i) value = 256 * value + bytes.offsets[first + i];
    return value;
  };
  Table<std::uint16_t> words(rows, cols);
  Index bit = 0;
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) {
      if (c % block == 0) {
        const Index b = r * blocks_per_row + c / block;
        bit = 8 * (number(8 * (b / blocks_per_base), 8) + number(8 * bases + 2 * b, 2));
      }
      Index read = 0, length = 0, e = 256;
      while (e == 256) {
        read = 2 * read + (bytes.exponents[bit / 8] >> (7 - bit % 8) & 1), ++bit, ++length;
        for (e = 0; e < 256 && !(lengths[e] == length && code[e] == read); ++e) {
        }
      }
      const Index rest = bytes.signs_mantissas[r * cols + c];
      words(r, c) = static_cast<std::uint16_t>(rest / 128 * 32768 + e * 128 + rest % 128);
    }
  return words;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
