#include <anybit/scheme/presets.hpp>

#include "compile.hpp"

namespace tool {

void add_superfloats(Catalog& to) {
  using namespace anybit;
  to.add<presets::ScaledSuperfloat<8>, nearest_only>();
  to.add<presets::ScaledSuperfloat<7>, nearest_only>();
  to.add<presets::ScaledSuperfloat<6>, nearest_only>();
  to.add<presets::ScaledSuperfloat<5>, nearest_only>();
  to.add<presets::ScaledSuperfloat<4>, with_gptq | with_awq>();
  to.add<presets::ScaledSuperfloat<3>, nearest_only>();
  to.add<presets::Superfloat4Group32, nearest_only>();
  to.add<presets::PublishedSuperfloat8, nearest_only>();
}

}  // namespace tool
