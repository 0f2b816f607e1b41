#pragma once
// A model as a folder of Hugging Face: config.json, generation_config.json and weights in one safetensors file or in shards with
// an index. Everything is mapped, and every file is read once. Tokenizer files are read by model/tokenizer/.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/json.hpp>
#include <anybit/io/mapped_file.hpp>
#include <anybit/io/safetensors.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// An opened folder. Copies share configuration and mappings; tensors stay valid while one copy lives.
class HfFolder {
 public:
  /// The weights are model.safetensors, or the shards of model.safetensors.index.json, or the folder's only other *.safetensors
  /// file (in this order, the first of which is also that of transformers).
  static Result<HfFolder> open(const std::string& folder) {
    HfFolder out;
    out.name_ = folder;
    while (out.name_.size() > 1 && out.name_.back() == '/') out.name_.pop_back();
    if (!out.has("config.json"))
      return {ErrorCode::io, detail::text(out.name_, ": the folder has no config.json",
                                          out.has("adapter_config.json") ? " but an adapter: give the model that it belongs to"
                                                                         : ": give the folder of a Hugging Face model")};
    ANYBIT_TRY(JsonValue config, out.read_json("config.json"));
    out.config_ = std::make_shared<const JsonValue>(std::move(config));
    if (out.has("generation_config.json")) {
      ANYBIT_TRY(JsonValue generation, out.read_json("generation_config.json"));
      out.generation_ = std::make_shared<const JsonValue>(std::move(generation));
    }
    ANYBIT_TRY(const std::string weights, out.weights_file());
    ANYBIT_TRY(SafetensorsFile file, SafetensorsFile::open(weights));
    out.weights_.emplace(std::move(file));
    return out;
  }

  /// The folder as it was given, without separators at its end.
  const std::string& name() const { return name_; }
  /// The path of a file in the folder.
  std::string path(std::string_view file) const { return name_ + "/" + std::string(file); }
  bool has(std::string_view file) const {
    std::error_code ignored;
    return std::filesystem::exists(path(file), ignored);
  }

  JsonObject config() const { return JsonObject(*config_, path("config.json")); }
  /// Without members where the folder has no generation_config.json.
  JsonObject generation_config() const {
    return generation_ ? JsonObject(*generation_, path("generation_config.json")) : JsonObject();
  }

  const SafetensorsFile& weights() const { return *weights_; }
  const std::vector<TensorInfo>& tensors() const { return weights_->tensors(); }
  /// Null if there is none of that name.
  const TensorInfo* find(std::string_view tensor) const { return weights_->find(tensor); }
  Result<Matrix> read_f32(std::string_view tensor) const { return weights_->read_f32(tensor); }

 private:
  HfFolder() = default;

  Result<JsonValue> read_json(std::string_view file) const {
    ANYBIT_TRY(const MappedFile mapped, MappedFile::open(path(file)));
    const auto bytes = mapped.bytes();
    auto value = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    if (!value) return in_context(value.error(), path(file));
    if (!value->as<JsonValue::Object>())
      return {ErrorCode::corrupt_data,
              detail::text(path(file), ": holds ", detail::shown(*value), ", not an object: correct the file or fetch it again")};
    return value;
  }

  Result<std::string> weights_file() const {
    for (const char* name : {"model.safetensors", "model.safetensors.index.json"})
      if (has(name)) return path(name);
    std::vector<std::string> safetensors, indices, others;
    std::error_code failed;
    for (std::filesystem::directory_iterator at(name_, failed), end; !failed && at != end; at.increment(failed)) {
      const std::string name = at->path().filename().string();
      if (name.ends_with(".safetensors.index.json")) indices.push_back(name);
      if (name.ends_with(".safetensors")) safetensors.push_back(name);
      if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".gguf")) others.push_back(name);
    }
    if (indices.size() == 1) return path(indices[0]);
    if (indices.empty() && safetensors.size() == 1) return path(safetensors[0]);
    std::string message = name_ + ": the folder has no model.safetensors and no model.safetensors.index.json";
    if (safetensors.size() > 1)
      message += detail::text(" to say how its ", safetensors.size(), " *.safetensors files belong together: fetch the index");
    else if (!others.empty())
      message += ", but " + detail::shown(*std::min_element(others.begin(), others.end())) +
                 (others[0].ends_with(".gguf") ? ": give the path of that file" : ": convert the model to safetensors");
    else
      message += ": fetch the weights";
    return {ErrorCode::io, std::move(message)};
  }

  std::string name_;
  std::shared_ptr<const JsonValue> config_, generation_;
  std::optional<SafetensorsFile> weights_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
