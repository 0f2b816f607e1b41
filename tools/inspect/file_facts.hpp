#pragma once
// Facts that a model file states about itself, whatever its format.

#include <string>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>

namespace tool {

struct TensorFacts {
  std::string name;
  std::string type;  ///< of the file, "Q4_K", or the scheme of a packed tensor, "uint4/g128/f16/bits"
  std::vector<anybit::Index> shape;
  anybit::Index bytes = 0, weights = 0;

  double bits_per_weight() const { return weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0; }
};

struct FileFacts {
  std::string format;  ///< "GGUF", "anybit", "safetensors", "llama2.c"
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<TensorFacts> tensors;
};

anybit::Result<FileFacts> file_facts(const std::string& path);

}  // namespace tool
