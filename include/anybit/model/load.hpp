#pragma once
// A model out of a file, whatever its format: the content decides, not the name.

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

/// Keys of one GGUF file as numbers of the configuration.
class GgufConfigReader {
 public:
  explicit GgufConfigReader(const io::GgufFile& file) : file_(file) {}

  Status count(std::string_view key, Index& to) const {
    ANYBIT_TRY(const std::uint64_t value, file_.get_u64(key));
    constexpr std::uint64_t limit = std::uint64_t{1} << 31;
    if (value == 0 || value >= limit)
      return {ErrorCode::corrupt_data,
              io::detail::text(file_.name(), ": ", key, " is ", value, ", not 1 to ", limit - 1, ": convert the model again")};
    to = static_cast<Index>(value);
    return Ok{};
  }
  Status count_or(std::string_view key, Index fallback, Index& to) const {
    to = fallback;
    return file_.has(key) ? count(key, to) : Status(Ok{});
  }
  Status number_or(std::string_view key, float fallback, float& to) const {
    to = fallback;
    if (!file_.has(key)) return Ok{};
    ANYBIT_TRY(const double value, file_.get_f64(key));
    to = static_cast<float>(value);
    return Ok{};
  }
  Error unsupported(std::string_view key, std::string_view value, std::string_view remedy) const {
    return {ErrorCode::unsupported, io::detail::text(file_.name(), ": ", key, " is ", value, ": ", remedy)};
  }

 private:
  const io::GgufFile& file_;
};

inline Status read_rope_scaling(const io::GgufFile& file, const GgufConfigReader& read, DecoderConfig& c) {
  ANYBIT_TRY_STATUS(read.number_or("llama.rope.freq_base", 10000, c.rope_base));
  if (!file.has("llama.rope.scaling.type")) return Ok{};
  ANYBIT_TRY(const std::string type, file.get_string("llama.rope.scaling.type"));
  if (type == "linear") return read.number_or("llama.rope.scaling.factor", 1, c.rope_scale);
  if (type == "none") return Ok{};
  return read.unsupported("llama.rope.scaling.type", io::detail::shown(type),
                          "anybit knows 'none' and 'linear', use a model with one of these");
}

inline Result<DecoderConfig> read_config(const io::GgufFile& file) {
  const GgufConfigReader read(file);
  ANYBIT_TRY(const std::string architecture, file.get_string("general.architecture"));
  if (architecture != "llama")
    return read.unsupported("general.architecture", io::detail::shown(architecture),
                            "anybit runs 'llama', use a model of that architecture");
  DecoderConfig c;
  Index experts = 1;
  if (file.has("llama.expert_count")) {
    ANYBIT_TRY(const std::uint64_t n, file.get_u64("llama.expert_count"));
    experts = n == 0 ? 1 : 2;
  }
  if (experts != 1)
    return read.unsupported("llama.expert_count", "not 0", "mixtures of experts are not run yet, use a dense model");
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
  ANYBIT_TRY_STATUS(read_rope_scaling(file, read, c));
  // Files disagree about vocab_size, but the embedding has one row a token in all of them.
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
  return Model{fs::path(path).stem().string(), std::move(decoder), std::move(tokenizer)};
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
  if (auto agree = check_sizes_agree(decoder, tokenizer); !agree) return in_context(agree.error(), file.name());
  return Model{std::move(name), std::move(decoder), std::move(tokenizer)};
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
