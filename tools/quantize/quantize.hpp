#pragma once
// `anybit quantize`: one recipe or one size in, one file out.

namespace tool {

int run_quantize(int argc, const char* const* argv);

}  // namespace tool
