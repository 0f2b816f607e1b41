#pragma once

namespace tool {

/// anybit train: argv[0] is the command's name. The exit code of the program.
int run_train(int argc, const char* const* argv);

}  // namespace tool
