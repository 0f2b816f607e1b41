#pragma once
// EXL3's modules in checkpoints: the real extents of what the file pads to multiples of 128, weights in float, and tensors to be
// written.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/io/checkpoint_tensors.hpp>
#include <anybit/io/exl3.hpp>
#include <anybit/io/json.hpp>
#include <anybit/tensor/decode_granules.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

/// What the configuration of a model says about the extents of its linears; 0 where it says nothing.
struct ModelSizes {
  Index hidden = 0, vocabulary = 0, heads = 0, kv_heads = 0;  ///< heads times their size
  std::vector<Index> intermediate;                            ///< of MLPs and experts, in any order
};

inline ModelSizes model_sizes(JsonObject config) {
  if (config.has("text_config"))
    if (auto text = config.object("text_config")) config = *text;
  const auto number = [&](std::string_view key) -> Index {
    if (!config.has(key)) return 0;
    const auto value = config.integer(key);
    return value && *value > 0 && *value <= Index{1} << 30 ? static_cast<Index>(*value) : 0;
  };
  ModelSizes s;
  s.hidden = number("hidden_size"), s.vocabulary = number("vocab_size");
  const Index heads = number("num_attention_heads"), kv_heads = number("num_key_value_heads");
  const Index size = config.has("head_dim") ? number("head_dim") : heads > 0 ? s.hidden / heads : 0;
  s.heads = heads * size, s.kv_heads = (kv_heads > 0 ? kv_heads : heads) * size;
  for (const std::string_view key : {"intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"})
    if (const Index n = number(key); n > 0) s.intermediate.push_back(n);
  return s;
}

/// The first of `sizes` that is padded to `padded`, else that itself.
inline Index unpadded(Index padded, const std::vector<Index>& sizes) {
  for (const Index n : sizes)
    if (n > 0 && round_up(n, 128) == padded) return n;
  return padded;
}

}  // namespace detail

/// Outputs x inputs of the module `name`, which its tensors have padded to multiples of 128. The configuration of the model knows
/// the real ones, by the usual names of modules (q_proj, down_proj, ..). Others keep the padded ones.
inline Extents exl3_extents(std::string_view name, Extents padded, const JsonObject& config) {
  const detail::ModelSizes s = detail::model_sizes(config);
  const std::string_view role = name.substr(name.rfind('.') + 1);
  const std::vector<Index> hidden{s.hidden};
  const auto real = [&](const std::vector<Index>& outputs, const std::vector<Index>& inputs) {
    return Extents{detail::unpadded(padded.rows, outputs), detail::unpadded(padded.cols, inputs)};
  };
  if (role == "q_proj") return real({s.heads}, hidden);
  if (role == "k_proj" || role == "v_proj") return real({s.kv_heads}, hidden);
  if (role == "qkv_proj") return real({s.heads + 2 * s.kv_heads}, hidden);
  if (role == "o_proj") return real(hidden, {s.heads});
  if (role == "gate_proj" || role == "up_proj") return real(s.intermediate, hidden);
  if (role == "down_proj") return real(hidden, s.intermediate);
  if (role == "gate_up_proj") {
    std::vector<Index> both;
    for (const Index n : s.intermediate) both.push_back(2 * n);
    return real(both, hidden);
  }
  if (role == "lm_head") return real({s.vocabulary}, hidden);
  return padded;
}

/// Of a module's tensors.
inline Result<Extents> exl3_extents(const ModuleTensors& m, const JsonObject& config) {
  ANYBIT_TRY(const TensorInfo* const t, m.need("trellis", {"I16"}, 3));
  constexpr Index most = Index{1} << 26;
  if (t->shape[0] > most || t->shape[1] > most)
    return m.bad(ErrorCode::corrupt_data, "trellis is ", ModuleTensors::extents_text(t->shape), ": the file is damaged");
  return exl3_extents(m.name, Extents{16 * t->shape[1], 16 * t->shape[0]}, config);
}

/// All weights, outputs x inputs, as decode() gives them.
inline Result<Matrix> exl3_weights(const PackedBytes& bytes) {
  Matrix w(bytes.extents().rows, bytes.extents().cols);
  bool found = false;
  for_each_exl3([&]<class S>(S) {
    if (found || bytes.scheme_name() != std::string_view(S::name)) return;
    found = true;
    const typename PackedTensor<S>::SectionsOf sections(bytes);
    decode_granules<S>(sections, w.extents(), 0, w.rows(), 0, w.cols(), w.data(), w.cols());
  });
  if (!found)
    return {ErrorCode::invalid_argument,
            "scheme '" + std::string(bytes.scheme_name()) + "' is none of EXL3's: give bytes of one"};
  return w;
}

/// The tensors of a module as exllamav3 stores them, of bytes of a scheme Exl3<K, Book>.
inline std::vector<OwnedTensor> write_exl3(const std::string& module, const PackedBytes& bytes) {
  std::vector<OwnedTensor> out;
  for_each_exl3([&]<class S>(S) {
    if (bytes.scheme_name() != std::string_view(S::name)) return;
    const Extents p = S::padded(bytes.extents());
    const auto add = [&](const char* part, const char* dtype, std::vector<Index> shape, std::span<const std::byte> from) {
      out.push_back({module + "." + part, dtype, std::move(shape), {from.begin(), from.end()}});
    };
    add("trellis", "I16", {p.cols / 16, p.rows / 16, 16 * S::code::step_bits}, bytes.section(section_tags::trellis));
    add("suh", "F16", {p.cols}, bytes.section(section_tags::input_scales));
    add("svh", "F16", {p.rows}, bytes.section(section_tags::output_scales));
    if constexpr (!std::is_same_v<typename S::codebook, ThreeInst>)
      out.push_back(owned_tensor(module + "." + std::string(std::string_view(S::codebook::name)), "I32", {},
                                 std::vector<std::uint32_t>{S::codebook::multiplier}));
  });
  ANYBIT_CHECK(!out.empty(), "write_exl3: bytes of another scheme");
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
