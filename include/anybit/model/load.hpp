#pragma once
// Loads a model from a file of any supported format: the content decides, not the name.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/detail/utf8.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/llama2c.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/load_tensors.hpp>
#include <anybit/model/model.hpp>
#include <anybit/model/tokenizer/files.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct LoadOptions {
  std::string tokenizer{};   ///< path, for llama2.c checkpoints; empty: tok<vocabulary>.bin or tokenizer.bin beside the model
  SchemeRegistry schemes{};  ///< what anybit's own container may hold; preset_registry() knows every preset
};

namespace detail {

/// A key whose value, where a file has it, must be this one: with any other the model computes something else.
struct NeutralKey {
  std::string_view name;  ///< behind the name of the architecture
  double value;           ///< of a bool 0 or 1
};
inline constexpr NeutralKey neutral_keys[] = {
    {"expert_count", 0},        {"expert_used_count", 0},        {"use_parallel_residual", 0},
    {"attention.causal", 1},    {"attention.sliding_window", 0}, {"attention.max_alibi_bias", 0},
    {"attention.clamp_kqv", 0}, {"attn_logit_softcapping", 0},   {"final_logit_softcapping", 0},
    {"logit_scale", 1},         {"embedding_scale", 1},          {"residual_scale", 1},
    {"pooling_type", 0},        {"rope.scaling.attn_factor", 1},
};
/// Keys that describe a model and change nothing that it computes.
inline constexpr std::string_view descriptive_keys[] = {"vocab_size", "tensor_data_layout", "rope.scaling.finetuned",
                                                        "rope.scaling.original_context_length"};

/// Keys of one GGUF file as numbers of the configuration. It remembers which were asked for.
class GgufConfigReader {
 public:
  explicit GgufConfigReader(const io::GgufFile& file) : file_(file) {}

  Status count(std::string_view key, Index& to) {
    used_.emplace(key);
    ANYBIT_TRY(const std::uint64_t value, file_.get_u64(key));
    constexpr std::uint64_t limit = std::uint64_t{1} << 31;
    if (value == 0 || value >= limit)
      return {ErrorCode::corrupt_data,
              io::detail::text(file_.name(), ": ", key, " is ", value, ", not 1 to ", limit - 1, ": convert the model again")};
    to = static_cast<Index>(value);
    return Ok{};
  }
  Status count_or(std::string_view key, Index fallback, Index& to) {
    to = fallback;
    return file_.has(key) ? count(key, to) : Status(Ok{});
  }
  Status number_or(std::string_view key, float fallback, float& to) {
    used_.emplace(key);
    to = fallback;
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(const double value, file_.get_f64(key));
    to = static_cast<float>(value);
    return Ok{};
  }
  Status text_or(std::string_view key, std::string_view fallback, std::string& to) {
    used_.emplace(key);
    to = fallback;
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(to, file_.get_string(key));
    return Ok{};
  }
  Error unsupported(std::string_view key, std::string_view value, std::string_view remedy) const {
    return {ErrorCode::unsupported, io::detail::text(file_.name(), ": ", key, " is ", value, ": ", remedy)};
  }

  /// A key of the architecture that nobody asked for may change what the model computes: it is refused by name, unless its
  /// value says that it does not.
  Status all_used(std::string_view architecture) const {
    const std::string prefix = std::string(architecture) + ".";
    for (const std::string& key : file_.keys()) {
      if (!key.starts_with(prefix) || used_.contains(key)) continue;
      const std::string_view name = std::string_view(key).substr(prefix.size());
      if (std::find(std::begin(descriptive_keys), std::end(descriptive_keys), name) != std::end(descriptive_keys)) continue;
      const auto* const neutral =
          std::find_if(std::begin(neutral_keys), std::end(neutral_keys), [&](const NeutralKey& k) { return k.name == name; });
      if (neutral == std::end(neutral_keys))
        return {ErrorCode::unsupported,
                io::detail::text(file_.name(), ": ", io::detail::shown(key),
                                 " is no key that anybit applies, and it may change what the model computes: use a model "
                                 "without it, or remove the key if it is only a note")};
      double value = 0;
      if (const auto yes = file_.get_bool(key); yes) {
        value = *yes ? 1 : 0;
      } else {
        ANYBIT_TRY(value, file_.get_f64(key));
      }
      if (!(value == neutral->value))
        return unsupported(key, number_text(value),
                           io::detail::text("anybit runs the ", architecture, " architecture only with ",
                                            number_text(neutral->value), " here, use a model without it"));
    }
    return Ok{};
  }

 private:
  const io::GgufFile& file_;
  std::set<std::string, std::less<>> used_;
};

/// Positions are divided by rope.scaling.factor, in older files rope.scale_linear, where the type is linear or not given; 0
/// means 1.
inline Status read_rope_scaling(GgufConfigReader& read, DecoderConfig& c) {
  ANYBIT_TRY_STATUS(read.number_or("llama.rope.freq_base", 10000, c.rope_base));
  std::string type;
  float older = 1, factor = 1;
  ANYBIT_TRY_STATUS(read.text_or("llama.rope.scaling.type", "linear", type));
  ANYBIT_TRY_STATUS(read.number_or("llama.rope.scale_linear", 1, older));
  ANYBIT_TRY_STATUS(read.number_or("llama.rope.scaling.factor", older, factor));
  if (type != "none" && type != "linear")
    return read.unsupported("llama.rope.scaling.type", io::detail::shown(type),
                            "anybit knows 'none' and 'linear', use a model with one of these");
  c.rope_scale = type == "none" || factor == 0 ? 1 : factor;
  return Ok{};
}

inline Result<DecoderConfig> read_config(const io::GgufFile& file) {
  GgufConfigReader read(file);
  ANYBIT_TRY(const std::string architecture, file.get_string("general.architecture"));
  if (architecture != "llama")
    return read.unsupported("general.architecture", io::detail::shown(architecture),
                            "anybit runs 'llama', use a model of that architecture");
  DecoderConfig c;
  ANYBIT_TRY_STATUS(read.count("llama.embedding_length", c.dim));
  ANYBIT_TRY_STATUS(read.count("llama.feed_forward_length", c.hidden));
  ANYBIT_TRY_STATUS(read.count("llama.block_count", c.blocks));
  ANYBIT_TRY_STATUS(read.count("llama.attention.head_count", c.heads));
  ANYBIT_TRY_STATUS(read.count_or("llama.attention.head_count_kv", c.heads, c.kv_heads));
  if (!file.has("llama.attention.key_length") && c.dim % c.heads != 0)
    return {ErrorCode::corrupt_data,
            io::detail::text(file.name(), ": llama.attention.head_count is ", c.heads,
                             ", which does not divide the embedding length ", c.dim, ": convert the model again")};
  ANYBIT_TRY_STATUS(read.count_or("llama.attention.key_length", c.dim / c.heads, c.head_dim));
  Index value_length = 0;
  ANYBIT_TRY_STATUS(read.count_or("llama.attention.value_length", c.head_dim, value_length));
  if (value_length != c.head_dim)
    return read.unsupported("llama.attention.value_length", std::to_string(value_length),
                            io::detail::text("it must equal the key length ", c.head_dim));
  ANYBIT_TRY_STATUS(read.count_or("llama.rope.dimension_count", c.head_dim, c.rotary_dim));
  ANYBIT_TRY_STATUS(read.count("llama.context_length", c.context));
  ANYBIT_TRY_STATUS(read.number_or("llama.attention.layer_norm_rms_epsilon", 1e-5f, c.norm_epsilon));
  ANYBIT_TRY_STATUS(read_rope_scaling(read, c));
  ANYBIT_TRY_STATUS(read.all_used(architecture));
  // Files disagree about vocab_size; the embedding says how many rows there are.
  const io::TensorInfo* const embedding = file.find("token_embd.weight");
  c.vocabulary = embedding ? embedding->extents().rows : 1;
  return c;
}

inline Result<Model> load_llama2c(const std::string& path, const LoadOptions& options) {
  namespace fs = std::filesystem;
  ANYBIT_TRY(const io::Llama2cFile file, io::Llama2cFile::open(path));
  const io::Llama2cConfig& from = file.config();
  DecoderConfig c;
  c.vocabulary = from.vocab_size, c.dim = from.dim, c.hidden = from.hidden_dim, c.blocks = from.n_layers;
  c.heads = from.n_heads, c.kv_heads = from.n_kv_heads, c.head_dim = c.rotary_dim = from.head_dim(), c.context = from.seq_len;

  std::string tokenizer_path = options.tokenizer;
  const std::string own = io::detail::text("tok", c.vocabulary, ".bin");
  for (const std::string& name : {own, std::string("tokenizer.bin")}) {
    std::error_code ignored;
    const fs::path beside = fs::path(path).parent_path() / name;
    if (tokenizer_path.empty() && fs::exists(beside, ignored)) tokenizer_path = beside.string();
  }
  if (tokenizer_path.empty())
    return {ErrorCode::io, io::detail::text(path, ": a llama2.c checkpoint has no tokenizer of its own, and neither ", own,
                                            " nor tokenizer.bin is beside it: name one")};
  ANYBIT_TRY(Decoder decoder, read_decoder(file, std::move(c)));
  ANYBIT_TRY(Tokenizer tokenizer, tokenizer_from_llama2c(tokenizer_path));
  if (auto agree = check_sizes_agree(decoder, tokenizer); !agree) return in_context(agree.error(), tokenizer_path);
  return Model{io::detail::readable_name(fs::path(path).stem().string()), std::move(decoder), std::move(tokenizer)};
}

}  // namespace detail

/// The decoder and tokenizer of an opened GGUF file of the llama architecture.
inline Result<Model> model_from_gguf(const io::GgufFile& file, detail::Blocks blocks = detail::Blocks::now) {
  ANYBIT_TRY(DecoderConfig config, detail::read_config(file));
  ANYBIT_TRY(Decoder decoder, detail::read_decoder(file, std::move(config), blocks));
  ANYBIT_TRY(Tokenizer tokenizer, tokenizer_from_gguf(file));
  std::string name = std::filesystem::path(file.name()).stem().string();
  if (file.has("general.name")) {
    ANYBIT_TRY(name, file.get_string("general.name"));
  }
  auto padded = with_padding(tokenizer, decoder.config.vocabulary);
  if (!padded) return in_context(padded.error(), file.name());
  return Model{io::detail::readable_name(name), std::move(decoder), *std::move(padded)};
}

/// A model whose blocks are read when they are wanted: model.decoder.blocks hold nothing.
struct BlockwiseModel {
  Model model;
  BlockLoader load_block;  ///< keeps the file open
};

/// For quantize_layer_wise() of models that would not fit into memory as floats.
inline Result<BlockwiseModel> open_gguf_blocks(const std::string& path) {
  ANYBIT_TRY(io::GgufFile file, io::GgufFile::open(path));
  ANYBIT_TRY(Model model, model_from_gguf(file, detail::Blocks::later));
  BlockLoader load = [file, config = model.decoder.config](Index i) -> Result<Block> {
    detail::TensorReader<io::GgufFile> reader(file);
    ANYBIT_TRY(Block block, detail::read_block(reader, config, i));
    ANYBIT_TRY_STATUS(reader.all_used(io::detail::text("blk.", i, ".")));
    return block;
  };
  return BlockwiseModel{std::move(model), std::move(load)};
}

/// GGUF (llama architecture), anybit's own container, or a llama2.c checkpoint. Weights come out as floats, or packed as the
/// container has them.
inline Result<Model> load_model(const std::string& path, const LoadOptions& options = {}) {
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  const auto bytes = file.bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 16));
  if (start.starts_with("GGUF")) {
    ANYBIT_TRY(const io::GgufFile gguf, io::GgufFile::open(path));
    return model_from_gguf(gguf);
  }
  if (start.size() > 8 && start[8] == '{') {  // behind the length of a safetensors header
    ANYBIT_TRY(const io::AnybitFile container, io::AnybitFile::open(path));
    return model_from_container(container, options.schemes);
  }
  return detail::load_llama2c(path, options);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
