#pragma once
// GPTQ checkpoints (AutoGPTQ, GPTQModel): qweight (words along inputs, outputs), qzeros (groups, words along outputs), scales
// (groups, outputs) and g_idx, the group of every input. W[out, in] = scales[g_idx[in], out] * (code - zero[g_idx[in], out]).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/checkpoint_tensors.hpp>
#include <anybit/io/checkpoint_words.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// Zero points in qzeros: "gptq" (v1) stores zero - 1, "gptq_v2" and "gptq_p" store zero.
enum class GptqZeros { minus_one, as_is };

/// A module's settings. Widths of 5, 6 and 7 bits exist as planar only; 3 bits as a stream (v1, v2) or planar.
struct GptqFormat {
  int bits = 4;
  Index group = 0;  ///< -1: one group of all inputs; 0: not stated, told from the tensors
  WordLayout layout = WordLayout::dense;
  GptqZeros zeros = GptqZeros::minus_one;
};

namespace detail {

/// v1's subtraction is one subtraction from the whole word, so a field that was 0 borrowed from the next: only adding to the
/// whole word undoes it. Widths that do not divide 32 wrap field by field.
constexpr std::uint32_t gptq_ones(int bits) { return bits == 8 ? 0x01010101u : bits == 4 ? 0x11111111u : 0x55555555u; }

inline Status gptq_check_format(const ModuleTensors& m, const GptqFormat& f) {
  if (f.bits < 2 || f.bits > 8)
    return m.bad(ErrorCode::unsupported, "GPTQ of ", f.bits, " bits is unknown: give a checkpoint of 2 to 8 bits");
  if (f.bits >= 5 && f.bits <= 7 && f.layout != WordLayout::planar)
    return m.bad(ErrorCode::unsupported, f.bits,
                 " bits are stored as checkpoint_format gptq_p only: check the quantization config");
  if (f.group < -1) return m.bad(ErrorCode::corrupt_data, "group_size is ", f.group, ": check the quantization config");
  return Ok{};
}

/// use(output, first input, inputs) of runs of 32 inputs, which are `bits` words at every width; 16 outputs share their lines of
/// memory.
template <class Use>
void for_each_gptq_run(Extents e, Use use) {
  constexpr Index tile = 16;
  for (Index first = 0; first < e.rows; first += tile)
    for (Index c = 0; c < e.cols; c += 32)
      for (Index o = first; o < std::min(e.rows, first + tile); ++o) use(o, c, std::min<Index>(32, e.cols - c));
}

/// Stored zero points (groups x outputs) as they are in the file, without v1's one.
inline std::vector<std::uint8_t> gptq_fields(std::vector<std::uint32_t> words, const GptqFormat& f, Index groups, Index outputs,
                                             GptqZeros zeros) {
  const bool whole = 32 % f.bits == 0;
  if (zeros == GptqZeros::minus_one && whole)
    for (std::uint32_t& w : words) w += gptq_ones(f.bits);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(groups * outputs));
  const Index row_words = words_of(f.layout, f.bits, outputs);
  for (Index g = 0; g < groups; ++g)
    unpack_words(f.layout, f.bits, words.data() + g * row_words, 1, outputs, out.data() + g * outputs);
  if (zeros == GptqZeros::minus_one && !whole)
    for (std::uint8_t& z : out) z = static_cast<std::uint8_t>((z + 1) & ((1 << f.bits) - 1));
  return out;
}

}  // namespace detail

/// The shape of a module's weights, from the shapes of its tensors.
inline Result<Extents> gptq_extents(const ModuleTensors& m, const GptqFormat& f) {
  ANYBIT_TRY_STATUS(detail::gptq_check_format(m, f));
  ANYBIT_TRY(const TensorInfo* const qweight, m.need("qweight", {"I32"}, 2));
  Index inputs = qweight->shape[0] * 32 / f.bits;
  if (m.find("g_idx")) {
    ANYBIT_TRY(const TensorInfo* const g_idx, m.need("g_idx", {"I32"}, 1));
    inputs = g_idx->shape[0];
  }
  if (words_of(f.layout, f.bits, inputs) != qweight->shape[0])
    return m.bad(ErrorCode::shape_mismatch, "qweight has ", qweight->shape[0], " rows of words, but ", f.bits,
                 " bits (the quantization config) and ", inputs, " inputs make ", words_of(f.layout, f.bits, inputs),
                 ": check the config against the tensors");
  return Extents{qweight->shape[1], inputs};
}

/// One module. Contradictions between `f` and the tensors are errors that name both.
inline Result<CheckpointLinear> read_gptq(const ModuleTensors& m, const GptqFormat& f) {
  ANYBIT_TRY(const Extents extents, gptq_extents(m, f));
  ANYBIT_TRY(const TensorInfo* const scales, m.need("scales", scale_types, 2));
  const Index outputs = extents.rows, inputs = extents.cols, groups = scales->shape[0];
  if (scales->shape[1] != outputs)
    return m.bad(ErrorCode::shape_mismatch, "scales has ", scales->shape[1], " outputs and qweight ", outputs,
                 ": check the checkpoint");
  ANYBIT_TRY(const Index group, group_size(m, f.group, inputs, groups, "quantize_config.json"));
  ANYBIT_TRY(const TensorInfo* const qzeros,
             m.need_shape("qzeros", {"I32"}, {groups, words_of(f.layout, f.bits, outputs)},
                          detail::text(outputs, " outputs of ", f.bits, " bits (the quantization config)")));

  CheckpointLinear l;
  l.extents = extents;
  l.bits = f.bits;
  l.group = group;
  bool in_order = true;
  const auto group_of = m.find("g_idx") ? values_of<std::int32_t>(*m.find("g_idx")) : std::vector<std::int32_t>();
  for (std::size_t c = 0; c < group_of.size(); ++c) {
    if (group_of[c] < 0 || group_of[c] >= groups)
      return m.bad(ErrorCode::corrupt_data, "g_idx entry ", c, " is ", group_of[c], " of ", groups,
                   " groups: check the checkpoint");
    in_order = in_order && group_of[c] == static_cast<Index>(c) / group;
  }
  if (!in_order) l.group_of_column.assign(group_of.begin(), group_of.end());
  ANYBIT_TRY(const std::vector<float> by_group, finite_values(m, "scales", *scales));
  l.scales = transposed(by_group, groups, outputs);
  const auto fields = detail::gptq_fields(values_of<std::uint32_t>(*qzeros), f, groups, outputs, f.zeros);
  l.zeros = transposed(std::vector<float>(fields.begin(), fields.end()), groups, outputs);
  const auto words = values_of<std::uint32_t>(*m.find("qweight"));
  l.codes.resize(static_cast<std::size_t>(l.extents.size()));
  detail::for_each_gptq_run(extents, [&](Index o, Index c, Index n) {
    unpack_words(f.layout, f.bits, words.data() + c / 32 * f.bits * outputs + o, outputs, n, l.codes.data() + o * inputs + c);
  });
  return l;
}

/// How a module's data, regardless of metadata, shows its zero points to be stored.
struct GptqEvidence {
  bool certain = false;  ///< every field is the same middle: of 4 bits 7 (v1) or 8 (v2)
  bool likely = false;   ///< weights have about mean 0 in units of their scales one way, and about +-1 the other
  GptqZeros zeros = GptqZeros::minus_one;  ///< of no meaning without either
};

/// Looks at zero points, and with `average`, where they vary (min-max grids) and the width is at most 4 bits, at the mean of at
/// most 64 rows of weights. Wider codes have scales so small that a tensor's own mean may be as large.
inline Result<GptqEvidence> gptq_evidence(const ModuleTensors& m, GptqFormat f, bool average) {
  ANYBIT_TRY_STATUS(detail::gptq_check_format(m, f));
  ANYBIT_TRY(const TensorInfo* const scales, m.need("scales", scale_types, 2));
  const Index groups = scales->shape[0], outputs = scales->shape[1];
  ANYBIT_TRY(const TensorInfo* const qzeros,
             m.need_shape("qzeros", {"I32"}, {groups, words_of(f.layout, f.bits, outputs)},
                          detail::text(outputs, " outputs of ", f.bits, " bits (the quantization config)")));
  const auto stored = detail::gptq_fields(values_of<std::uint32_t>(*qzeros), f, groups, outputs, GptqZeros::as_is);
  const int middle = 1 << (f.bits - 1);
  const auto all = [&](int value) { return std::all_of(stored.begin(), stored.end(), [&](int z) { return z == value; }); };
  if (all(middle)) return GptqEvidence{true, false, GptqZeros::as_is};
  if (all(middle - 1)) return GptqEvidence{true, false, GptqZeros::minus_one};
  if (f.bits > 4 || !average) return GptqEvidence{};
  const auto mean = [&](GptqZeros zeros) -> Result<double> {
    f.zeros = zeros;
    ANYBIT_TRY(const CheckpointLinear l, read_gptq(m, f));
    double sum = 0;
    const Index rows = std::min<Index>(l.extents.rows, 64);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < l.extents.cols; ++c)
        sum += static_cast<double>(static_cast<float>(l.codes[static_cast<std::size_t>(r * l.extents.cols + c)]) -
                                   l.zero(l.scale_index(r, c)));
    return std::fabs(sum / static_cast<double>(rows * l.extents.cols));
  };
  ANYBIT_TRY(const double as_is, mean(GptqZeros::as_is));
  ANYBIT_TRY(const double minus_one, mean(GptqZeros::minus_one));
  constexpr double near = 0.25, far = 0.6;
  if (as_is < near && minus_one > far) return GptqEvidence{false, true, GptqZeros::as_is};
  if (minus_one < near && as_is > far) return GptqEvidence{false, true, GptqZeros::minus_one};
  return GptqEvidence{};
}

/// Why a GPTQ file cannot hold this layer exactly, or Ok: integers of 2 to 8 bits in groups of columns, scales that are binary16,
/// zero points that are codes, extents that fill words.
inline Status gptq_can_hold(const CheckpointLinear& l, const GptqFormat& f) {
  const auto no = [](std::string why) { return Error{ErrorCode::unsupported, "GPTQ: " + std::move(why)}; };
  if (l.levels != Levels::integer || l.grouping != Grouping::columns || l.bits < 2 || l.bits > 8)
    return no("only integers of 2 to 8 bits in groups of columns: quantize again");
  if (l.bits != f.bits) return no(detail::text("the layer has ", l.bits, " bits, not ", f.bits, ": quantize again"));
  const Index step = 32 % f.bits == 0 ? 32 / f.bits : 32;
  if (l.extents.rows % step != 0 || l.extents.cols % step != 0)
    return no(detail::text(l.extents.rows, " x ", l.extents.cols, " is no multiple of ", step,
                           " both ways: leave this layer in float"));
  for (const float s : l.scales)
    if (f16_to_f32(f32_to_f16(s)) != s) return no("a scale is no binary16 number: quantize again");
  for (const float z : l.zeros)
    if (!(z >= 0 && z <= static_cast<float>((1 << l.bits) - 1)) || z != std::floor(z))
      return no("a zero point is no code: quantize again");
  return Ok{};
}

/// The tensors qweight, qzeros, scales and g_idx of a layer that gptq_can_hold().
inline std::vector<OwnedTensor> write_gptq(const std::string& module, const CheckpointLinear& l, const GptqFormat& f) {
  const auto fits = gptq_can_hold(l, f);
  ANYBIT_CHECK(fits.ok(), "write_gptq: ask gptq_can_hold first");
  const Index outputs = l.extents.rows, inputs = l.extents.cols;
  const Index groups = l.groups_per_row(), out_words = words_of(f.layout, f.bits, outputs);
  std::vector<std::uint32_t> qweight(static_cast<std::size_t>(words_of(f.layout, f.bits, inputs) * outputs));
  detail::for_each_gptq_run(l.extents, [&](Index o, Index c, Index n) {
    pack_words(f.layout, f.bits, l.codes.data() + o * inputs + c, n, qweight.data() + c / 32 * f.bits * outputs + o, outputs);
  });
  std::vector<std::uint32_t> qzeros(static_cast<std::size_t>(groups * out_words));
  std::vector<std::uint8_t> fields(static_cast<std::size_t>(outputs));
  const bool whole = 32 % f.bits == 0, minus_one = f.zeros == GptqZeros::minus_one;
  for (Index g = 0; g < groups; ++g) {
    for (Index o = 0; o < outputs; ++o) {
      const int zero = static_cast<int>(l.zero(o * groups + g)) - (minus_one && !whole ? 1 : 0);
      fields[static_cast<std::size_t>(o)] = static_cast<std::uint8_t>(zero & ((1 << f.bits) - 1));
    }
    pack_words(f.layout, f.bits, fields.data(), outputs, qzeros.data() + g * out_words, 1);
  }
  if (minus_one && whole)
    for (std::uint32_t& w : qzeros) w -= detail::gptq_ones(f.bits);
  std::vector<std::int32_t> g_idx(static_cast<std::size_t>(inputs));
  for (Index c = 0; c < inputs; ++c)
    g_idx[static_cast<std::size_t>(c)] = static_cast<std::int32_t>(
        l.group_of_column.empty() ? c / l.group : static_cast<Index>(l.group_of_column[static_cast<std::size_t>(c)]));
  return {owned_tensor(module + ".qweight", "I32", {words_of(f.layout, f.bits, inputs), outputs}, qweight),
          owned_tensor(module + ".qzeros", "I32", {groups, out_words}, qzeros),
          owned_f16(module + ".scales", {groups, outputs}, transposed(l.scales, outputs, groups)),
          owned_tensor(module + ".g_idx", "I32", {inputs}, g_idx)};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
