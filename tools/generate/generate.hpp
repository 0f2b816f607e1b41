#pragma once
// `anybit generate`: continues a text.

namespace tool {

int run_generate(int argc, const char* const* argv);

}  // namespace tool
