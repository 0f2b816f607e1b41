#include "packed_codes.hpp"

#include <string_view>
#include <utility>

#include <anybit/io/checkpoint_pack.hpp>

#include "recipes/catalog.hpp"

namespace tool {

using namespace anybit;

Result<Matrix> packed_weights(const PackedBytes& packed) {
  ANYBIT_TRY(const AnyPacked any, catalog().registry().open(packed));
  Matrix w(any.extents().rows, any.extents().cols);
  for (Index r = 0; r < w.rows(); ++r) any.dequantize_row(r, w.view().row(r));
  return w;
}

Result<std::optional<io::CheckpointLinear>> packed_codes(const PackedBytes& packed) {
  std::optional<io::CheckpointLinear> out;
  Status opened = Ok{};
  const auto visit = [&]<class S>() {
    if (out || packed.scheme_name() != std::string_view(S::name)) return;
    const auto tensor = PackedTensor<S>::from(packed);
    if (!tensor)
      opened = tensor.error();
    else
      out = io::checkpoint_from_quantized(unpack(*tensor));
  };
  for_each_type(io::CheckpointSchemes{}, visit);
  if (!out && opened) for_each_type(Presets{}, visit);
  if (!opened) return opened.error();
  return out;
}

Result<PackedBytes> packed_exactly(const io::CheckpointLinear& l) { return io::pack_checkpoint(l, "converted"); }

std::optional<io::CheckpointLinear> gguf_codes(const io::TensorInfo& t) {
  io::CheckpointLinear l;
  int bytes = 0;
  if (t.dtype == "Q4_0") l.bits = 4, bytes = 18;
  if (t.dtype == "Q5_0") l.bits = 5, bytes = 22;
  if (t.dtype == "Q8_0") l.bits = 8, bytes = 34;
  if (t.dtype == "MXFP4") l.levels = io::Levels::e2m1, bytes = 17;
  if (bytes == 0) return std::nullopt;
  l.extents = t.extents();
  l.group = 32;
  l.codes.resize(static_cast<std::size_t>(l.extents.size()));
  const std::byte* b = t.bytes.data();
  for (Index first = 0; first < l.extents.size(); first += 32, b += bytes) {
    std::uint8_t* const codes = l.codes.data() + first;
    const std::byte* low = b + 2;
    if (l.levels == io::Levels::e2m1) {
      l.scales.push_back(e8m0::decode(io::ggml::u8(b)));
      low = b + 1;
    } else {
      l.scales.push_back(io::ggml::f16(b));
    }
    if (l.bits == 8) {
      for (int j = 0; j < 32; ++j) codes[j] = static_cast<std::uint8_t>(io::ggml::u8(low + j) ^ 0x80);
      continue;
    }
    const std::uint32_t high = l.bits == 5 ? io::ggml::u32(b + 2) : 0;
    if (l.bits == 5) low = b + 6;
    for (int j = 0; j < 16; ++j) {
      codes[j] = static_cast<std::uint8_t>((io::ggml::u8(low + j) & 15) | io::ggml::high_bit(high, j));
      codes[j + 16] = static_cast<std::uint8_t>((io::ggml::u8(low + j) >> 4) | io::ggml::high_bit(high, j + 16));
    }
  }
  return l;
}

}  // namespace tool
