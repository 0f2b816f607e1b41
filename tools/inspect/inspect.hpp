#pragma once
// `anybit inspect`: metadata and tensors of a model file.

namespace tool {

int run_inspect(int argc, const char* const* argv);

}  // namespace tool
