// Every instruction of kernel/x86/amx/tiles.hpp once, in this order, each with registers that tell its operands apart.

#include <anybit/kernel/x86/amx/tiles.hpp>

void every_instruction(const void* from, void* to, anybit::Index stride) {
  using anybit::kernel::AmxTiles;
  AmxTiles::configure(16);
  AmxTiles::zero<5>();
  AmxTiles::load<6>(from, stride);
  AmxTiles::dpbssd<0, 4, 6>();
  AmxTiles::dpbsud<1, 5, 7>();
  AmxTiles::dpbf16ps<3, 4, 7>();
  AmxTiles::store<2>(to, stride);
  AmxTiles::release();
}
