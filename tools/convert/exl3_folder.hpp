#pragma once
// `anybit convert --to exl3`: a Hugging Face folder as exllamav3 writes it.

#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>
#include <anybit/kernel/any_packed.hpp>

#include "checkpoint_folder.hpp"
#include "linear_source.hpp"

namespace tool {

struct Exl3Request {
  int bits = 4;                   ///< of the linears of blocks, 1 to 8
  int head_bits = 6;              ///< of the output head, 1 to 8; 16: it stays as it is
  std::string codebook = "mul1";  ///< or mcg, 3inst
  std::string calibrate;          ///< a text for LDLQ, block by block; empty: tiles are rounded from the weights alone
  anybit::Index calibration_tokens = 8192;
  anybit::Index threads = 0;
  bool strict = false;  ///< an error where a layer has no usable Hessian
};

/// A module in the format, with its weights.
struct Exl3Module {
  std::string name;
  anybit::AnyPacked weights;
};

struct Exl3Model {
  std::vector<Exl3Module> modules;
  Exl3Request request;
  anybit::Index windows = 0, window = 0;  ///< that calibrated
  std::size_t padded = 0;                 ///< modules with extents that are no multiples of 128
  bool head = false;
  double bits_per_weight = 0;  ///< of all modules, scales and padding counted
  double worst_error = 0;      ///< relative error of the weights of `worst`
  std::string worst;
  std::vector<std::string> remarks;
};

/// Refuses, before the work, what the format or its readers have no name or extents for.
anybit::Result<Exl3Model> quantize_to_exl3(const LinearSource& source, const Exl3Request& request);

/// Every tensor and file of `source`, with the modules in place of their weights. config.json, whose head is no longer tied, and
/// quantization_config.json say what they are.
anybit::Status write_exl3_folder(const LinearSource& source, const Exl3Model& model, CheckpointFolder& to);

}  // namespace tool
