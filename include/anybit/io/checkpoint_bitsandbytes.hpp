#pragma once
// bitsandbytes in checkpoints. Of 4 bits: weight U8 (n / 2, 1) or the same bytes under another type, weight.absmax,
// weight.quant_map, weight.quant_state.bitsandbytes__nf4 or __fp4 (JSON), with double quantization weight.nested_absmax and
// weight.nested_quant_map. LLM.int8: weight I8 (outputs, inputs), SCB F32 (outputs), W = code * SCB / 127.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/bitsandbytes.hpp>
#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/checkpoint_tensors.hpp>
#include <anybit/io/json.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// How a module of 4 bits is stored, and its levels.
struct BitsAndBytesModule {
  BitsAndBytes4 matrix;
  Levels levels = Levels::nf4;
};

namespace detail {

/// A table of the file against this library's: other codes would be other weights.
template <class Decode>
Status check_map(const ModuleTensors& m, std::string_view part, Index size, Decode decode) {
  ANYBIT_TRY(const TensorInfo* const t, m.need_shape(part, {"F32"}, {size}, "the table of levels"));
  const auto levels = values_of<float>(*t);
  for (std::size_t c = 0; c < levels.size(); ++c)
    if (!(std::fabs(levels[c] - decode(static_cast<Code>(c))) <= 1e-6f))
      return m.bad(ErrorCode::unsupported, part, " entry ", c, " is ", levels[c], ", not ", decode(static_cast<Code>(c)),
                   ": use a checkpoint with bitsandbytes' own levels");
  return Ok{};
}

}  // namespace detail

/// A module of 4 bits without its codes and scales: shape, block, levels and the settings of double quantization.
inline Result<BitsAndBytesModule> read_bitsandbytes_state(const ModuleTensors& m) {
  const bool nf4 = m.find("weight.quant_state.bitsandbytes__nf4") != nullptr;
  const std::string state_part = nf4 ? "weight.quant_state.bitsandbytes__nf4" : "weight.quant_state.bitsandbytes__fp4";
  ANYBIT_TRY(const TensorInfo* const state, m.need(state_part, {"U8"}, 1));
  const auto json = parse_json({reinterpret_cast<const char*>(state->bytes.data()), state->bytes.size()});
  if (!json) return in_context(json.error(), detail::text("module ", detail::shown(m.name), ": ", state_part));
  const JsonObject settings(*json, detail::text("module ", detail::shown(m.name), ": ", state_part));
  BitsAndBytesModule out;
  out.levels = nf4 ? Levels::nf4 : Levels::fp4;
  ANYBIT_TRY(const std::string type, settings.text("quant_type"));
  if (type != (nf4 ? "nf4" : "fp4"))
    return m.bad(ErrorCode::corrupt_data, state_part, " says quant_type ", detail::shown(type), ": check the checkpoint");
  ANYBIT_TRY(const std::int64_t block, settings.integer("blocksize"));
  ANYBIT_TRY(const std::vector<double> shape, settings.numbers("shape"));
  if (shape.size() != 2 || !(shape[0] >= 1 && shape[0] <= 1e8 && shape[1] >= 1 && shape[1] <= 1e8) ||
      std::trunc(shape[0]) != shape[0] || std::trunc(shape[1]) != shape[1])
    return m.bad(ErrorCode::corrupt_data, state_part, " states no shape of a matrix: check the checkpoint");
  BitsAndBytes4& b = out.matrix;
  b.shape = {static_cast<Index>(shape[0]), static_cast<Index>(shape[1])};
  b.block = block;
  if (const auto fits = detail::check_block(b.block); !fits)
    return m.bad(fits.error().code, fits.error().message, ": check the checkpoint");
  if (!m.find("weight.nested_absmax")) return out;
  if (settings.has("nested_blocksize")) {
    ANYBIT_TRY(const std::int64_t nested_block, settings.integer("nested_blocksize"));
    if (nested_block != BitsAndBytes4::nested_block)
      return m.bad(ErrorCode::unsupported, "nested_blocksize is ", nested_block, ": use a checkpoint with blocks of ",
                   BitsAndBytes4::nested_block);
  }
  ANYBIT_TRY(const double offset, settings.number("nested_offset"));
  b.nested_offset = static_cast<float>(offset);
  if (!is_finite(b.nested_offset)) return m.bad(ErrorCode::not_finite, "nested_offset is no finite float: check the checkpoint");
  return out;
}

/// The codes and scales of a module of 4 bits as they are stored.
inline Result<BitsAndBytesModule> read_bitsandbytes4(const ModuleTensors& m) {
  ANYBIT_TRY(BitsAndBytesModule out, read_bitsandbytes_state(m));
  BitsAndBytes4& b = out.matrix;
  const bool nf4 = out.levels == Levels::nf4;
  const TensorInfo* const weight = m.find("weight");
  if (!weight) return m.bad(ErrorCode::corrupt_data, "there is no tensor weight: give the complete checkpoint");
  if (static_cast<Index>(weight->bytes.size()) != ceil_div(b.shape.size(), 2))
    return m.bad(ErrorCode::shape_mismatch, "weight has ", weight->bytes.size(), " bytes, but shape ", b.shape.rows, " x ",
                 b.shape.cols, " (quant_state) makes ", ceil_div(b.shape.size(), 2), ": check the checkpoint");
  b.packed = values_of<std::uint8_t>(*weight);
  if (m.find("weight.quant_map"))
    ANYBIT_TRY_STATUS(
        detail::check_map(m, "weight.quant_map", 16, [&](Code c) { return nf4 ? Nf4::decode(c) : Fp4::decode(c); }));
  const std::vector<Index> scales{b.blocks()};
  const std::string because = detail::text(b.shape.size(), " weights in blocks of ", b.block);
  if (!m.find("weight.nested_absmax")) {
    ANYBIT_TRY(const TensorInfo* const absmax, m.need_shape("weight.absmax", {"F32"}, scales, because));
    ANYBIT_TRY(b.absmax, finite_values(m, "weight.absmax", *absmax));
    return out;
  }
  ANYBIT_TRY(const TensorInfo* const absmax, m.need_shape("weight.absmax", {"U8"}, scales, because));
  b.absmax_codes = values_of<std::uint8_t>(*absmax);
  ANYBIT_TRY(const TensorInfo* const nested,
             m.need_shape("weight.nested_absmax", {"F32"}, {ceil_div(b.blocks(), b.nested_block)}, "nested_blocksize 256"));
  ANYBIT_TRY(b.nested_absmax, finite_values(m, "weight.nested_absmax", *nested));
  ANYBIT_TRY_STATUS(detail::check_map(m, "weight.nested_quant_map", 256, [](Code c) { return double_quant::map.decode(c); }));
  return out;
}

/// LLM.int8 in its row-major form.
inline Result<CheckpointLinear> read_bitsandbytes8(const ModuleTensors& m) {
  ANYBIT_TRY(const TensorInfo* const weight, m.need("weight", {"I8"}, 2));
  ANYBIT_TRY(const TensorInfo* const scb, m.need_shape("SCB", {"F32"}, {weight->shape[0]}, "the number of outputs"));
  if (const TensorInfo* const format = m.find("weight_format"))
    for (const std::byte b : format->bytes)
      if (b != std::byte{0})
        return m.bad(ErrorCode::unsupported,
                     "weight_format is no row-major one: save the checkpoint with a newer bitsandbytes, or convert it");
  CheckpointLinear l;
  l.extents = {weight->shape[0], weight->shape[1]};
  l.bits = 8;
  l.group = l.extents.cols;
  l.divisor = 127;
  ANYBIT_TRY(l.scales, finite_values(m, "SCB", *scb));
  l.codes = values_of<std::uint8_t>(*weight);
  for (std::uint8_t& c : l.codes) c ^= 0x80;
  return l;
}

/// The shape of a module's weights.
inline Result<Extents> bitsandbytes_extents(const ModuleTensors& m) {
  if (m.find("SCB")) {
    ANYBIT_TRY(const TensorInfo* const weight, m.need("weight", {"I8"}, 2));
    return weight->extents();
  }
  ANYBIT_TRY(const BitsAndBytesModule state, read_bitsandbytes_state(m));
  return state.matrix.shape;
}

/// A module of 4 bits or of LLM.int8. Blocks of 4 bits run across rows where their size does not divide a row.
inline Result<CheckpointLinear> read_bitsandbytes(const ModuleTensors& m) {
  if (m.find("SCB")) return read_bitsandbytes8(m);
  ANYBIT_TRY(const BitsAndBytesModule stored, read_bitsandbytes4(m));
  const BitsAndBytes4& b = stored.matrix;
  CheckpointLinear l;
  l.extents = b.shape;
  l.levels = stored.levels;
  l.group = b.block;
  l.grouping = b.shape.cols % b.block == 0 ? Grouping::columns : Grouping::flat;
  auto scales = bitsandbytes_scales(b);
  if (!scales) return in_context(scales.error(), detail::text("module ", detail::shown(m.name)));
  l.scales = *std::move(scales);
  l.codes.resize(static_cast<std::size_t>(b.shape.size()));
  for (std::size_t i = 0; i < l.codes.size(); ++i)
    l.codes[i] = static_cast<std::uint8_t>(i % 2 == 0 ? b.packed[i / 2] >> 4 : b.packed[i / 2] & 15);
  return l;
}

/// Why bitsandbytes cannot hold this layer exactly, or Ok.
inline Status bitsandbytes_can_hold(const CheckpointLinear& l) {
  const auto no = [](std::string why) { return Error{ErrorCode::unsupported, "bitsandbytes: " + std::move(why)}; };
  if (l.levels == Levels::nf4 || l.levels == Levels::fp4) {
    if (l.divisor != 1 || !l.zeros.empty() || !l.group_of_column.empty() || l.grouping == Grouping::strided ||
        (l.grouping == Grouping::columns && l.extents.cols % l.group != 0) || !detail::check_block(l.group))
      return no(detail::text("blocks of ", l.group, " in rows of ", l.extents.cols, " are none of its own: quantize again"));
    return Ok{};
  }
  if (l.levels != Levels::integer || l.bits != 8 || !l.symmetric() || l.grouping != Grouping::columns ||
      l.group != l.extents.cols)
    return no("only NF4, FP4, and symmetric int8 with one scale per output: quantize again");
  for (Index i = 0; i < l.count(); ++i)
    if (l.divisor != 127 && l.scale(i) * 127.0f / 127.0f != l.scale(i)) return no("a scale times 127 is rounded: quantize again");
  return Ok{};
}

/// The tensors of a layer that bitsandbytes_can_hold(). Scales of 4 bits are written in float, not quantized again, so nothing is
/// lost.
inline std::vector<OwnedTensor> write_bitsandbytes(const std::string& module, const CheckpointLinear& l) {
  const auto fits = bitsandbytes_can_hold(l);
  ANYBIT_CHECK(fits.ok(), "write_bitsandbytes: ask bitsandbytes_can_hold first");
  const Index rows = l.extents.rows, cols = l.extents.cols;
  if (l.levels == Levels::integer) {
    std::vector<std::uint8_t> codes = l.codes;
    for (std::uint8_t& c : codes) c ^= 0x80;
    std::vector<float> scb = l.scales;
    for (std::size_t i = 0; i < scb.size() && l.divisor != 127; ++i) scb[i] = l.scale(static_cast<Index>(i)) * 127.0f;
    return {owned_tensor(module + ".weight", "I8", {rows, cols}, codes), owned_tensor(module + ".SCB", "F32", {rows}, scb),
            owned_tensor(module + ".weight_format", "U8", {}, std::vector<std::uint8_t>{0})};
  }
  const bool nf4 = l.levels == Levels::nf4;
  std::vector<std::uint8_t> pairs(static_cast<std::size_t>(ceil_div(l.extents.size(), 2)));
  for (std::size_t i = 0; i < 2 * pairs.size(); ++i) {
    const std::uint8_t code = i < l.codes.size() ? l.codes[i] : nf4 ? 7 : 0;
    pairs[i / 2] = static_cast<std::uint8_t>(i % 2 == 0 ? code << 4 : pairs[i / 2] | code);
  }
  const std::string type = nf4 ? "nf4" : "fp4";
  const std::string state = detail::text("{\"quant_type\": \"", type, "\", \"blocksize\": ", l.group,
                                         ", \"dtype\": \"float16\", \"shape\": [", rows, ", ", cols, "]}");
  const auto levels = level_table(l.levels);
  return {owned_tensor(module + ".weight", "U8", {static_cast<Index>(pairs.size()), 1}, pairs),
          owned_tensor(module + ".weight.absmax", "F32", {l.count()}, l.scales),
          owned_tensor(module + ".weight.quant_map", "F32", {16}, std::vector<float>(levels.begin(), levels.begin() + 16)),
          owned_tensor(module + ".weight.quant_state.bitsandbytes__" + type, "U8", {static_cast<Index>(state.size())},
                       std::vector<char>(state.begin(), state.end()))};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
