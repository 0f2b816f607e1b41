#pragma once
// AWQ checkpoints in the GEMM order (AutoAWQ "version": "gemm"): qweight (inputs, words along outputs), qzeros (groups, words
// along outputs), scales (groups, outputs); 4 bits. W[out, in] = scales[in / group, out] * (code - zero[in / group, out]).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/checkpoint_tensors.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// The output, of the eight of a word, whose code stands in the word's i-th 4 bits, counted from the lowest.
inline constexpr std::array<int, 8> awq_order = {0, 2, 4, 6, 1, 3, 5, 7};

struct AwqFormat {
  int bits = 4;     ///< 4 is all there is
  Index group = 0;  ///< -1: one group of all inputs; 0: not stated, told from the tensors
};

/// The shape of a module's weights, from the shapes of its tensors.
inline Result<Extents> awq_extents(const ModuleTensors& m) {
  ANYBIT_TRY(const TensorInfo* const qweight, m.need("qweight", {"I32"}, 2));
  return Extents{8 * qweight->shape[1], qweight->shape[0]};
}

/// One module. Contradictions between `f` and the tensors are errors that name both.
inline Result<CheckpointLinear> read_awq(const ModuleTensors& m, const AwqFormat& f) {
  if (f.bits != 4)
    return m.bad(ErrorCode::unsupported, "AWQ of ", f.bits, " bits has no GEMM order: give a checkpoint of 4 bits");
  if (f.group < -1) return m.bad(ErrorCode::corrupt_data, "group_size is ", f.group, ": check the quantization config");
  ANYBIT_TRY(const TensorInfo* const qweight, m.need("qweight", {"I32"}, 2));
  ANYBIT_TRY(const TensorInfo* const scales, m.need("scales", scale_types, 2));
  const Index inputs = qweight->shape[0], words = qweight->shape[1], outputs = 8 * words, groups = scales->shape[0];
  if (scales->shape[1] != outputs)
    return m.bad(ErrorCode::shape_mismatch, "scales has ", scales->shape[1], " outputs, but ", words,
                 " words of 8 codes (AWQ's GEMM order) make ", outputs,
                 ": check the quantization config; GEMV checkpoints are not read, convert them to version gemm");
  ANYBIT_TRY(const Index group, group_size(m, f.group, inputs, groups, "config.json"));
  ANYBIT_TRY(const TensorInfo* const qzeros, m.need_shape("qzeros", {"I32"}, {groups, words}, detail::text(outputs, " outputs")));
  CheckpointLinear l;
  l.extents = {outputs, inputs};
  l.group = group;
  ANYBIT_TRY(const std::vector<float> by_group, finite_values(m, "scales", *scales));
  l.scales = transposed(by_group, groups, outputs);
  const auto zero_words = values_of<std::uint32_t>(*qzeros), weight_words = values_of<std::uint32_t>(*qweight);
  l.zeros.resize(l.scales.size());
  for (Index g = 0; g < groups; ++g)
    for (Index w = 0; w < words; ++w)
      for (std::size_t i = 0; i < 8; ++i)
        l.zeros[static_cast<std::size_t>((8 * w + awq_order[i]) * groups + g)] =
            static_cast<float>(zero_words[static_cast<std::size_t>(g * words + w)] >> (4 * i) & 15);
  l.codes.resize(static_cast<std::size_t>(l.extents.size()));
  // A tile of 16 words (a line of memory) by 64 inputs is turned in a buffer, because rows of codes may be a power of two apart.
  constexpr Index tile_words = 16, tile_inputs = 64;
  std::array<std::uint8_t, static_cast<std::size_t>(8 * tile_words * tile_inputs)> tile;
  for (Index first = 0; first < words; first += tile_words)
    for (Index c = 0; c < inputs; c += tile_inputs) {
      const Index last = std::min(words, first + tile_words), n = std::min(tile_inputs, inputs - c);
      for (Index k = 0; k < n; ++k)
        for (Index w = first; w < last; ++w) {
          const std::uint32_t word = weight_words[static_cast<std::size_t>((c + k) * words + w)];
          for (std::size_t i = 0; i < 8; ++i)
            tile[static_cast<std::size_t>((8 * (w - first) + awq_order[i]) * tile_inputs + k)] =
                static_cast<std::uint8_t>(word >> (4 * i) & 15);
        }
      for (Index o = 0; o < 8 * (last - first); ++o)
        std::memcpy(l.codes.data() + (8 * first + o) * inputs + c, tile.data() + o * tile_inputs, static_cast<std::size_t>(n));
    }
  return l;
}

/// Why an AWQ file cannot hold this layer exactly, or Ok.
inline Status awq_can_hold(const CheckpointLinear& l) {
  const auto no = [](std::string why) { return Error{ErrorCode::unsupported, "AWQ: " + std::move(why)}; };
  if (l.levels != Levels::integer || l.grouping != Grouping::columns || l.bits != 4)
    return no("only integers of 4 bits in groups of columns: quantize again");
  if (!l.group_of_column.empty()) return no("it has no place for an order of columns (act-order): quantize again without");
  if (l.extents.rows % 8 != 0)
    return no(detail::text(l.extents.rows, " outputs are no multiple of 8: leave this layer in float"));
  if (l.extents.cols % l.group != 0)
    return no(detail::text("groups of ", l.group, " do not divide ", l.extents.cols, " inputs: leave this layer in float"));
  for (const float s : l.scales)
    if (f16_to_f32(f32_to_f16(s)) != s) return no("a scale is no binary16 number: quantize again");
  for (const float z : l.zeros)
    if (!(z >= 0 && z <= 15) || z != std::floor(z)) return no("a zero point is no code: quantize again");
  return Ok{};
}

/// The tensors qweight, qzeros and scales of a layer that awq_can_hold().
inline std::vector<OwnedTensor> write_awq(const std::string& module, const CheckpointLinear& l) {
  const auto fits = awq_can_hold(l);
  ANYBIT_CHECK(fits.ok(), "write_awq: ask awq_can_hold first");
  const Index outputs = l.extents.rows, inputs = l.extents.cols;
  const Index groups = l.groups_per_row(), words = outputs / 8;
  const auto word = [&](auto field, Index w) {
    std::uint32_t all = 0;
    for (std::size_t i = 0; i < 8; ++i) all |= static_cast<std::uint32_t>(field(8 * w + awq_order[i])) << (4 * i);
    return all;
  };
  std::vector<std::uint32_t> qweight(static_cast<std::size_t>(inputs * words)), qzeros(static_cast<std::size_t>(groups * words));
  for (Index c = 0; c < inputs; ++c)
    for (Index w = 0; w < words; ++w)
      qweight[static_cast<std::size_t>(c * words + w)] =
          word([&](Index o) { return l.codes[static_cast<std::size_t>(o * inputs + c)]; }, w);
  for (Index g = 0; g < groups; ++g)
    for (Index w = 0; w < words; ++w)
      qzeros[static_cast<std::size_t>(g * words + w)] = word([&](Index o) { return l.zero(o * groups + g); }, w);
  return {owned_tensor(module + ".qweight", "I32", {inputs, words}, qweight),
          owned_tensor(module + ".qzeros", "I32", {groups, words}, qzeros),
          owned_f16(module + ".scales", {groups, outputs}, transposed(l.scales, outputs, groups))};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
