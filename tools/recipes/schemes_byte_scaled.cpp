#include <anybit/scheme/mixed_widths.hpp>

#include "compile.hpp"

namespace tool {

void add_byte_scaled_integers(Catalog& to) {
  using namespace anybit;
  to.add<presets::ByteScaledInt<2, 32>, with_gptq>();
  to.add<presets::ByteScaledInt<3, 64>, with_gptq>();
  to.add<presets::ByteScaledInt<3, 32>, with_gptq>();
  to.add<presets::ByteScaledInt<4, 64>, with_gptq>();
  to.add<presets::ByteScaledInt<4, 32>, with_gptq>();
  to.add<presets::ByteScaledInt<5, 64>, with_gptq>();
}

}  // namespace tool
