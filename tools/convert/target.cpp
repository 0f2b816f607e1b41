#include "target.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <anybit/format/integer.hpp>
#include <anybit/io/awq.hpp>
#include <anybit/io/checkpoint_bitsandbytes.hpp>
#include <anybit/io/compressed_tensors.hpp>
#include <anybit/io/gptq.hpp>

namespace tool {

using namespace anybit;
using io::CheckpointLinear;

namespace {

constexpr std::pair<std::string_view, Format> formats[] = {{"gptq", Format::gptq},
                                                           {"gptq_v2", Format::gptq_v2},
                                                           {"gptq_p", Format::gptq_p},
                                                           {"awq", Format::awq},
                                                           {"compressed-tensors", Format::compressed_tensors},
                                                           {"bnb", Format::bitsandbytes}};

io::GptqFormat gptq_format(Format f, const CheckpointLinear& l) {
  io::GptqFormat g;
  g.bits = l.bits;
  g.group = l.group == l.extents.cols ? -1 : l.group;
  g.layout = f == Format::gptq_p ? io::WordLayout::planar : io::WordLayout::dense;
  g.zeros = f == Format::gptq ? io::GptqZeros::minus_one : io::GptqZeros::as_is;
  return g;
}

/// Min-max grids of `bits` in groups, scales as binary16 or, where the format has them, in float; codes against the scale as
/// stored.
template <int Bits>
void round_rows(ConstMatrix w, bool symmetric, CheckpointLinear& l) {
  using F = UInt<Bits>;
  for (Index r = 0; r < w.rows; ++r)
    for (Index first = 0; first < w.cols; first += l.group) {
      const auto values =
          w.row(r).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(std::min(l.group, w.cols - first)));
      Affine a = symmetric ? SInt<Bits>::fit(values) : F::fit(values);
      a.scale = f16_to_f32(f32_to_f16(std::min(a.scale, 65504.0f)));
      if (symmetric) a.zero = l.middle();
      for (const float v : values)
        l.codes.push_back(static_cast<std::uint8_t>(F::encode_around(a.scale > 0 ? v / a.scale : 0.0f, a.zero)));
      l.scales.push_back(a.scale);
      if (!symmetric) l.zeros.push_back(a.zero);
    }
}

CheckpointLinear rounded(ConstMatrix w, int bits, Index group, bool symmetric) {
  CheckpointLinear l;
  l.extents = w.extents();
  l.bits = bits;
  l.group = group;
  switch (bits) {
    case 2: round_rows<2>(w, symmetric, l); break;
    case 3: round_rows<3>(w, symmetric, l); break;
    case 4: round_rows<4>(w, symmetric, l); break;
    case 5: round_rows<5>(w, symmetric, l); break;
    case 6: round_rows<6>(w, symmetric, l); break;
    case 7: round_rows<7>(w, symmetric, l); break;
    default: round_rows<8>(w, symmetric, l); break;
  }
  return l;
}

Result<CheckpointLinear> rounded_nf4(ConstMatrix w, Index block) {
  ANYBIT_TRY(const io::BitsAndBytes4 m, io::to_bitsandbytes<Nf4>(w, block));
  CheckpointLinear l;
  l.extents = w.extents();
  l.levels = io::Levels::nf4;
  l.group = block;
  l.grouping = w.cols % block == 0 ? io::Grouping::columns : io::Grouping::flat;
  l.scales = m.absmax;
  for (Index i = 0; i < w.extents().size(); ++i) {
    const std::uint8_t pair = m.packed[static_cast<std::size_t>(i / 2)];
    l.codes.push_back(static_cast<std::uint8_t>(i % 2 == 0 ? pair >> 4 : pair & 15));
  }
  return l;
}

Result<CheckpointLinear> nearest(const CheckpointLinear& l, ConstMatrix w, Format to, Grid grid) {
  const Index cols = l.extents.cols;
  const bool own = l.levels == io::Levels::integer;
  int bits = grid.bits > 0 ? grid.bits : own ? l.bits : l.levels == io::Levels::e4m3 ? 8 : 4;
  Index group = grid.group > 0                                          ? std::min(grid.group, cols)
                : l.group > 0 && l.group <= cols && cols % l.group == 0 ? l.group
                : cols % 128 == 0                                       ? 128
                                                                        : cols;
  if (to == Format::bitsandbytes) {
    if (bits == 8) {
      CheckpointLinear int8;
      int8.extents = l.extents;
      int8.bits = 8;
      int8.group = cols;
      int8.divisor = 127;
      for (Index r = 0; r < l.extents.rows; ++r) {
        const float largest = abs_max(w.row(r));
        int8.scales.push_back(largest);
        for (const float v : w.row(r))
          int8.codes.push_back(static_cast<std::uint8_t>(SInt<8>::encode(largest > 0 ? v * 127.0f / largest : 0.0f) ^ 0x80));
      }
      return int8;
    }
    return rounded_nf4(w, grid.group > 0 ? grid.group : 64);
  }
  if (to == Format::awq) bits = 4;
  if (to != Format::gptq_p && to != Format::compressed_tensors && bits >= 5 && bits <= 7) bits = 8;
  if (to != Format::compressed_tensors) bits = std::max(bits, 2);
  return rounded(w, std::max(bits, 2), group, own && l.symmetric() && to != Format::awq);
}

}  // namespace

std::string_view name_of(Format f) {
  for (const auto& [name, format] : formats)
    if (format == f) return name;
  return "";
}

std::optional<Format> format_named(std::string_view name) {
  for (const auto& [known, format] : formats)
    if (known == name) return format;
  return std::nullopt;
}

CheckpointLinear regrouped(const CheckpointLinear& l, Index group) {
  ANYBIT_CHECK(l.grouping == io::Grouping::columns && l.group_of_column.empty() && l.group % group == 0,
               "regrouped: other groups");
  CheckpointLinear out = l;
  out.group = group;
  out.scales.clear(), out.zeros.clear();
  for (Index r = 0; r < l.extents.rows; ++r)
    for (Index g = 0; g < out.groups_per_row(); ++g) {
      const auto from = static_cast<std::size_t>(r * l.groups_per_row() + g * group / l.group);
      out.scales.push_back(l.scales[from]);
      if (!l.zeros.empty()) out.zeros.push_back(l.zeros[from]);
    }
  return out;
}

Status can_hold(Format f, const CheckpointLinear& l) {
  switch (f) {
    case Format::awq: return io::awq_can_hold(l);
    case Format::bitsandbytes: return io::bitsandbytes_can_hold(l);
    case Format::compressed_tensors: {
      const auto format = io::compressed_for(l);
      if (!format) return format.error();
      return Ok{};
    }
    default: break;
  }
  if (f != Format::gptq_p && l.bits >= 5 && l.bits <= 7)
    return Error{ErrorCode::unsupported,
                 io::detail::text("GPTQ: ", l.bits, " bits exist in the planar layout only: use --to gptq_p")};
  if (l.divisor != 1) return Error{ErrorCode::unsupported, "GPTQ: its scales have no divisor: quantize again"};
  return io::gptq_can_hold(l, gptq_format(f, l));
}

Result<Converted> convert_layer(const CheckpointLinear& l, Format to, Grid grid) {
  Converted out;
  const bool same_grid = (grid.bits == 0 || grid.bits == l.bits) && (grid.group == 0 || grid.group == l.group);
  const bool splits = grid.bits == 0 && grid.group > 0 && l.group % grid.group == 0 && l.grouping == io::Grouping::columns &&
                      l.group_of_column.empty();
  const auto held = can_hold(to, l);
  if ((same_grid || splits) && held) {
    out.linear = same_grid ? l : regrouped(l, grid.group);
    if (can_hold(to, out.linear)) return out;
  }
  out.reason = held ? "another grid is asked for" : held.error().message;
  if (const std::size_t remedy = out.reason.rfind(": "); !held && remedy != std::string::npos && out.reason.find(": ") != remedy)
    out.reason.resize(remedy);
  const Matrix w = dequantize(l);
  ANYBIT_TRY(out.linear, nearest(l, w.view(), to, grid));
  ANYBIT_TRY_STATUS(can_hold(to, out.linear));
  const Matrix back = dequantize(out.linear);
  double sum = 0;
  for (Index i = 0; i < w.extents().size(); ++i) {
    const double error = std::fabs(static_cast<double>(w.data()[i]) - static_cast<double>(back.data()[i]));
    out.largest_error = std::max(out.largest_error, error);
    out.largest_weight = std::max(out.largest_weight, std::fabs(w.data()[i]));
    sum += error;
  }
  out.mean_error = sum / static_cast<double>(std::max<Index>(1, w.extents().size()));
  return out;
}

std::vector<io::OwnedTensor> tensors_of(const std::string& module, const CheckpointLinear& l, Format f) {
  switch (f) {
    case Format::awq: return io::write_awq(module, l);
    case Format::bitsandbytes: return io::write_bitsandbytes(module, l);
    case Format::compressed_tensors: return io::write_compressed(module, l, io::compressed_for(l).value());
    default: return io::write_gptq(module, l, gptq_format(f, l));
  }
}

}  // namespace tool
