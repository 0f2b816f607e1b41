#pragma once
// `anybit dequantize`: every weight matrix of a model as float32.

namespace tool {

int run_dequantize(int argc, const char* const* argv);

}  // namespace tool
