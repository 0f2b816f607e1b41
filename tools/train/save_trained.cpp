#include "save_trained.hpp"

#include <cstring>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/half.hpp>
#include <anybit/io/hf_folder.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/model/container.hpp>
#include <anybit/train/hugging_face_tensors.hpp>

#include "shared/outputs.hpp"

namespace tool {

using namespace anybit;
namespace fs = std::filesystem;

namespace {

/// The values in a type of 16 bits.
std::vector<std::uint16_t> halves(std::span<const float> values, std::uint16_t (*round)(float)) {
  std::vector<std::uint16_t> out;
  out.reserve(values.size());
  for (const float x : values) out.push_back(round(x));
  return out;
}

/// Tensors by the names of the folder's own files, which may leave the prefix of the architecture out, and in their types.
struct FolderTensors {
  std::vector<io::TensorInfo> tensors;
  std::vector<std::vector<std::uint16_t>> rounded;  // what tensors of 16 bits point to

  FolderTensors(const io::HfFolder& folder, std::string_view root, const std::vector<train::NamedTensor>& from) {
    rounded.reserve(from.size());
    for (const train::NamedTensor& t : from) {
      std::string name = t.name;
      if (!folder.find(name) && name.starts_with(root) && folder.find(name.substr(root.size()))) name = name.substr(root.size());
      const io::TensorInfo* const there = folder.find(name);
      const std::string type = there ? there->dtype : "F32";
      if (type == "BF16" || type == "F16") {
        rounded.push_back(halves(t.values, type == "BF16" ? f32_to_bf16 : f32_to_f16));
        tensors.push_back({std::move(name), type, t.shape, std::as_bytes(std::span(rounded.back()))});
      } else {
        tensors.push_back(io::tensor_of<float>(std::move(name), t.shape, t.values));
      }
    }
  }
};

}  // namespace

bool is_container_path(const std::string& path) { return path.ends_with(".safetensors"); }

Status save_folder(const std::string& to, const std::string& from, const model::Decoder& d) {
  ANYBIT_TRY(const io::HfFolder folder, io::HfFolder::open(from));
  ANYBIT_TRY(const std::vector<train::NamedTensor> weights, train::hugging_face_weights(d));
  const FolderTensors made(folder, d.blueprint->architecture->hugging_face_root, weights);
  std::error_code failed;
  fs::create_directories(to, failed);
  for (fs::directory_iterator at(from, failed), end; !failed && at != end; at.increment(failed)) {
    const std::string name = at->path().filename().string();
    if (!at->is_regular_file() || name.find(".safetensors") != std::string::npos) continue;
    if (!name.ends_with(".json") && !name.ends_with(".txt") && !name.ends_with(".model") && !name.ends_with(".jinja")) continue;
    fs::copy_file(at->path(), fs::path(to) / name, fs::copy_options::overwrite_existing, failed);
    if (failed) return {ErrorCode::io, to + ": " + name + " cannot be copied there: " + failed.message()};
  }
  if (failed) return {ErrorCode::io, to + ": cannot be made: " + failed.message()};
  const Uninterrupted whole;
  return io::write_safetensors((fs::path(to) / "model.safetensors").string(), made.tensors, {{"format", "pt"}});
}

Status save_container(const std::string& to, const std::string& from, const model::Model& m, const std::string& recipe) {
  model::Model plain = m;
  for (model::Weight& w : plain.decoder.weights) w.linear.set_adapter(nullptr);
  const Uninterrupted whole;
  return model::save_model(to, plain, {.recipe = recipe, .source = fs::path(from).filename().string()});
}

Status write_checkpoint(const std::string& path, std::span<const io::TensorInfo> tensors,
                        const std::map<std::string, std::string>& facts) {
  const Uninterrupted whole;
  return io::write_safetensors(path, tensors, facts);
}

ExitCode exit_code_of_training(const Error& e) {
  return e.code == ErrorCode::not_finite ? recipe_failed : e.code == ErrorCode::io ? cannot_write : bad_input;
}

}  // namespace tool
