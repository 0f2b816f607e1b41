#include <anybit/scheme/presets.hpp>

#include "compile.hpp"

namespace tool {

void add_other_formats(Catalog& to) {
  using namespace anybit;
  to.add<presets::Nf4DoubleQuant, nearest_only>();
  to.add<presets::Nf4Plain, nearest_only>();
  to.add<presets::Mxfp4, nearest_only>();
  to.add<presets::BitNet, nearest_only>();
  to.add<presets::TernaryGroup128, nearest_only>();
}

}  // namespace tool
