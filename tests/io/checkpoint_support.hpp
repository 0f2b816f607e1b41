#pragma once
// Shared by the tests of quantized checkpoints.

#include <array>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/io/checkpoint_tensors.hpp>

namespace checkpoint_support {

using namespace anybit;
using namespace anybit::io;

/// A module of tensors that a test made; it keeps them.
struct Module {
  std::deque<OwnedTensor> owned;
  std::deque<TensorInfo> infos;
  ModuleTensors tensors;

  explicit Module(std::string name) { tensors.name = std::move(name); }
  Module(std::string name, std::vector<OwnedTensor> list) : Module(std::move(name)) {
    for (OwnedTensor& t : list) {
      t.name.erase(0, tensors.name.size() + 1);
      add(std::move(t));
    }
  }
  Module(Module&&) = default;  // elements of deques stay where they are
  void add(OwnedTensor t) {
    owned.push_back(std::move(t));
    infos.push_back(owned.back().info());
    tensors.tensors[owned.back().name] = &infos.back();
  }
  TensorInfo& operator[](const char* part) { return const_cast<TensorInfo&>(*tensors.tensors.at(part)); }
};

/// An integer layer of random codes; zero points run over all codes.
inline CheckpointLinear random_linear(Index rows, Index cols, int bits, Index group, bool symmetric, unsigned seed = 7) {
  std::mt19937 random(seed);
  CheckpointLinear l;
  l.extents = {rows, cols};
  l.bits = bits;
  l.group = group;
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (Index i = 0; i < rows * cols; ++i) l.codes.push_back(static_cast<std::uint8_t>(below(1 << bits)));
  for (Index i = 0; i < l.count(); ++i) {
    l.scales.push_back(f16_to_f32(f32_to_f16(static_cast<float>(1 + below(1000)) * 1e-4f)));
    if (!symmetric) l.zeros.push_back(static_cast<float>(below(1 << bits)));
  }
  return l;
}

inline std::uint32_t crc32(const Matrix& w) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int k = 0; k < 8; ++k) t[i] = t[i] & 1 ? 0xEDB88320u ^ t[i] >> 1 : t[i] >> 1;
    }
    return t;
  }();
  std::uint32_t crc = ~0u;
  const auto* p = reinterpret_cast<const unsigned char*>(w.data());
  for (std::size_t i = 0; i < static_cast<std::size_t>(w.extents().size()) * sizeof(float); ++i)
    crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
  return ~crc;
}

}  // namespace checkpoint_support
