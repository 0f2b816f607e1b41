#pragma once

namespace tool {

/// anybit gradients: argv[0] is the command's name. The exit code of the program.
int run_gradients(int argc, const char* const* argv);

}  // namespace tool
