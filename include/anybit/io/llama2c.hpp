#pragma once
// Checkpoints of llama2.c, legacy version 0: seven i32, then float32 tensors one after the other, each kind for all
// layers. The file has no magic number, so its size must agree to the byte.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/checked.hpp>
#include <anybit/io/reader.hpp>
#include <anybit/io/tensor_file.hpp>

namespace anybit::io {
inline namespace ANYBIT_ABI {

/// The header, with llama2.c's names. All are positive, heads divide dim evenly and KV heads divide heads.
struct Llama2cConfig {
  Index dim = 0, hidden_dim = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, vocab_size = 0, seq_len = 0;
  bool shared_classifier = true;  ///< the output head is token_embd.weight; in the file: vocab_size is not negative

  Index head_dim() const { return dim / n_heads; }
  Index kv_dim() const { return head_dim() * n_kv_heads; }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::io

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// An opened checkpoint. Tensors have GGUF's names and are views, {outputs, inputs}; rotary pairs are neighbours (2i, 2i+1),
/// as in GGUF's llama architecture. Members as in TensorFile.
class Llama2cFile : public TensorFile<Llama2cFile> {
 public:
  const Llama2cConfig& config() const { return config_; }

 private:
  friend TensorFile<Llama2cFile>;
  /// A kind of tensor: one for the model, or one a layer. Unnamed ones are passed over.
  struct Kind {
    std::string_view name;
    std::vector<Index> shape;
    bool per_layer;
  };

  template <class = void>
  Status parse_config(ByteReader& reader) {
    std::array<std::int64_t, 7> h{};
    for (auto& value : h) {
      ANYBIT_TRY(const std::int32_t v, reader.number<std::int32_t>("the llama2.c header"));
      value = v;
    }
    constexpr std::int64_t magic_of_later_versions = 0x616B3432;
    if (h[0] == magic_of_later_versions)
      return {ErrorCode::unsupported, "a llama2.c checkpoint of version 1 or 2: export it with version 0"};
    config_.shared_classifier = h[5] >= 0;
    if (h[5] < 0) h[5] = -h[5];
    constexpr std::string_view names[] = {"dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"};
    for (std::size_t i = 0; i < h.size(); ++i)
      if (h[i] <= 0)
        return {ErrorCode::corrupt_data,
                detail::text(names[i], " is ", h[i],
                             ", not positive: this is no llama2.c checkpoint of version 0, give one or a GGUF file")};
    if (h[0] % (2 * h[3]) != 0 || h[3] % h[4] != 0)
      return {
          ErrorCode::corrupt_data,
          detail::text(
              "dim ", h[0], ", n_heads ", h[3], " and n_kv_heads ", h[4],
              " do not divide into heads of even size: this is no llama2.c checkpoint of version 0, give one or a GGUF file")};
    config_.dim = static_cast<Index>(h[0]);
    config_.hidden_dim = static_cast<Index>(h[1]);
    config_.n_layers = static_cast<Index>(h[2]);
    config_.n_heads = static_cast<Index>(h[3]);
    config_.n_kv_heads = static_cast<Index>(h[4]);
    config_.vocab_size = static_cast<Index>(h[5]);
    config_.seq_len = static_cast<Index>(h[6]);
    return Ok{};
  }

  template <class = void>
  std::vector<Kind> kinds() const {
    const Llama2cConfig& c = config_;
    std::vector<Kind> out = {
        {"token_embd.weight", {c.vocab_size, c.dim}, false},
        {"attn_norm.weight", {c.dim}, true},
        {"attn_q.weight", {c.dim, c.dim}, true},
        {"attn_k.weight", {c.kv_dim(), c.dim}, true},
        {"attn_v.weight", {c.kv_dim(), c.dim}, true},
        {"attn_output.weight", {c.dim, c.dim}, true},
        {"ffn_norm.weight", {c.dim}, true},
        {"ffn_gate.weight", {c.hidden_dim, c.dim}, true},  // w1
        {"ffn_down.weight", {c.dim, c.hidden_dim}, true},  // w2
        {"ffn_up.weight", {c.hidden_dim, c.dim}, true},    // w3
        {"output_norm.weight", {c.dim}, false},
        {"", {c.seq_len, c.head_dim() / 2}, false},  // cosines and sines of the rotary angles, which nobody reads any more
        {"", {c.seq_len, c.head_dim() / 2}, false},
    };
    if (!c.shared_classifier) out.push_back({"output.weight", {c.vocab_size, c.dim}, false});
    return out;
  }

  template <class = void>
  Status parse_all(std::span<const std::byte> bytes) {
    ByteReader reader(bytes);
    ANYBIT_TRY_STATUS(parse_config(reader));
    const std::vector<Kind> all = kinds();
    // The sum first: it bounds the number of layers before a loop runs over them. Factors are below 2^31, sums checked.
    CheckedSize total = 0;
    for (const Kind& kind : all) {
      CheckedSize values = static_cast<std::uint64_t>(kind.per_layer ? config_.n_layers : 1);
      for (const Index extent : kind.shape) values = values * static_cast<std::uint64_t>(extent);
      total = total + values * sizeof(float);
    }
    const auto size = total.get();
    if (!size || static_cast<std::uint64_t>(*size) != reader.remaining())
      return {
          ErrorCode::corrupt_data,
          detail::text("its header asks for ", size ? std::to_string(*size) : "more than 2^63", " bytes of weights, but ",
                       reader.remaining(), " follow: this is no llama2.c checkpoint of version 0, or it is cut, fetch it again")};
    for (const Kind& kind : all) {
      for (Index layer = 0; layer < (kind.per_layer ? config_.n_layers : 1); ++layer) {
        std::uint64_t values = 1;
        for (const Index extent : kind.shape) values *= static_cast<std::uint64_t>(extent);
        ANYBIT_TRY(const std::span<const std::byte> data, reader.take(values * sizeof(float), "a tensor"));
        std::string name = kind.per_layer ? detail::text("blk.", layer, ".", kind.name) : std::string(kind.name);
        if (!name.empty()) tensors_.add({std::move(name), "F32", kind.shape, data});
      }
    }
    return Ok{};
  }

  Llama2cConfig config_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
