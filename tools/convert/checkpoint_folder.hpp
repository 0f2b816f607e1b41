#pragma once
// A Hugging Face folder being written: it appears whole or not at all, and never in the place of anything.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include <anybit/core/result.hpp>
#include <anybit/io/checkpoint_tensors.hpp>
#include <anybit/io/tensor_info.hpp>

namespace tool {

/// Files stand in a folder beside `path` until commit(), which gives it its name; without commit() the destructor removes it.
class CheckpointFolder {
 public:
  /// `path` must not exist, or be an empty folder.
  static anybit::Result<CheckpointFolder> create(const std::string& path, anybit::Index shard_bytes = anybit::Index{2} << 30);
  CheckpointFolder(CheckpointFolder&&) noexcept;
  CheckpointFolder& operator=(CheckpointFolder&&) = delete;
  ~CheckpointFolder();

  /// A tensor that this keeps until its shard is full and written.
  anybit::Status add(anybit::io::OwnedTensor t);
  anybit::Status write_text(const std::string& name, const std::string& text);
  anybit::Status copy(const std::filesystem::path& file);
  /// Copies the files of another folder that are neither weights nor the quantization's own: tokenizers, templates, generation
  /// settings.
  anybit::Status copy_other_files(const std::string& folder);
  /// Writes the rest of the tensors, in several shards an index, and renames the folder.
  anybit::Status commit();

 private:
  CheckpointFolder() = default;
  anybit::Status flush();
  std::string shard_name(std::size_t i, std::size_t of) const;

  std::string path_, temporary_;
  anybit::Index shard_bytes_ = 0, bytes_ = 0, total_bytes_ = 0;
  std::vector<anybit::io::OwnedTensor> tensors_;
  std::vector<std::vector<std::string>> shards_;  ///< names of the tensors in each
};

/// config.json of a folder.
anybit::Result<nlohmann::ordered_json> read_config_json(const std::string& folder);

}  // namespace tool
