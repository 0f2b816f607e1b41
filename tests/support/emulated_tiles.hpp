#pragma once
// Tile registers as plain arrays, with the contract of AmxTiles: for processors that have none. Uses that hardware would answer
// with a fault fail the test.

#include <anybit/core/half.hpp>
#include <anybit/core/types.hpp>

#include <bit>
#include <cstring>

#include "support/catch.hpp"

namespace emulated {

using anybit::Index;

class Tiles {
 public:
  static constexpr Index least_tokens = 1;

  /// What the system answers to a request.
  static inline bool permitted = true;
  /// Of this thread.
  static bool configured() { return state().configured; }
  static inline thread_local long products = 0, releases = 0;

  static bool available() { return permitted; }
  static void configure(int tokens) {
    if (!permitted) fault("tiles are configured without permission");
    if (tokens < 1 || tokens > 16) fault("a tile of no rows, or of more than 16");
    state() = {};
    state().configured = true;
    for (int i = 0; i < 8; ++i) state().rows[i] = i < 6 ? tokens : 16;
  }
  static void release() { state().configured = false, ++releases; }

  template <int T>
  static void zero() {
    std::memset(tile<T>(), 0, 1024);
  }
  template <int T>
  static void load(const void* p, Index stride) {
    zero<T>();
    for (int r = 0; r < state().rows[T]; ++r) std::memcpy(tile<T>() + 64 * r, static_cast<const char*>(p) + r * stride, 64);
  }
  template <int T>
  static void store(void* p, Index stride) {
    for (int r = 0; r < state().rows[T]; ++r) std::memcpy(static_cast<char*>(p) + r * stride, tile<T>() + 64 * r, 64);
  }
  template <int C, int A, int B>
  static void dpbssd() {
    dot_bytes<std::int8_t, C, A, B>();
  }
  template <int C, int A, int B>
  static void dpbsud() {
    dot_bytes<std::uint8_t, C, A, B>();
  }
  /// Even and odd products of a row of A are summed apart, without rounding of a product, then join and are added to C.
  template <int C, int A, int B>
  static void dpbf16ps() {
    check_registers<C, A, B>();
    for (int m = 0; m < state().rows[C]; ++m)
      for (int n = 0; n < 16; ++n) {
        float sums[2] = {};
        for (int k = 0; k < 16; ++k)
          for (int j = 0; j < 2; ++j)
            sums[j] = static_cast<float>(static_cast<double>(sums[j]) +
                                         static_cast<double>(bf16(tile<A>() + 64 * m + 4 * k + 2 * j)) *
                                             static_cast<double>(bf16(tile<B>() + 64 * k + 4 * n + 2 * j)));
        float c;
        std::memcpy(&c, tile<C>() + 64 * m + 4 * n, 4);
        c += sums[0] + sums[1];
        std::memcpy(tile<C>() + 64 * m + 4 * n, &c, 4);
      }
  }

 private:
  struct State {
    bool configured = false;
    int rows[8] = {};
    unsigned char bytes[8][1024] = {};
  };
  static State& state() {
    static thread_local State s;
    return s;
  }
  static void fault(const char* what) { FAIL("emulated tiles: " << what); }
  template <int T>
  static unsigned char* tile() {
    static_assert(0 <= T && T < 8);
    if (!state().configured) fault("used before they are configured");
    return state().bytes[T];
  }
  static float bf16(const unsigned char* p) {
    std::uint16_t bits;
    std::memcpy(&bits, p, 2);
    return anybit::bf16_to_f32(bits);
  }
  template <int C, int A, int B>
  static void check_registers() {
    static_assert(C != A && C != B && A != B, "assemblers refuse one tile twice");
    static_assert(C < 6 && A < 6 && B >= 6, "registers 6 and 7 are for weights");
    ++products;
  }
  template <class Element, int C, int A, int B>
  static void dot_bytes() {
    check_registers<C, A, B>();
    for (int m = 0; m < state().rows[C]; ++m)
      for (int n = 0; n < 16; ++n) {
        std::uint32_t sum;
        std::memcpy(&sum, tile<C>() + 64 * m + 4 * n, 4);
        for (int k = 0; k < 64; ++k) {
          const int a = std::bit_cast<std::int8_t>(tile<A>()[64 * m + k]),
                    b = static_cast<Element>(tile<B>()[64 * (k / 4) + 4 * n + k % 4]);
          sum += static_cast<std::uint32_t>(a * b);
        }
        std::memcpy(tile<C>() + 64 * m + 4 * n, &sum, 4);
      }
  }
};

/// A vocabulary of kernel/dot_vocabulary.hpp with tiles beside.
template <class Base>
struct WithTiles : Base {
  using Vectors = Base;
  using Matrix = Tiles;
};

}  // namespace emulated
