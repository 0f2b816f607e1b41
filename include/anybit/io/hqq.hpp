#pragma once
// HQQ checkpoints (HQQLinear's encoded state dict), reading: W_q, scale, zero and metadata as tensors. W = (q - zero) * scale,
// with a zero point that need not be whole. The weight is taken as (groups, group) with axis 1 and (group, groups) with axis 0,
// row-major.

#include <anybit/core/macros_begin.hpp>

#include <string>
#include <string_view>
#include <vector>

#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/checkpoint_tensors.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

/// A packed word holds `fields` codes, the first in the highest bits; code j of a word belongs to the j-th of `fields` equal runs
/// of rows.
struct HqqPacking {
  std::string_view name;
  int bits, fields, word_bytes;
};
inline constexpr HqqPacking hqq_packings[] = {
    {"8bit_u8", 8, 1, 1}, {"4bit_u8", 4, 2, 1}, {"3bit_32", 3, 10, 4}, {"2bit_u8", 2, 4, 1}, {"1bit_u8", 1, 8, 1}};

/// A whole number stored as a tensor of one value.
inline Result<Index> hqq_number(const ModuleTensors& m, std::string_view part) {
  const TensorInfo* const t = m.find(part);
  if (!t || t->size() != 1 || t->dtype.starts_with("F"))
    return m.bad(ErrorCode::corrupt_data, part, t ? " is not one whole number" : " is absent", ": check the checkpoint");
  ANYBIT_TRY(const Matrix value, to_f32(*t));
  return static_cast<Index>(value(0, 0));
}
inline bool hqq_is_set(const ModuleTensors& m, std::string_view part) {
  const auto value = hqq_number(m, part);
  return value.ok() && *value != 0;
}

}  // namespace detail

/// The shape of a module's weights.
inline Result<Extents> hqq_extents(const ModuleTensors& m) {
  ANYBIT_TRY(const TensorInfo* const shape, m.need_shape("shape", {"I64", "I32"}, {2}, "a matrix"));
  return matrix_extents(m, "shape", *shape);
}

/// One module.
inline Result<CheckpointLinear> read_hqq(const ModuleTensors& m) {
  for (const char* nested : {"quant_scale", "quant_zero"})
    if (detail::hqq_is_set(m, nested))
      return m.bad(ErrorCode::unsupported, nested,
                   " is set: scales that are quantized themselves are not read, quantize without");
  ANYBIT_TRY(const Index bits, detail::hqq_number(m, "nbits"));
  ANYBIT_TRY(const Index axis, detail::hqq_number(m, "axis"));
  ANYBIT_TRY(const Extents extents, hqq_extents(m));
  if (bits < 1 || bits > 8 || (axis != 0 && axis != 1))
    return m.bad(ErrorCode::unsupported, "nbits is ", bits, " and axis ", axis,
                 ": give a checkpoint of 1 to 8 bits along axis 0 or 1");
  CheckpointLinear l;
  l.extents = extents;
  l.bits = static_cast<int>(bits);
  const TensorInfo* const scale = m.find("scale");
  const TensorInfo* const zero = m.find("zero");
  const TensorInfo* const words = m.find("W_q");
  if (!scale || !zero || !words)
    return m.bad(ErrorCode::corrupt_data, "there is no tensor ", scale ? zero ? "W_q" : "zero" : "scale",
                 ": give the complete checkpoint");
  ANYBIT_TRY_STATUS(m.need("scale", scale_types, scale->shape.size()));
  ANYBIT_TRY(const TensorInfo* const zeros, m.need("zero", scale_types, zero->shape.size()));
  const Index n = l.extents.size(), count = scale->size();
  if (zeros->size() != count || n % count != 0)
    return m.bad(ErrorCode::shape_mismatch, count, " scales and ", zeros->size(), " zero points for ", l.extents.rows, " x ",
                 l.extents.cols, " weights: check the checkpoint");
  l.group = n / count;
  if (m.find("group_size")) {
    ANYBIT_TRY(const Index stated, detail::hqq_number(m, "group_size"));
    if (stated != l.group)
      return m.bad(ErrorCode::shape_mismatch, "group_size is ", stated, ", but ", n, " weights with ", count, " scales make it ",
                   l.group, ": check the checkpoint");
  }
  l.grouping = axis == 0 ? Grouping::strided : l.extents.cols % l.group == 0 ? Grouping::columns : Grouping::flat;
  ANYBIT_TRY(l.scales, finite_values(m, "scale", *scale));
  ANYBIT_TRY(l.zeros, finite_values(m, "zero", *zeros));

  std::string packing = bits > 4 ? "8bit_u8" : bits == 3 ? "3bit_32" : detail::text(bits, "bit_u8");
  if (const TensorInfo* const stated = m.find("packing"); stated && stated->dtype == "U8") {
    const auto text = values_of<char>(*stated);
    packing.assign(text.begin(), text.end());
  }
  const detail::HqqPacking* layout = nullptr;
  for (const auto& p : detail::hqq_packings)
    if (p.name == packing && p.bits >= bits) layout = &p;
  if (!layout)
    return m.bad(ErrorCode::unsupported, "packing ", detail::shown(packing), " of ", bits,
                 " bits is unknown: save it with the default packing");
  const Index rows = axis == 1 ? count : l.group, cols = n / rows, step = ceil_div(rows, layout->fields);
  if (static_cast<Index>(words->bytes.size()) != step * cols * layout->word_bytes ||
      (layout->word_bytes == 1 && rows % layout->fields != 0))
    return m.bad(ErrorCode::shape_mismatch, "W_q has ", words->bytes.size(), " bytes, but ", rows, " x ", cols,
                 " codes packed as ", layout->name, " need ", step * cols * layout->word_bytes, ": check the checkpoint");
  l.codes.resize(static_cast<std::size_t>(n));
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) {
      const Index at = (r % step) * cols + c;
      std::uint32_t word = 0;
      std::memcpy(&word, words->bytes.data() + at * layout->word_bytes, static_cast<std::size_t>(layout->word_bytes));
      l.codes[static_cast<std::size_t>(r * cols + c)] =
          static_cast<std::uint8_t>(word >> (layout->bits * (layout->fields - 1 - r / step)) & ((1u << layout->bits) - 1));
    }
  for (const std::uint8_t c : l.codes)
    if (c >= 1 << l.bits)
      return m.bad(ErrorCode::corrupt_data, "code ", int{c}, " needs more than ", l.bits, " bits: check the checkpoint");
  return l;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
