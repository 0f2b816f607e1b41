#pragma once

#include <string>

#include <anybit/core/types.hpp>

namespace reproduce {

struct LabOptions {
  std::string model, tokenizer, evaluate;
  std::string calibrate;  ///< empty: the second half of `evaluate`, of which then only the first is evaluated
  anybit::Index tokens = 4096, calibration_tokens = 8192, window = 2048;
  anybit::Index threads = 0;  ///< 0: as many as the machine runs at once
};

}  // namespace reproduce
