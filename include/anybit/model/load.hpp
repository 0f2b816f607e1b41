#pragma once
// A model out of a file, whatever its format: the content decides, not the name.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/gguf.hpp>
#include <anybit/io/llama2c.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/model/tokenizer_files.hpp>

namespace anybit::model::inline ANYBIT_CODE {

struct Model {
  std::string name;
  Decoder decoder;
  Tokenizer tokenizer;
};

struct LoadOptions {
  std::string tokenizer{};  ///< path, for llama2.c checkpoints; empty: tok<vocabulary>.bin or tokenizer.bin beside the model
};

namespace detail {

/// Reads tensors, checks shape and values, and remembers which were asked for.
template <class File>
class TensorReader {
 public:
  explicit TensorReader(const File& file) : file_(file) {}

  bool has(std::string_view name) const { return file_.find(name) != nullptr; }

  Result<Matrix> matrix(const std::string& name, Extents needed) {
    used_.insert(name);
    if (const auto* info = file_.find(name); info && info->extents() != needed) {
      const Extents is = info->extents();
      return {ErrorCode::shape_mismatch,
              io::detail::text(file_.name(), ": tensor ", name, " is ", is.rows, " x ", is.cols, ", the configuration needs ",
                               needed.rows, " x ", needed.cols, ": convert the model again")};
    }
    ANYBIT_TRY(Matrix m, file_.read_f32(name));
    for (Index i = 0; i < needed.size(); ++i)
      if (!std::isfinite(m.data()[i]))
        return {ErrorCode::not_finite,
                io::detail::text(file_.name(), ": tensor ", name, " is ", m.data()[i], " at row ", i / needed.cols, ", column ",
                                 i % needed.cols, ": the file is damaged, fetch or convert it again")};
    return m;
  }

  Status read(const std::string& name, Extents needed, Linear& to) {
    ANYBIT_TRY(Matrix m, matrix(name, needed));
    to = Linear(std::move(m));
    return Ok{};
  }
  Status read(const std::string& name, Index size, std::vector<float>& to) {
    ANYBIT_TRY(const Matrix m, matrix(name, {1, size}));
    to.assign(m.data(), m.data() + size);
    return Ok{};
  }

  /// A tensor that nobody asked for changes what the model computes: a bias, an expert.
  Status all_used() const {
    for (const auto& t : file_.tensors())
      if (!used_.contains(t.name))
        return {ErrorCode::unsupported,
                io::detail::text(file_.name(), ": tensor ", io::detail::shown(t.name),
                                 " is no part of the llama architecture as anybit computes it: use a model without it")};
    return Ok{};
  }

 private:
  const File& file_;
  std::set<std::string, std::less<>> used_;
};

/// The decoder in a file whose tensors have GGUF's names.
template <class File>
Result<Decoder> read_decoder(const File& file, DecoderConfig config) {
  TensorReader<File> reader(file);
  if (reader.has("rope_freqs.weight")) {
    ANYBIT_TRY_STATUS(reader.read("rope_freqs.weight", config.rotary_dim / 2, config.rope_factors));
  }
  if (auto valid = check(config); !valid) return in_context(valid.error(), file.name());
  Decoder d;
  d.config = std::move(config);
  const DecoderConfig& c = d.config;
  ANYBIT_TRY_STATUS(reader.read("token_embd.weight", Extents{c.vocabulary, c.dim}, d.token_embedding));
  for (Index i = 0; i < c.blocks; ++i) {
    const auto name = [&](std::string_view which) { return io::detail::text("blk.", i, ".", which, ".weight"); };
    Block& b = d.blocks.emplace_back();
    ANYBIT_TRY_STATUS(reader.read(name("attn_norm"), c.dim, b.attn_norm));
    ANYBIT_TRY_STATUS(reader.read(name("attn_q"), Extents{c.query_width(), c.dim}, b.q));
    ANYBIT_TRY_STATUS(reader.read(name("attn_k"), Extents{c.kv_width(), c.dim}, b.k));
    ANYBIT_TRY_STATUS(reader.read(name("attn_v"), Extents{c.kv_width(), c.dim}, b.v));
    ANYBIT_TRY_STATUS(reader.read(name("attn_output"), Extents{c.dim, c.query_width()}, b.o));
    ANYBIT_TRY_STATUS(reader.read(name("ffn_norm"), c.dim, b.ffn_norm));
    ANYBIT_TRY_STATUS(reader.read(name("ffn_gate"), Extents{c.hidden, c.dim}, b.gate));
    ANYBIT_TRY_STATUS(reader.read(name("ffn_up"), Extents{c.hidden, c.dim}, b.up));
    ANYBIT_TRY_STATUS(reader.read(name("ffn_down"), Extents{c.dim, c.hidden}, b.down));
  }
  ANYBIT_TRY_STATUS(reader.read("output_norm.weight", c.dim, d.output_norm));
  if (reader.has("output.weight")) {
    d.head.emplace();
    ANYBIT_TRY_STATUS(reader.read("output.weight", Extents{c.vocabulary, c.dim}, *d.head));
  }
  ANYBIT_TRY_STATUS(reader.all_used());
  return d;
}

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

inline Status check_sizes_agree(const Model& m, std::string_view file) {
  if (m.tokenizer.size() == m.decoder.config.vocabulary) return Ok{};
  return {ErrorCode::shape_mismatch,
          io::detail::text(file, ": the tokenizer has ", m.tokenizer.size(), " tokens, the model ", m.decoder.config.vocabulary,
                           ": use the tokenizer that belongs to the model")};
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
  Model m{fs::path(path).stem().string(), std::move(decoder), std::move(tokenizer)};
  ANYBIT_TRY_STATUS(check_sizes_agree(m, tokenizer_path));
  return m;
}

}  // namespace detail

/// The decoder and tokenizer of an opened GGUF file of the llama architecture.
inline Result<Model> model_from_gguf(const io::GgufFile& file) {
  ANYBIT_TRY(DecoderConfig config, detail::read_config(file));
  ANYBIT_TRY(Decoder decoder, detail::read_decoder(file, std::move(config)));
  ANYBIT_TRY(Tokenizer tokenizer, tokenizer_from_gguf(file));
  std::string name = std::filesystem::path(file.name()).stem().string();
  if (file.has("general.name")) {
    ANYBIT_TRY(name, file.get_string("general.name"));
  }
  Model m{std::move(name), std::move(decoder), std::move(tokenizer)};
  ANYBIT_TRY_STATUS(detail::check_sizes_agree(m, file.name()));
  return m;
}

/// GGUF (llama architecture) or a llama2.c checkpoint. Weights come out as floats.
inline Result<Model> load_model(const std::string& path, const LoadOptions& options = {}) {
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  const auto bytes = file.bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 16));
  if (start.starts_with("GGUF")) {
    ANYBIT_TRY(const io::GgufFile gguf, io::GgufFile::open(path));
    return model_from_gguf(gguf);
  }
  return detail::load_llama2c(path, options);
}

}  // namespace anybit::model::inline ANYBIT_CODE
