#pragma once

#include <string>

#include <anybit/core/types.hpp>

namespace tool {

/// "Intel(R) Xeon(R) ... , 2 threads, code for avx2".
std::string machine_description(anybit::Index threads);

}  // namespace tool
