#include "checkpoint_folder.hpp"

#include <cstdio>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include <anybit/io/mapped_file.hpp>
#include <anybit/io/safetensors_writer.hpp>

#include "shared/outputs.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace tool {

using namespace anybit;
namespace fs = std::filesystem;

namespace {

Error failed_to(const std::string& path, const std::string& action, const std::error_code& why) {
  return {ErrorCode::io, path + ": cannot " + action + " (" + why.message() + "): choose another path"};
}

bool is_carried_along(const fs::path& file) {
  const std::string name = file.filename().string();
  for (const char* own : {"config.json", "quantize_config.json", "quant_config.json", "quantization_config.json"})
    if (name == own) return false;
  for (const char* weights :
       {".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pth", ".pt", ".gguf", ".h5", ".msgpack"})
    if (name.ends_with(weights)) return false;
  return true;
}

}  // namespace

Result<CheckpointFolder> CheckpointFolder::create(const std::string& path, Index shard_bytes) {
  CheckpointFolder out;
  out.shard_bytes_ = shard_bytes;
  out.path_ = path;
  while (out.path_.size() > 1 && out.path_.back() == '/') out.path_.pop_back();
  std::error_code failed;
  if (fs::exists(out.path_, failed) && !(fs::is_directory(out.path_, failed) && fs::is_empty(out.path_, failed)))
    return Error{ErrorCode::io, out.path_ + ": is there already, and nothing is overwritten: choose another path"};
  if (const fs::path parent = fs::path(out.path_).parent_path(); !parent.empty()) fs::create_directories(parent, failed);
  if (failed) return failed_to(out.path_, "make the folder that it shall stand in", failed);
#if defined(__unix__) || defined(__APPLE__)
  out.temporary_ = out.path_ + "." + std::to_string(::getpid()) + ".tmp";
#else
  out.temporary_ = out.path_ + ".tmp";
#endif
  const std::string temporary = std::exchange(out.temporary_, {});  // not ours to remove if it is there
  if (!fs::create_directory(temporary, failed)) {
    if (!failed) failed = std::make_error_code(std::errc::file_exists);
    return failed_to(temporary, "make a folder", failed);
  }
  out.temporary_ = temporary;
  return out;
}

CheckpointFolder::CheckpointFolder(CheckpointFolder&& o) noexcept
    : path_(std::move(o.path_)),
      temporary_(std::exchange(o.temporary_, {})),
      shard_bytes_(o.shard_bytes_),
      bytes_(o.bytes_),
      total_bytes_(o.total_bytes_),
      tensors_(std::move(o.tensors_)),
      shards_(std::move(o.shards_)) {}

CheckpointFolder::~CheckpointFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

Status CheckpointFolder::add(io::OwnedTensor t) {
  const auto size = static_cast<Index>(t.bytes.size());
  if (bytes_ > 0 && bytes_ + size > shard_bytes_) ANYBIT_TRY_STATUS(flush());
  bytes_ += size;
  tensors_.push_back(std::move(t));
  return Ok{};
}

std::string CheckpointFolder::shard_name(std::size_t i, std::size_t of) const {
  if (of == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, of);
  return name;
}

Status CheckpointFolder::flush() {
  std::vector<io::TensorInfo> infos;
  std::vector<std::string> names;
  for (const io::OwnedTensor& t : tensors_) {
    infos.push_back(t.info());
    names.push_back(t.name);
  }
  ANYBIT_TRY_STATUS(
      io::write_safetensors(temporary_ + "/" + std::to_string(shards_.size()) + ".part", infos, {{"format", "pt"}}));
  shards_.push_back(std::move(names));
  tensors_.clear();
  total_bytes_ += std::exchange(bytes_, 0);
  return Ok{};
}

Status CheckpointFolder::write_text(const std::string& name, const std::string& text) {
  return tool::write_text(temporary_ + "/" + name, text);
}

Status CheckpointFolder::copy(const fs::path& file) {
  std::error_code failed;
  fs::copy_file(file, fs::path(temporary_) / file.filename(), failed);
  if (failed) return failed_to(file.string(), "copy it to " + path_, failed);
  return Ok{};
}

Status CheckpointFolder::copy_other_files(const std::string& folder) {
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed))
    if (entry->is_regular_file(failed) && is_carried_along(entry->path())) ANYBIT_TRY_STATUS(copy(entry->path()));
  if (failed) return Error{ErrorCode::io, folder + ": cannot list the folder (" + failed.message() + "): check its permissions"};
  return Ok{};
}

Status CheckpointFolder::commit() {
  ANYBIT_TRY_STATUS(flush());
  std::error_code failed;
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    const std::string name = shard_name(i, shards_.size());
    fs::rename(temporary_ + "/" + std::to_string(i) + ".part", temporary_ + "/" + name, failed);
    if (failed) return failed_to(path_, "name a shard", failed);
    for (const std::string& tensor : shards_[i]) map[tensor] = name;
  }
  if (shards_.size() > 1)
    ANYBIT_TRY_STATUS(write_text("model.safetensors.index.json",
                                 text_of({{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", std::move(map)}})));
  if (fs::is_directory(path_, failed)) fs::remove(path_, failed);  // an empty one
  fs::rename(temporary_, path_, failed);
  if (failed) return failed_to(path_, "give the finished folder its name", failed);
  temporary_.clear();
  return Ok{};
}

Result<nlohmann::ordered_json> read_config_json(const std::string& folder) {
  const std::string path = folder + "/config.json";
  ANYBIT_TRY(const io::MappedFile file, io::MappedFile::open(path));
  const auto* text = reinterpret_cast<const char*>(file.bytes().data());
  auto json = nlohmann::ordered_json::parse(text, text + file.bytes().size(), nullptr, false);
  if (!json.is_object())
    return Error{ErrorCode::corrupt_data, path + ": holds no JSON object: correct the file or fetch it again"};
  return json;
}

}  // namespace tool
