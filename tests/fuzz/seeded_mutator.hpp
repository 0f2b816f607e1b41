#pragma once
// The mutator of fuzz targets whose corpus grows from good files: an input too short to be one becomes one first.

#include <cstdint>
#include <cstring>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

/// What LLVMFuzzerCustomMutator returns, with `seeds` the good files as strings.
template <class Seeds>
std::size_t mutate_from_seeds(const Seeds& seeds, std::uint8_t* data, std::size_t size, std::size_t most, unsigned random) {
  const auto& seed = seeds[random % seeds.size()];
  if (size < 16 && seed.size() <= most) {
    std::memcpy(data, seed.data(), seed.size());
    size = seed.size();
  }
  return LLVMFuzzerMutate(data, size, most);
}
