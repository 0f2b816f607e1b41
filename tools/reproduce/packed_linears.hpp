#pragma once

#include <vector>

#include <anybit/nn/linear.hpp>

namespace reproduce {

struct PackedLinears {
  std::vector<anybit::nn::Linear> linears;
};

}  // namespace reproduce
