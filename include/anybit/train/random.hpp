#pragma once
// Random numbers by counter: the n-th number of a stream is a function of seed, stream and n, so that neither threads nor a
// resumed run change it.

#include <cstdint>

#include <anybit/core/config.hpp>

namespace anybit::train {
inline namespace ANYBIT_ABI {

/// SplitMix64's output function (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64 bits in which every input bit changes
/// half of the output bits.
constexpr std::uint64_t mix_bits(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// draw(n) = mix(key + n gamma), key = mix(mix(seed + gamma) + stream), with SplitMix64's gamma: the n-th output of SplitMix64
/// started at `key`.
class Draws {
 public:
  constexpr explicit Draws(std::uint64_t seed, std::uint64_t stream = 0) : key_(mix_bits(mix_bits(seed + gamma) + stream)) {}
  /// 64 uniform bits.
  constexpr std::uint64_t operator()(std::uint64_t n) const { return mix_bits(key_ + n * gamma); }
  /// In [0, 1), a multiple of 2^-24.
  constexpr float uniform(std::uint64_t n) const { return static_cast<float>((*this)(n) >> 40) * 0x1p-24f; }

 private:
  static constexpr std::uint64_t gamma = 0x9E3779B97F4A7C15u;
  std::uint64_t key_;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::train
