#pragma once
// Trained models as files: the folder that they came in, or anybit's container.

#include <map>
#include <span>
#include <string>

#include <anybit/io/tensor_info.hpp>
#include <anybit/model/model.hpp>

#include "shared/command.hpp"

namespace tool {

/// Whether a trained model is written to this path as anybit's container; else it is a folder of Hugging Face.
bool is_container_path(const std::string& path);

/// The folder `from` with the weights of `d`, in one file under its names and in its types (F16 and BF16 rounded to nearest);
/// what else is in the folder is copied.
anybit::Status save_folder(const std::string& to, const std::string& from, const anybit::model::Decoder& d);

/// For train::Checkpoints::write: whole or not at all, also where the program is interrupted.
anybit::Status write_checkpoint(const std::string& path, std::span<const anybit::io::TensorInfo> tensors,
                                const std::map<std::string, std::string>& facts);

/// Of an error of a run: a loss that is not finite, a file that could not be written, or an input.
ExitCode exit_code_of_training(const anybit::Error& e);

/// Float or packed weights, without adapters.
anybit::Status save_container(const std::string& to, const std::string& from, const anybit::model::Model& m,
                              const std::string& recipe);

}  // namespace tool
