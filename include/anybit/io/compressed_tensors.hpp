#pragma once
// compressed-tensors (llm-compressor, vLLM): weights of a module, (outputs, inputs), as
//   pack-quantized         weight_packed I32 (outputs, words along inputs), weight_shape, weight_scale, weight_zero_point
//   int-, float-quantized  weight I8 or F8_E4M3, weight_scale, weight_zero_point
//   mxfp4-pack-quantized   weight_packed U8, two E2M1 codes a byte, the first in the lower half; weight_scale U8, an exponent
//   nvfp4-pack-quantized   the same codes; weight_scale F8_E4M3, divided by weight_global_scale
// transformers' "fp8" is float-quantized with weight_scale_inv, which multiplies too, in place of weight_scale.
// Integers are two's complement; packed ones are stored as code + 2^(bits-1), zero points too.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/checkpoint_tensors.hpp>
#include <anybit/io/checkpoint_words.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// The "weights" of a config group.
struct CompressedFormat {
  int bits = 4;
  bool is_float = false;
  Index group = 0;                   ///< 0: by output channel, tensor, or block
  std::array<Index, 2> block{0, 0};  ///< rows x columns that share a scale; 0: none
};

namespace detail {

/// Words and zero points of widths that do not divide 32 were padded before June 2026 and are dense since; both are called
/// pack-quantized. Their number tells, and where it does not (in = 70 at 3 bits) the bits that padding leaves 0.
inline std::optional<WordLayout> compressed_layout(int bits, Index n, Index words, const std::vector<std::uint32_t>& all) {
  if (words == words_of(WordLayout::dense, bits, n) && words == words_of(WordLayout::padded, bits, n)) {
    const int used = 32 / bits * bits;
    const bool empty = used == 32 || std::all_of(all.begin(), all.end(), [&](std::uint32_t w) { return w >> used == 0; });
    return empty ? WordLayout::padded : WordLayout::dense;
  }
  if (words == words_of(WordLayout::dense, bits, n)) return WordLayout::dense;
  if (words == words_of(WordLayout::padded, bits, n)) return WordLayout::padded;
  return std::nullopt;
}

/// The shape of a module's weights, from the shapes of its tensors.
inline Result<Extents> compressed_extents(const ModuleTensors& m) {
  const TensorInfo* const packed = m.find("weight_packed");
  if (packed && packed->dtype != "U8") {
    ANYBIT_TRY(const TensorInfo* const shape, m.need_shape("weight_shape", {"I64", "I32"}, {2}, "a matrix"));
    return matrix_extents(m, "weight_shape", *shape);
  }
  ANYBIT_TRY(const TensorInfo* const weight, m.need(packed ? "weight_packed" : "weight", {"U8", "I8", "F8_E4M3"}, 2));
  return Extents{weight->shape[0], weight->shape[1] * (packed ? 2 : 1)};
}

inline std::string grid_text(const CompressedFormat& f) {
  if (f.group > 0) return text("group_size ", f.group, " (the quantization config)");
  if (f.block[0] > 0) return text("blocks of ", f.block[0], " x ", f.block[1], " (the quantization config)");
  return "one scale per output or tensor (the quantization config)";
}

/// Extents and groups of l are set; reads weight_scale as `scales`, (outputs, groups), or spread from a tensor's or blocks'.
inline Status read_compressed_scales(const ModuleTensors& m, const CompressedFormat& f, CheckpointLinear& l) {
  const std::string part = m.find("weight_scale_inv") ? "weight_scale_inv" : "weight_scale";
  const TensorInfo* const t = m.find(part);
  if (!t) return m.bad(ErrorCode::corrupt_data, "there is no tensor weight_scale: give the complete checkpoint");
  ANYBIT_TRY_STATUS(m.need(part, scale_types, t->shape.size()));
  ANYBIT_TRY(const std::vector<float> values, finite_values(m, part, *t));
  const Index outputs = l.extents.rows, groups = l.groups_per_row();
  if (f.block[0] > 0) {
    const std::vector<Index> needed{ceil_div(outputs, f.block[0]), groups};
    if (t->shape != needed)
      return m.bad(ErrorCode::shape_mismatch, part, " is ", ModuleTensors::extents_text(t->shape), ", but ", grid_text(f),
                   " make it ", ModuleTensors::extents_text(needed), ": check the config against the tensors");
    for (Index r = 0; r < outputs; ++r)
      l.scales.insert(l.scales.end(), values.begin() + r / f.block[0] * groups, values.begin() + (r / f.block[0] + 1) * groups);
    return Ok{};
  }
  if (t->size() == 1 && f.group == 0 && outputs * groups != 1) {
    l.scales.assign(static_cast<std::size_t>(outputs * groups), values[0]);
    return Ok{};
  }
  const std::vector<Index> needed{outputs, groups};
  if (t->shape != needed && !(f.group == 0 && t->size() == outputs && t->shape.size() == 1))
    return m.bad(ErrorCode::shape_mismatch, part, " is ", ModuleTensors::extents_text(t->shape), ", but ", grid_text(f),
                 " makes it ", ModuleTensors::extents_text(needed), ": check the config against the tensors");
  l.scales = values;
  return Ok{};
}

/// weight_zero_point, if there is one: words along outputs (groups behind), or I8 (outputs, groups).
inline Status read_compressed_zeros(const ModuleTensors& m, CheckpointLinear& l) {
  const TensorInfo* const t = m.find("weight_zero_point");
  if (!t) return Ok{};
  const Index outputs = l.extents.rows, groups = l.groups_per_row();
  if (t->dtype == "I8") {
    ANYBIT_TRY_STATUS(m.need("weight_zero_point", {"I8"}, t->shape.size()));
    const auto values = values_of<std::int8_t>(*t);
    if (t->size() != 1 && t->size() != outputs * groups)
      return m.bad(ErrorCode::shape_mismatch, "weight_zero_point is ", ModuleTensors::extents_text(t->shape), " for scales of ",
                   outputs, " x ", groups, ": check the checkpoint");
    l.zeros.resize(static_cast<std::size_t>(outputs * groups));
    for (std::size_t i = 0; i < l.zeros.size(); ++i)
      l.zeros[i] = static_cast<float>(values[values.size() == 1 ? 0 : i]) + l.middle();
    return Ok{};
  }
  ANYBIT_TRY_STATUS(m.need("weight_zero_point", {"I32"}, 2));
  const auto words = values_of<std::uint32_t>(*t);
  const auto layout = t->shape[1] == groups ? compressed_layout(l.bits, outputs, t->shape[0], words) : std::nullopt;
  if (!layout)
    return m.bad(ErrorCode::shape_mismatch, "weight_zero_point is ", ModuleTensors::extents_text(t->shape), ", but ", outputs,
                 " outputs of ", l.bits, " bits in ", groups, " groups make it ", words_of(WordLayout::dense, l.bits, outputs),
                 " x ", groups, ": check the quantization config against the tensors");
  std::vector<std::uint8_t> column(static_cast<std::size_t>(outputs));
  l.zeros.resize(static_cast<std::size_t>(outputs * groups));
  for (Index g = 0; g < groups; ++g) {
    unpack_words(*layout, l.bits, words.data() + g, groups, outputs, column.data());
    for (Index o = 0; o < outputs; ++o)
      l.zeros[static_cast<std::size_t>(o * groups + g)] = static_cast<float>(column[static_cast<std::size_t>(o)]);
  }
  return Ok{};
}

/// weight_g_idx of older files with actorder "group"; -1 everywhere means that there is none.
inline Status read_compressed_order(const ModuleTensors& m, CheckpointLinear& l) {
  if (!m.find("weight_g_idx")) return Ok{};
  ANYBIT_TRY(const TensorInfo* const t, m.need_shape("weight_g_idx", {"I32"}, {l.extents.cols}, "the number of inputs"));
  const auto groups = values_of<std::int32_t>(*t);
  if (std::all_of(groups.begin(), groups.end(), [](std::int32_t g) { return g == -1; })) return Ok{};
  bool in_order = true;
  for (std::size_t c = 0; c < groups.size(); ++c) {
    if (groups[c] < 0 || groups[c] >= l.groups_per_row())
      return m.bad(ErrorCode::corrupt_data, "weight_g_idx entry ", c, " is ", groups[c], " of ", l.groups_per_row(),
                   " groups: check the checkpoint");
    in_order = in_order && groups[c] == static_cast<Index>(c) / l.group;
  }
  if (!in_order) l.group_of_column.assign(groups.begin(), groups.end());
  return Ok{};
}

inline void set_columns(const CompressedFormat& f, CheckpointLinear& l) {
  l.group = f.group > 0 ? f.group : f.block[1] > 0 ? f.block[1] : l.extents.cols;
}

inline Result<CheckpointLinear> read_pack_quantized(const ModuleTensors& m, const CompressedFormat& f) {
  if (f.is_float || f.bits < 1 || f.bits > 8)
    return m.bad(ErrorCode::corrupt_data, "weight_packed is I32, but the quantization config says ", f.bits,
                 f.is_float ? " bits of type float" : " bits", ": check the config against the tensors");
  ANYBIT_TRY(const TensorInfo* const packed, m.need("weight_packed", {"I32"}, 2));
  CheckpointLinear l;
  l.bits = f.bits;
  ANYBIT_TRY(l.extents, compressed_extents(m));
  const auto words = values_of<std::uint32_t>(*packed);
  const auto layout =
      packed->shape[0] == l.extents.rows ? compressed_layout(f.bits, l.extents.cols, packed->shape[1], words) : std::nullopt;
  if (!layout)
    return m.bad(ErrorCode::shape_mismatch, "weight_packed is ", ModuleTensors::extents_text(packed->shape),
                 ", but weight_shape ", l.extents.rows, " x ", l.extents.cols, " and ", f.bits,
                 " bits (the quantization config) make it ", l.extents.rows, " x ",
                 words_of(WordLayout::dense, f.bits, l.extents.cols), ": check the config against the tensors");
  set_columns(f, l);
  ANYBIT_TRY_STATUS(read_compressed_scales(m, f, l));
  ANYBIT_TRY_STATUS(read_compressed_zeros(m, l));
  ANYBIT_TRY_STATUS(read_compressed_order(m, l));
  l.codes.resize(static_cast<std::size_t>(l.extents.size()));
  for (Index r = 0; r < l.extents.rows; ++r)
    unpack_words(*layout, f.bits, words.data() + r * packed->shape[1], 1, l.extents.cols, l.codes.data() + r * l.extents.cols);
  return l;
}

inline Result<CheckpointLinear> read_byte_quantized(const ModuleTensors& m, const CompressedFormat& f) {
  ANYBIT_TRY(const TensorInfo* const weight, m.need("weight", {"I8", "F8_E4M3"}, 2));
  CheckpointLinear l;
  const bool is_float = weight->dtype != "I8";
  if (is_float != f.is_float || f.bits > 8)
    return m.bad(ErrorCode::corrupt_data, "weight has type ", weight->dtype, ", but the quantization config says ", f.bits,
                 " bits of type ", f.is_float ? "float" : "int", ": check the config against the tensors");
  l.levels = is_float ? Levels::e4m3 : Levels::integer;
  l.bits = 8;
  l.extents = {weight->shape[0], weight->shape[1]};
  set_columns(f, l);
  ANYBIT_TRY_STATUS(read_compressed_scales(m, f, l));
  l.codes = values_of<std::uint8_t>(*weight);
  if (!is_float) {
    ANYBIT_TRY_STATUS(read_compressed_zeros(m, l));
    for (std::uint8_t& c : l.codes) c ^= 0x80;
  } else if (std::any_of(l.codes.begin(), l.codes.end(), [](std::uint8_t c) { return (c & 0x7F) == 0x7F; })) {
    return m.bad(ErrorCode::not_finite, "weight holds a NaN: check the checkpoint");
  }
  ANYBIT_TRY_STATUS(read_compressed_order(m, l));
  return l;
}

inline Result<CheckpointLinear> read_fp4_packed(const ModuleTensors& m, const CompressedFormat& f) {
  if (!f.is_float || f.bits != 4)
    return m.bad(ErrorCode::corrupt_data, "weight_packed is U8, which is 4 bits of type float, but the quantization config says ",
                 f.bits, " bits of type ", f.is_float ? "float" : "int", ": check the config against the tensors");
  ANYBIT_TRY(const TensorInfo* const packed, m.need("weight_packed", {"U8"}, 2));
  const bool nvidia = m.find("weight_global_scale") != nullptr;
  CheckpointLinear l;
  l.levels = Levels::e2m1;
  l.extents = {packed->shape[0], 2 * packed->shape[1]};
  l.group = f.group > 0 ? f.group : nvidia ? 16 : 32;
  const std::vector<Index> scales_shape{l.extents.rows, l.groups_per_row()};
  const std::string because = text(l.extents.rows, " x ", l.extents.cols, " codes in groups of ", l.group);
  if (nvidia) {
    ANYBIT_TRY(const TensorInfo* const t, m.need_shape("weight_scale", {"F8_E4M3"}, scales_shape, because));
    ANYBIT_TRY(l.scales, finite_values(m, "weight_scale", *t));
    ANYBIT_TRY(const TensorInfo* const global, m.need_shape("weight_global_scale", {"F32"}, {1}, "one scale per tensor"));
    l.divisor = values_of<float>(*global)[0];
    if (!is_finite(l.divisor) || !(l.divisor > 0))
      return m.bad(ErrorCode::not_finite, "weight_global_scale is ", l.divisor, ": check the checkpoint");
  } else {
    ANYBIT_TRY(const TensorInfo* const t, m.need_shape("weight_scale", {"U8"}, scales_shape, because));
    for (const std::uint8_t exponent : values_of<std::uint8_t>(*t)) {
      if (exponent == 255) return m.bad(ErrorCode::not_finite, "weight_scale holds a NaN (255): check the checkpoint");
      l.scales.push_back(ScaleE8M0::decode(exponent));
    }
  }
  l.codes.reserve(static_cast<std::size_t>(l.extents.size()));
  for (const std::uint8_t pair : values_of<std::uint8_t>(*packed)) {
    l.codes.push_back(pair & 15);
    l.codes.push_back(pair >> 4);
  }
  return l;
}

}  // namespace detail

/// One module. Contradictions between `f` and the tensors are errors that name both.
inline Result<CheckpointLinear> read_compressed(const ModuleTensors& m, const CompressedFormat& f) {
  if (f.group < 0 || f.block[0] < 0 || f.block[1] < 0 || (f.block[0] > 0) != (f.block[1] > 0))
    return m.bad(ErrorCode::corrupt_data, "group_size or block_structure is negative: check the quantization config");
  const TensorInfo* const packed = m.find("weight_packed");
  if (!packed) return detail::read_byte_quantized(m, f);
  return packed->dtype == "U8" ? detail::read_fp4_packed(m, f) : detail::read_pack_quantized(m, f);
}

/// The format that holds a layer exactly, or why there is none. Of E2M1, the exponents of MXFP4 or E4M3 scales of NVFP4.
inline Result<CompressedFormat> compressed_for(const CheckpointLinear& l) {
  const auto no = [](std::string why) { return Error{ErrorCode::unsupported, "compressed-tensors: " + std::move(why)}; };
  if (l.grouping != Grouping::columns) return no("groups run across rows: quantize again");
  if (!l.group_of_column.empty()) return no("it has no place for an order of columns (act-order): quantize again without");
  if (l.levels == Levels::nf4 || l.levels == Levels::fp4) return no("bitsandbytes' levels are unknown to it: quantize again");
  if (l.levels == Levels::integer)
    for (const float z : l.zeros)
      if (!(z >= 0 && z <= static_cast<float>((1 << l.bits) - 1)) || z != std::floor(z))
        return no("a zero point is no code: quantize again");
  CompressedFormat f;
  f.bits = l.bits;
  f.is_float = l.levels != Levels::integer;
  f.group = l.group == l.extents.cols && l.levels != Levels::e2m1 ? 0 : l.group;
  if (f.group > 0 && l.extents.cols % f.group != 0)
    return no(detail::text("groups of ", f.group, " do not divide ", l.extents.cols, " inputs: leave this layer in float"));
  if (l.levels != Levels::e2m1) {
    if (l.divisor != 1) return no("its scales have no divisor: quantize again");
    return f;
  }
  if (l.extents.cols % 2 != 0) return no("an odd number of inputs: leave this layer in float");
  const bool exponents = l.divisor == 1 && l.group == 32;
  for (const float s : l.scales)
    if (exponents ? e8m0::decode(ScaleE8M0::encode(s)) != s
                  : Minifloat<4, 3>::decode(Minifloat<4, 3>::encode(s)) != s || l.group != 16)
      return no("a scale is neither MXFP4's nor NVFP4's: quantize again");
  return f;
}

/// The tensors of a layer for which compressed_for() found `f`; scales as binary16 where that is exact, else bfloat16 or float.
inline std::vector<OwnedTensor> write_compressed(const std::string& module, const CheckpointLinear& l,
                                                 const CompressedFormat& f) {
  const Index outputs = l.extents.rows, inputs = l.extents.cols;
  const Index groups = l.groups_per_row();
  std::vector<OwnedTensor> out;
  if (l.levels == Levels::e2m1) {
    std::vector<std::uint8_t> pairs(l.codes.size() / 2), scales;
    for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i] = static_cast<std::uint8_t>(l.codes[2 * i] | l.codes[2 * i + 1] << 4);
    const bool nvidia = f.group == 16;
    for (const float s : l.scales)
      scales.push_back(nvidia ? static_cast<std::uint8_t>(Minifloat<4, 3>::encode(s)) : ScaleE8M0::encode(s));
    out.push_back(owned_tensor(module + ".weight_packed", "U8", {outputs, inputs / 2}, pairs));
    out.push_back(owned_tensor(module + ".weight_scale", nvidia ? "F8_E4M3" : "U8", {outputs, groups}, scales));
    if (nvidia) out.push_back(owned_tensor(module + ".weight_global_scale", "F32", {1}, std::vector<float>{l.divisor}));
    return out;
  }
  out.push_back(owned_scales(module + ".weight_scale", {outputs, groups}, l.scales));
  const bool zeros = l.levels == Levels::integer && !l.symmetric();
  if (l.levels == Levels::e4m3) {
    out.push_back(owned_tensor(module + ".weight", "F8_E4M3", {outputs, inputs}, l.codes));
    return out;
  }
  const Index words = words_of(WordLayout::dense, f.bits, inputs);
  std::vector<std::uint32_t> packed(static_cast<std::size_t>(outputs * words));
  for (Index r = 0; r < outputs; ++r)
    pack_words(WordLayout::dense, f.bits, l.codes.data() + r * inputs, inputs, packed.data() + r * words, 1);
  out.push_back(owned_tensor(module + ".weight_packed", "I32", {outputs, words}, packed));
  out.push_back(owned_tensor(module + ".weight_shape", "I64", {2}, std::vector<std::int64_t>{outputs, inputs}));
  if (!zeros) return out;
  const Index zero_words = words_of(WordLayout::dense, f.bits, outputs);
  std::vector<std::uint32_t> packed_zeros(static_cast<std::size_t>(zero_words * groups));
  std::vector<std::uint8_t> column(static_cast<std::size_t>(outputs));
  for (Index g = 0; g < groups; ++g) {
    for (Index o = 0; o < outputs; ++o) column[static_cast<std::size_t>(o)] = static_cast<std::uint8_t>(l.zero(o * groups + g));
    pack_words(WordLayout::dense, f.bits, column.data(), outputs, packed_zeros.data() + g, groups);
  }
  out.push_back(owned_tensor(module + ".weight_zero_point", "I32", {zero_words, groups}, packed_zeros));
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
