#pragma once
// A model for commands that run it: any file, any scheme that this program has.

#include <string>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>

namespace tool {

/// Which models a command runs.
enum class Runs { decoders, encoder_decoders_too };

/// Its name is UTF-8.
anybit::Result<anybit::model::Model> open_model(const std::string& path, const std::string& tokenizer,
                                                Runs runs = Runs::decoders);

/// Of a Hugging Face folder, or of any file; no tokenizer is read from the folder.
anybit::Result<anybit::model::Decoder> open_decoder(const std::string& path);

/// 0: as many as the machine runs at once.
anybit::Index thread_count(anybit::Index asked);

/// Every packed linear multiplies with activations rounded to 8 bits, one scale per token, unless its file says how.
void round_activations(anybit::model::Decoder& d);

}  // namespace tool
