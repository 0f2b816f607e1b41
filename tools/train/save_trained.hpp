#pragma once
// Trained models as files: the folder that they came in, or anybit's container.

#include <string>

#include <anybit/model/model.hpp>

namespace tool {

/// Whether a trained model is written to this path as anybit's container; else it is a folder of Hugging Face.
bool is_container_path(const std::string& path);

/// The folder `from` with the weights of `d`, in one file under its names and in its types (F16 and BF16 rounded to nearest);
/// what else is in the folder is copied.
anybit::Status save_folder(const std::string& to, const std::string& from, const anybit::model::Decoder& d);

/// Float or packed weights, without adapters.
anybit::Status save_container(const std::string& to, const std::string& from, const anybit::model::Model& m,
                              const std::string& recipe);

}  // namespace tool
