#pragma once
// The quantization_config that a converted checkpoint's readers need.

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "target.hpp"

namespace tool {

/// What a module's tensors are, for the config.
struct WrittenModule {
  std::string name;
  anybit::io::Levels levels = anybit::io::Levels::integer;
  int bits = 4;
  anybit::Index group = 0, inputs = 0;
  bool symmetric = false;
  bool ordered = false;  ///< act-order
};

/// `floats`: matrices that stay as they are, embeddings apart.
nlohmann::ordered_json quantization_config(Format to, std::vector<WrittenModule> modules, const std::vector<std::string>& floats);

}  // namespace tool
