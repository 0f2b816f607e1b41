#pragma once
// Loads a model from a file or folder of any supported format: the content decides, not the name.
//
// The readers of all formats, tokenizers and architectures take half a minute to compile in every file that calls one of these
// functions. A program that calls them in several files defines ANYBIT_COMPILED_MODELS for all of them, and one file, with the
// same flags, includes load_bodies.hpp: they are compiled there alone. Without the macro this header is all that is needed.

#include <anybit/core/macros_begin.hpp>

#include <functional>
#include <string>

#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/model/load_tensors.hpp>
#include <anybit/model/model.hpp>

#if defined(ANYBIT_COMPILED_MODELS)
#define ANYBIT_MODELS_INLINE
#else
#define ANYBIT_MODELS_INLINE inline
#endif

namespace anybit::io {
inline namespace ANYBIT_CODE {
class GgufFile;
class HfFolder;
}  // namespace ANYBIT_CODE
}  // namespace anybit::io

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct LoadOptions {
  std::string tokenizer{};  ///< path, for llama2.c checkpoints; empty: tok<vocabulary>.bin or tokenizer.bin beside the model
  /// What anybit's own container and EXL3's folders may hold; preset_registry() knows every preset.
  SchemeRegistry schemes{};
  /// Of the quantized linears of folders: packs one, without changing a weight, or says why it cannot. Without it, and where it
  /// cannot, they come out as floats. (With it, those of EXL3 are packed as they are, if `schemes` has their scheme.)
  std::function<Result<AnyPacked>(const io::CheckpointLinear&)> pack{};
};

/// A model whose blocks are read when they are wanted: the weights of the decoder's blocks hold nothing.
struct BlockwiseModel {
  Model model;
  BlockLoader load_block;  ///< keeps the file open
};

/// A Hugging Face folder, GGUF, anybit's own container, or a llama2.c checkpoint. Weights come out as floats, or packed as folder
/// or container have them.
ANYBIT_MODELS_INLINE Result<Model> load_model(const std::string& path, const LoadOptions& options = {});

/// The decoder of a model in any format, where no tokenizer is wanted.
ANYBIT_MODELS_INLINE Result<Decoder> load_decoder(const std::string& path, const LoadOptions& options = {});

/// Of a GGUF file or a Hugging Face folder, for quantize_layer_wise() of models that would not fit into memory as floats.
ANYBIT_MODELS_INLINE Result<BlockwiseModel> open_blocks(const std::string& path, const LoadOptions& options = {});

/// The decoder and tokenizer of an opened GGUF file.
ANYBIT_MODELS_INLINE Result<Model> model_from_gguf(const io::GgufFile& file, detail::Blocks blocks = detail::Blocks::now);

/// The decoder of an opened GGUF file, without a tokenizer.
ANYBIT_MODELS_INLINE Result<Decoder> decoder_from_gguf(const io::GgufFile& file);

/// The decoder and tokenizer of a Hugging Face folder; its name is the folder's.
ANYBIT_MODELS_INLINE Result<Model> model_from_folder(const io::HfFolder& folder, const LoadOptions& options = {},
                                                     detail::Blocks blocks = detail::Blocks::now);

/// The decoder of a Hugging Face folder, quantized or not, without a tokenizer.
ANYBIT_MODELS_INLINE Result<Decoder> decoder_from_folder(const io::HfFolder& folder, const LoadOptions& options = {});

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#if !defined(ANYBIT_COMPILED_MODELS)
#include <anybit/model/load_bodies.hpp>
#endif

#include <anybit/core/macros_end.hpp>
