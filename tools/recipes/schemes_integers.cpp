#include <anybit/scheme/presets.hpp>

#include "compile.hpp"

namespace tool {

void add_integers(Catalog& to) {
  using namespace anybit;
  to.add<presets::Int<8>, nearest_only>();
  to.add<presets::Int<4>, with_gptq | with_pruning>();
  to.add<presets::Int<3>, nearest_only>();
  to.add<presets::Int<2>, nearest_only>();
  to.add<presets::Int8Group32, nearest_only>();
  to.add<presets::Int8PerRow, with_smooth_quant>();
}

}  // namespace tool
