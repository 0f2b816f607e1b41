#pragma once
// The bodies of load.hpp, which says when to include this.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/checkpoint.hpp>
#include <anybit/io/detail/utf8.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/hf_folder.hpp>
#include <anybit/io/llama2c.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/file_tensors.hpp>
#include <anybit/model/folder_config.hpp>
#include <anybit/model/gguf_file_config.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/load_tensors.hpp>
#include <anybit/model/model.hpp>
#include <anybit/model/tokenizer/files.hpp>
#include <anybit/model/tokenizer/from_folder.hpp>

#if defined(ANYBIT_COMPILED_MODELS)
namespace anybit::io {
inline namespace ANYBIT_CODE {
template class TensorFile<SafetensorsFile>;
template Result<SafetensorsFile> SafetensorsFile::open<void>(const std::string&);
template Result<SafetensorsFile> SafetensorsFile::open_index<void>(const std::string&);
template Result<SafetensorsFile> SafetensorsFile::open_shards<void>(const std::string&, std::span<const std::byte>);
template Status SafetensorsFile::parse_all<void>(std::span<const std::byte>);
}  // namespace ANYBIT_CODE
}  // namespace anybit::io
#endif

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

inline Result<Decoder> decoder_from(const io::GgufFile& file, Blocks blocks) {
  ANYBIT_TRY(const Architecture* const architecture, architecture_of(file));
  ANYBIT_TRY(DecoderConfig config, read_config(file, *architecture));
  const FileTensors view(file, *architecture, config, NamesOf::gguf);
  if (view.duplicate())
    return {ErrorCode::corrupt_data, io::detail::text(view.name(), ": tensor ", io::detail::shown(*view.duplicate()),
                                                      " is there a second time under another name: convert the model again")};
  return read_decoder(view, *architecture, std::move(config), blocks);
}

/// A folder's tensors, less those of a model of images and of a head that is the embedding.
class FolderTensors : public FileTensors<io::Checkpoint> {
 public:
  FolderTensors(const io::Checkpoint& folder, const FolderConfig& c, const LoadOptions& options)
      : FileTensors(folder, *c.architecture, c.config, NamesOf::hugging_face), pack_(options.pack), schemes_(options.schemes) {
    const io::TensorInfo *const head = source("output.weight"), *const embedding = source("token_embd.weight");
    // A head that differs from the embedding is a head of its own, whatever the configuration says, as in transformers 5.
    const bool same = head && embedding && head->dtype == embedding->dtype && head->shape == embedding->shape &&
                      !head->bytes.empty() &&
                      std::equal(head->bytes.begin(), head->bytes.end(), embedding->bytes.begin(), embedding->bytes.end());
    for (const io::TensorInfo& t : FileTensors::tensors()) {
      const std::string_view name = t.name;
      const bool images =
          c.text_alone && (name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.") ||
                           name.starts_with("model.vision_tower.") || name.starts_with("model.multi_modal_projector."));
      if (images || (c.tied && same && name == "output.weight")) continue;
      kept_.add(t);
    }
  }
  const std::vector<io::TensorInfo>& tensors() const { return kept_.all(); }
  const io::TensorInfo* find(std::string_view weight) const { return kept_.find(weight); }

  bool is_packed(std::string_view weight) const { return pack_ && is_quantized(weight); }
  /// A linear that runs on the codes of the file, or on floats where pack() cannot keep them.
  Result<nn::Linear> packed(const std::string& weight) const {
    ANYBIT_TRY(const auto codes, read_codes(weight));
    if (codes)
      if (auto done = pack_(*codes)) return nn::Linear(*std::move(done));
    ANYBIT_TRY(auto bytes, read_packed(weight));
    if (bytes)
      if (auto done = schemes_.open(*std::move(bytes))) return nn::Linear(*std::move(done));
    ANYBIT_TRY(Matrix floats, read_f32(weight));
    return nn::Linear(std::move(floats));
  }

 private:
  io::TensorList kept_;
  std::function<Result<AnyPacked>(const io::CheckpointLinear&)> pack_;
  SchemeRegistry schemes_;
};

inline Result<Decoder> decoder_from(const io::Checkpoint& folder, const FolderConfig& c, const FolderTensors& view,
                                    Blocks blocks) {
  if (view.duplicate())
    return {ErrorCode::corrupt_data,
            io::detail::text(folder.name(), ": tensor ", io::detail::shown(*view.duplicate()),
                             " is there a second time under another name: remove one or fetch the model again")};
  if (!c.tied && c.config.form.head && !view.find("output.weight"))
    return {ErrorCode::corrupt_data,
            io::detail::text(folder.name(), ": tie_word_embeddings is false and there is no tensor ",
                             io::detail::shown(view.label("output.weight")), ": correct config.json or fetch the model again")};
  return read_decoder(view, *c.architecture, c.config, blocks);
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
  ANYBIT_TRY(Decoder decoder, read_decoder(file, llama_architecture, std::move(c)));
  ANYBIT_TRY(Tokenizer tokenizer, tokenizer_from_llama2c(tokenizer_path));
  if (auto agree = check_sizes_agree(decoder, tokenizer); !agree) return in_context(agree.error(), tokenizer_path);
  return Model{io::detail::readable_name(fs::path(path).stem().string()), std::move(decoder), std::move(tokenizer)};
}

}  // namespace detail

ANYBIT_MODELS_INLINE Result<Model> model_from_gguf(const io::GgufFile& file, detail::Blocks blocks) {
  ANYBIT_TRY(Decoder decoder, detail::decoder_from(file, blocks));
  ANYBIT_TRY(Tokenizer tokenizer, tokenizer_from_gguf(file));
  std::string name = std::filesystem::path(file.name()).stem().string();
  if (file.has("general.name")) {
    ANYBIT_TRY(name, file.get_string("general.name"));
  }
  auto padded = with_padding(tokenizer, decoder.config.vocabulary);
  if (!padded) return in_context(padded.error(), file.name());
  return Model{io::detail::readable_name(name), std::move(decoder), *std::move(padded)};
}

ANYBIT_MODELS_INLINE Result<Decoder> decoder_from_gguf(const io::GgufFile& file) {
  return detail::decoder_from(file, detail::Blocks::now);
}

ANYBIT_MODELS_INLINE Result<Decoder> decoder_from_folder(const io::HfFolder& folder, const LoadOptions& options) {
  ANYBIT_TRY(const detail::FolderConfig config, detail::read_config(folder));
  ANYBIT_TRY(const io::Checkpoint checkpoint, io::Checkpoint::of(folder));
  return detail::decoder_from(checkpoint, config, detail::FolderTensors(checkpoint, config, options), detail::Blocks::now);
}

ANYBIT_MODELS_INLINE Result<Model> model_from_folder(const io::HfFolder& folder, const LoadOptions& options,
                                                     detail::Blocks blocks) {
  ANYBIT_TRY(const detail::FolderConfig config, detail::read_config(folder));
  ANYBIT_TRY(const io::Checkpoint checkpoint, io::Checkpoint::of(folder));
  ANYBIT_TRY(Decoder decoder,
             detail::decoder_from(checkpoint, config, detail::FolderTensors(checkpoint, config, options), blocks));
  ANYBIT_TRY(const Tokenizer tokenizer, tokenizer_from_folder(folder.name()));
  auto padded = with_padding(tokenizer, decoder.config.vocabulary);
  if (!padded) return in_context(padded.error(), folder.name());
  const std::string name = std::filesystem::path(folder.name()).filename().string();
  return Model{io::detail::readable_name(name), std::move(decoder), *std::move(padded)};
}

namespace detail {

/// Reads one block through `make_view()`, the tensors of an open file under the names of weights.
template <class MakeView>
BlockLoader block_loader(std::shared_ptr<const Blueprint> blueprint, MakeView make_view) {
  return [blueprint = std::move(blueprint), make_view = std::move(make_view)](Index i) -> Result<BlockWeights> {
    const auto view = make_view();
    TensorReader reader(view);
    ANYBIT_TRY(BlockWeights block, read_block(reader, *blueprint, i));
    ANYBIT_TRY_STATUS(reader.all_used(blueprint->architecture->name, io::detail::text("blk.", i, ".")));
    return block;
  };
}

}  // namespace detail

ANYBIT_MODELS_INLINE Result<BlockwiseModel> open_blocks(const std::string& path, const LoadOptions& options) {
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
    ANYBIT_TRY(const io::HfFolder folder, io::HfFolder::open(path));
    ANYBIT_TRY(Model model, model_from_folder(folder, options, detail::Blocks::later));
    ANYBIT_TRY(detail::FolderConfig config, detail::read_config(folder));
    ANYBIT_TRY(io::Checkpoint checkpoint, io::Checkpoint::of(folder));
    BlockLoader load =
        detail::block_loader(model.decoder.blueprint, [checkpoint = std::make_shared<const io::Checkpoint>(std::move(checkpoint)),
                                                       config = std::move(config),
                                                       options] { return detail::FolderTensors(*checkpoint, config, options); });
    return BlockwiseModel{std::move(model), std::move(load)};
  }
  ANYBIT_TRY(io::GgufFile file, io::GgufFile::open(path));
  ANYBIT_TRY(Model model, model_from_gguf(file, detail::Blocks::later));
  BlockLoader load = detail::block_loader(
      model.decoder.blueprint,
      [file = std::make_shared<const io::GgufFile>(std::move(file)), architecture = model.decoder.blueprint->architecture,
       config = model.decoder.config] { return FileTensors(*file, *architecture, config, NamesOf::gguf); });
  return BlockwiseModel{std::move(model), std::move(load)};
}

ANYBIT_MODELS_INLINE Result<Model> load_model(const std::string& path, const LoadOptions& options) {
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
    ANYBIT_TRY(const io::HfFolder folder, io::HfFolder::open(path));
    return model_from_folder(folder, options);
  }
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

ANYBIT_MODELS_INLINE Result<Decoder> load_decoder(const std::string& path, const LoadOptions& options) {
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
    ANYBIT_TRY(const io::HfFolder folder, io::HfFolder::open(path));
    return decoder_from_folder(folder, options);
  }
  ANYBIT_TRY(Model model, load_model(path, options));
  return std::move(model.decoder);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
