#pragma once
// Queries, keys and values as an engine holds them, and attention over them by the reference: for tests of kernel/attention.hpp.

#include <anybit/kernel/attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include <anybit/reference/attention.hpp>

#include "support/catch.hpp"

namespace raw_attention {

using namespace anybit;
using namespace anybit::kernel;

inline std::vector<float> normal_floats(unsigned seed, Index n) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = normal(rng);
  return v;
}

/// An engine's cache: one buffer with keys and values of a token side by side, heads some elements apart.
struct Engine {
  AttentionShape shape;
  Index length, gap;  ///< elements between heads that belong to nobody
  FloatType type = FloatType::f32;
  std::vector<float> keys, values;  ///< as they are after rounding to `type`
  std::vector<std::byte> memory;

  Index head_stride() const { return shape.head_dim + gap; }
  Index token_stride() const { return 2 * shape.kv_heads * head_stride(); }
  Index element() const { return type == FloatType::f32 ? 4 : 2; }

  Engine(AttentionShape s, Index positions, FloatType t, Index between)
      : shape(s),
        length(positions),
        gap(between),
        type(t),
        keys(normal_floats(2, positions * s.kv_heads * s.head_dim)),
        values(normal_floats(3, positions * s.kv_heads * s.head_dim)) {
    write();
  }
  void write() {
    // No byte behind the last vector: what reads there is found by a sanitizer.
    const Index last = (length - 1) * token_stride() + (2 * shape.kv_heads - 1) * head_stride() + shape.head_dim;
    memory.assign(static_cast<std::size_t>(last * element()), std::byte{0xFF});
    for (int kind = 0; kind < 2; ++kind)
      for (Index p = 0; p < length; ++p)
        for (Index h = 0; h < shape.kv_heads; ++h)
          for (Index j = 0; j < shape.head_dim; ++j) {
            float& x = (kind == 0 ? keys : values)[static_cast<std::size_t>((p * shape.kv_heads + h) * shape.head_dim + j)];
            const Index at = p * token_stride() + (kind * shape.kv_heads + h) * head_stride() + j;
            std::byte* const to = memory.data() + at * element();
            if (type == FloatType::f32) {
              std::memcpy(to, &x, 4);
            } else {
              const std::uint16_t half = type == FloatType::f16 ? f32_to_f16(x) : f32_to_bf16(x);
              x = type == FloatType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
              std::memcpy(to, &half, 2);
            }
          }
  }
  KvInputs kv() const {
    KvInputs k;
    k.keys = {memory.data(), type, token_stride(), head_stride()};
    k.values = {memory.data() + shape.kv_heads * head_stride() * element(), type, token_stride(), head_stride()};
    return k;
  }
  reference::Matrix matrix(const std::vector<float>& v) const {
    reference::Matrix m(length, shape.kv_heads * shape.head_dim);
    std::copy(v.begin(), v.end(), m.values.begin());
    return m;
  }
};

/// Queries (tokens, heads, head_dim) and room for results, head by head in memory.
struct Queries {
  AttentionShape shape;
  Index tokens;
  std::vector<float> q, out;
  Queries(AttentionShape s, Index n) : shape(s), tokens(n), q(normal_floats(1, n * s.heads * s.head_dim)), out(q.size(), -1.0f) {}
  AttentionInputs inputs(Index first, Index length, const AttentionOptions& o = {}) {
    AttentionInputs a;
    a.shape = shape, a.tokens = tokens, a.first = first, a.length = length, a.options = o;
    a.q = {q.data(), shape.head_dim, tokens * shape.head_dim};
    a.out = {out.data(), shape.head_dim, tokens * shape.head_dim};
    return a;
  }
};

/// In slices of `slice` units, with a vocabulary of kernel/dot_vocabulary.hpp.
template <class Arch = native_arch>
void run_slices(const AttentionInputs& a, const KvInputs& kv, Index slice = std::numeric_limits<Index>::max()) {
  const Status status = check(a, kv);
  INFO((status ? std::string() : status.error().message));
  REQUIRE(status);
  const auto bytes = static_cast<std::size_t>(attention_workspace(a, kv));
  std::vector<std::byte> workspace(bytes + 17, std::byte{0xFF});  // NaN wherever it is read before it is written
  for (Index at = 0, n = attention_units(a); at < n;) {
    const Index end = slice < n - at ? at + slice : n;
    if constexpr (std::is_same_v<Arch, native_arch>)
      attention(a, kv, at, end, workspace.data() + 1);
    else
      kernel::detail::attention_units<Arch>(a, kernel::detail::KvSource(kv, a.shape.head_dim), at, end, workspace.data() + 1);
    at = end;
  }
  for (std::size_t i = bytes + 1; i < workspace.size(); ++i) REQUIRE(workspace[i] == std::byte{0xFF});
  REQUIRE(workspace[0] == std::byte{0xFF});
}

inline reference::AttentionOptions reference_options(const AttentionOptions& o) {
  reference::AttentionOptions r;
  r.scale = double{o.scale}, r.soft_cap = double{o.soft_cap}, r.window = o.window, r.causal = o.causal;
  r.slopes = reference::Vector(std::vector<double>(o.slopes.begin(), o.slopes.end()));
  return r;
}

/// The largest difference from the reference over all tokens; NaN if there is one.
inline double difference(const AttentionInputs& a, const reference::Matrix& keys, const reference::Matrix& values) {
  const reference::AttentionOptions o = reference_options(a.options);
  double most = 0;
  for (Index t = 0; t < a.tokens; ++t) {
    reference::Vector q(a.shape.heads * a.shape.head_dim);
    for (Index h = 0; h < a.shape.heads; ++h)
      for (Index j = 0; j < a.shape.head_dim; ++j) q[h * a.shape.head_dim + j] = double{a.q.at(t, h)[j]};
    const reference::Vector should = reference::attend(q, a.first + t, keys, values, a.shape.head_dim, o);
    for (Index h = 0; h < a.shape.heads; ++h)
      for (Index j = 0; j < a.shape.head_dim; ++j) {
        const double off = std::abs(double{a.out.at(t, h)[j]} - should[h * a.shape.head_dim + j]);
        most = off > most || off != off ? off : most;
      }
  }
  return most;
}

inline const std::vector<float> some_slopes{0.5f, 0.0f, 0.03f, 1.0f, 0.25f, 0.125f, 0.7f, 0.01f, 0.02f};

}  // namespace raw_attention
