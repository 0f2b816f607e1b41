#pragma once
// The quantized linears of EXL3 checkpoints (exllamav3): the tensors module.trellis, .suh, .svh and the key .mcg or .mul1 that
// names the codebook, of a safetensors file, become one packed tensor without a change of a bit.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/io/detail/text.hpp>
#include <anybit/io/tensor_info.hpp>
#include <anybit/scheme/trellis_exl3.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

inline std::string shape_text(const TensorInfo& t) {
  std::string out = "(";
  for (std::size_t i = 0; i < t.shape.size(); ++i) out += (i > 0 ? ", " : "") + std::to_string(t.shape[i]);
  return t.dtype + " " + out + ")";
}

/// module.suh as it is, or the signs of module.su, a bitfield (bit i of word w: element 16 w + i, set: -1), as binary16.
template <class File>
Result<std::vector<std::uint16_t>> exl3_scales(const File& file, const std::string& module, const char* name, Index n) {
  const std::string halves = module + "." + name + "h", bits = module + "." + name;
  std::vector<std::uint16_t> out(static_cast<std::size_t>(n));
  if (const TensorInfo* t = file.find(halves)) {
    if (t->dtype != "F16" || t->shape != std::vector<Index>{n})
      return {ErrorCode::shape_mismatch, text(shown(halves), " is ", shape_text(*t), ", but the trellis needs F16 (", n,
                                              "): the file contradicts itself; convert the model again")};
    std::memcpy(out.data(), t->bytes.data(), 2 * out.size());
    return out;
  }
  const TensorInfo* t = file.find(bits);
  if (t == nullptr)
    return {ErrorCode::corrupt_data,
            text("neither ", shown(halves), " nor the older ", shown(bits),
                 " is there: weights of EXL3 have scales of inputs and outputs; the file is incomplete")};
  if (t->dtype != "I16" || t->shape != std::vector<Index>{n / 16})
    return {ErrorCode::shape_mismatch, text(shown(bits), " is ", shape_text(*t), ", but the trellis needs I16 (", n / 16,
                                            "): the file contradicts itself; convert the model again")};
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t word;
    std::memcpy(&word, t->bytes.data() + i / 16 * 2, 2);
    out[i] = (word >> (i % 16) & 1) != 0 ? 0xBC00 : 0x3C00;
  }
  return out;
}

/// "3inst", "mcg" or "mul1". The key's value is the multiplier, which exllamav3's kernels have built in: another one would
/// decode to noise.
template <class File>
Result<std::string_view> exl3_codebook(const File& file, const std::string& module) {
  struct Flag {
    std::string_view name;
    std::uint32_t multiplier;
  };
  std::string_view book = "3inst";
  for (const Flag& flag : {Flag{"mcg", Mcg::multiplier}, Flag{"mul1", Mul1::multiplier}}) {
    const TensorInfo* const t = file.find(module + "." + std::string(flag.name));
    if (t == nullptr) continue;
    if (book != "3inst")
      return {ErrorCode::corrupt_data, "both keys 'mcg' and 'mul1' are there, but a tensor has one codebook: remove one of them"};
    std::uint32_t value = 0;
    if (t->bytes.size() == 4) std::memcpy(&value, t->bytes.data(), 4);
    if (value != flag.multiplier)
      return {ErrorCode::unsupported, text("the multiplier of the codebook '", std::string(flag.name), "' is ", value, " (",
                                           shape_text(*t), "); known is ", flag.multiplier, " alone")};
    book = flag.name;
  }
  return book;
}

template <class File>
Result<PackedBytes> read_exl3(const File& file, const std::string& module, Extents e) {
  const std::string name = module + ".trellis";
  const TensorInfo* const t = file.find(name);
  if (t == nullptr) return {ErrorCode::invalid_argument, "there is no tensor " + shown(name) + ": check the module's name"};
  if (t->dtype != "I16" || t->shape.size() != 3)
    return {ErrorCode::corrupt_data, text("'trellis' is ", shape_text(*t), "; it must be I16 (inputs / 16, outputs / 16, 16 K)")};
  const Index k = t->shape[2] / 16;
  if (t->shape[2] % 16 != 0 || k < 1 || k > 8)
    return {ErrorCode::corrupt_data,
            text("'trellis' is ", shape_text(*t), ": the last extent is 16 K with K = 1 to 8 bits a weight")};
  constexpr Index most = Index{1} << 30;
  if (t->shape[0] > most || t->shape[1] > most || t->shape[0] % 8 != 0 || t->shape[1] % 8 != 0)
    return {ErrorCode::corrupt_data, text("'trellis' has ", t->shape[0], " x 16 inputs and ", t->shape[1],
                                          " x 16 outputs; EXL3 pads both to multiples of 128: the file is damaged")};
  const Extents padded{16 * t->shape[1], 16 * t->shape[0]};
  if (e == Extents{}) e = padded;
  if (e.rows > padded.rows || e.cols > padded.cols || padded.rows - e.rows >= 128 || padded.cols - e.cols >= 128)
    return {ErrorCode::shape_mismatch,
            text("'trellis' has ", padded.rows, " outputs and ", padded.cols, " inputs, but the model's configuration wants ",
                 e.rows, " and ", e.cols, ", padded to multiples of 128: they belong to different models")};
  if (file.find(module + ".scale") != nullptr)
    return {ErrorCode::unsupported,
            "there is a key 'scale', of a form of EXL3 that exllamav3 itself reads no more; convert the "
            "model again"};
  ANYBIT_TRY(const std::string_view book, exl3_codebook(file, module));
  ANYBIT_TRY(const auto suh, exl3_scales(file, module, "su", padded.cols));
  ANYBIT_TRY(const auto svh, exl3_scales(file, module, "sv", padded.rows));
  PackedBytes out;
  Status status = Ok{};
  for_each_exl3([&]<class S>(S) {
    if (S::code::step_bits != k || book != std::string_view(S::codebook::name)) return;
    out = PackedBytes::allocate(S::name, "exl3", e, S::sections(e), 0);
    const std::span<const std::byte> parts[] = {t->bytes, std::as_bytes(std::span(suh)), std::as_bytes(std::span(svh))};
    std::size_t i = 0;
    for (const SectionSize& s : S::sections(e)) {
      const auto to = out.mutable_section(out.section(s.tag));
      ANYBIT_CHECK(to.size() == parts[i].size(), "read_exl3: a section of another size than its tensor");
      if (!to.empty()) std::memcpy(to.data(), parts[i].data(), to.size());
      ++i;
    }
    status = PackedTensor<S>::check(out);
  });
  if (!status) return status.error();
  return out;
}

}  // namespace detail

/// Whether a module's weights are EXL3's.
template <class File>
bool is_exl3(const File& file, std::string_view module) {
  return file.find(std::string(module) + ".trellis") != nullptr;
}

/// The weights of `module` (outputs x inputs), which scheme Exl3<K, Book> knows: K and Book are the tensors' own, not the
/// configuration's, where they are averages. `e` are the real extents, which only the model's configuration has; without them
/// the padded ones are taken. `file` is a SafetensorsFile or something else with find() and name().
template <class File>
Result<PackedBytes> read_exl3(const File& file, std::string_view module, Extents e = {}) {
  auto out = detail::read_exl3(file, std::string(module), e);
  if (!out) return in_context(out.error(), file.name() + ": exl3 module " + detail::shown(module));
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
