#pragma once
// The tree that the program was built from, whose documentation is the default text and whose tools/ have the papers' claims.

#include <string>

namespace tool {

/// Its folder, whether or not it is still there.
std::string source_tree();

}  // namespace tool
