#pragma once
// Everything that a quantized model holds, to compare two of them.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <anybit/model/decoder.hpp>

namespace test_support {

/// Packed bytes, floats of what is not packed, gains and biases, in the order of the weights.
inline std::vector<std::byte> bytes_of(const anybit::model::Decoder& d) {
  std::vector<std::byte> all;
  anybit::model::for_each_linear(d, [&](const std::string&, const anybit::nn::Linear& l) {
    if (l.extents().size() == 0) return;  // a head that is the embedding
    const auto bytes = l.packed() ? l.packed()->bytes().bytes()
                                  : std::as_bytes(std::span(l.dense()->data(), static_cast<std::size_t>(l.extents().size())));
    all.insert(all.end(), bytes.begin(), bytes.end());
  });
  for (const anybit::model::Weight& w : d.weights) {
    const auto bytes = std::as_bytes(std::span(w.values));
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

}  // namespace test_support
