#pragma once
// `anybit convert`: a quantized checkpoint in another format of the field.

namespace tool {

int run_convert(int argc, const char* const* argv);

}  // namespace tool
