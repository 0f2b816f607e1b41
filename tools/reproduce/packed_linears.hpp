#pragma once

#include <vector>

#include <anybit/model/linear.hpp>

namespace reproduce {

struct PackedLinears {
  std::vector<anybit::model::Linear> linears;
};

}  // namespace reproduce
