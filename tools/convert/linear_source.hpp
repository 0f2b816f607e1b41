#pragma once
// The weight matrices of a model in any file or folder that anybit reads, without its architecture: for commands that rewrite
// them.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/tensor_info.hpp>

namespace tool {

struct SourceMatrix {
  std::string module;                ///< the tensor's name without ".weight"
  std::vector<anybit::Index> shape;  ///< (outputs, inputs), of experts in one tensor with their number in front
  bool quantized = false;
};

class LinearSource {
 public:
  /// A Hugging Face folder, GGUF, safetensors, or anybit's own file.
  static anybit::Result<LinearSource> open(const std::string& path);

  LinearSource(LinearSource&&) noexcept;
  LinearSource& operator=(LinearSource&&) noexcept;
  ~LinearSource();

  /// "GPTQ checkpoint", "GGUF"; for messages.
  const std::string& format() const;
  /// Every tensor NAME.weight of two extents or more, and every quantized module, in the order of the file.
  const std::vector<SourceMatrix>& matrices() const;
  anybit::Result<anybit::Matrix> read_f32(const SourceMatrix&) const;
  /// Codes and scales as they are stored; empty where the file holds floats, or codes on a grid that CheckpointLinear is too
  /// simple for (super-blocks of GGUF, two-level scales).
  anybit::Result<std::optional<anybit::io::CheckpointLinear>> read_codes(const SourceMatrix&) const;
  /// Of a folder: every tensor that belongs to no quantized module, and biases of those that do. Views, valid while this lives.
  std::vector<anybit::io::TensorInfo> plain_tensors() const;
  /// Empty for a file.
  const std::string& folder() const;
  /// What a person should know about the input, one sentence each.
  const std::vector<std::string>& remarks() const;

 private:
  struct Opened;
  explicit LinearSource(std::unique_ptr<Opened>);
  std::unique_ptr<Opened> opened_;
};

}  // namespace tool
