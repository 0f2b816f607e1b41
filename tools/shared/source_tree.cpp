#include "source_tree.hpp"

namespace tool {

std::string source_tree() { return ANYBIT_SOURCE_TREE; }

}  // namespace tool
