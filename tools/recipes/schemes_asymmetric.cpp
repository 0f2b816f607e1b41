#include <anybit/scheme/presets.hpp>

#include "compile.hpp"

namespace tool {

void add_asymmetric_integers(Catalog& to) {
  using namespace anybit;
  to.add<presets::AsymmetricInt<2>, with_gptq | with_awq>();
  to.add<presets::AsymmetricInt<3>, with_gptq | with_awq>();
  to.add<presets::AsymmetricInt<4>, with_gptq | with_awq>();
  to.add<presets::AsymmetricInt<5>, with_gptq>();
  to.add<presets::AsymmetricInt<6>, with_gptq | with_awq>();
  to.add<presets::AsymmetricInt<8>, with_gptq | with_awq>();
  to.add<Scheme<UInt<2>, PerGroup<64>>, with_gptq>();
  to.add<Scheme<UInt<3>, PerGroup<64>>, with_gptq>();
  to.add<presets::AsymmetricInt4Group64, nearest_only>();
  to.add<presets::AsymmetricInt4Group32, nearest_only>();
}

}  // namespace tool
