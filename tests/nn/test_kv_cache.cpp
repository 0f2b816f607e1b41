// The KV cache and attention from it, against reference/attention.hpp over keys and values rounded by
// reference/kv_quantization.hpp.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/nn/attention.hpp>
#include <anybit/nn/kv_cache.hpp>
#include <anybit/reference/attention.hpp>
#include <anybit/reference/kv_quantization.hpp>
#include <anybit/reference/quarot.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace anybit;
using namespace anybit::nn;
using test_support::same_bits;

namespace {

/// Of two layers.
struct Shape : AttentionShape {
  Index query_width() const { return heads * head_dim; }
  Index kv_width() const { return kv_heads * head_dim; }
  operator KvShape() const { return {2, kv_heads, head_dim}; }
};
Shape shape(Index heads, Index kv_heads, Index head_dim) { return {{heads, kv_heads, head_dim}}; }

Matrix key_like_matrix(unsigned seed, Index rows, Index cols) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 1);
  Matrix m(rows, cols);
  // Channels differ in size and lie off zero, as keys do.
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) m(r, c) = normal(rng) * (c % 7 == 3 ? 4.0f : 1.0f) + static_cast<float>(c % 5) - 2;
  return m;
}

struct Sequence {
  Shape c;
  Matrix q, k, v;
  Sequence(Shape config, Index tokens)
      : c(config),
        q(key_like_matrix(1, tokens, c.query_width())),
        k(key_like_matrix(2, tokens, c.kv_width())),
        v(key_like_matrix(3, tokens, c.kv_width())) {}
};

/// Tokens from .. to - 1 into every layer, the attention of layer 1.
Matrix run_piece(KvCache& cache, const Sequence& s, Index from, Index to, ExecutorRef executor = {}) {
  Matrix out(to - from, s.c.query_width());
  for (Index layer = 0; layer < 2; ++layer) {
    Matrix k(s.k.view().row_range(from, to)), v(s.v.view().row_range(from, to));
    cache.append(layer, k.view(), v.view(), executor);
    attention(s.c, s.q.view().row_range(from, to), cache, layer, out.view(), executor);
    cache.settle(layer, to - from);
  }
  cache.advance(to - from);
  return out;
}

/// The same in pieces of the given lengths, repeated.
Matrix run(KvCache& cache, const Sequence& s, const std::vector<Index>& pieces, ExecutorRef executor = {}) {
  Matrix out(s.q.rows(), s.q.cols());
  for (Index at = 0, i = 0; at < s.q.rows(); ++i) {
    const Index end = std::min(at + pieces[static_cast<std::size_t>(i) % pieces.size()], s.q.rows());
    const Matrix some = run_piece(cache, s, at, end, executor);
    std::memcpy(out.data() + at * out.cols(), some.data(), static_cast<std::size_t>(some.extents().size()) * sizeof(float));
    at = end;
  }
  return out;
}

float rounded_to_half(float x) { return f16_to_f32(f32_to_f16(x)); }

/// What the cache keeps of keys and values once they are `settled`, by reference/.
reference::Matrix settled(const reference::Matrix& m, int bits, Index head_dim, bool keys) {
  if (bits == 32) return m;
  if (bits < 16)
    return keys ? reference::kv_rounded_keys(m, bits, 32, rounded_to_half)
                : reference::kv_rounded_values(m, bits, 32, head_dim, rounded_to_half);
  reference::Matrix rounded = m;
  for (double& v : rounded.values) v = double{rounded_to_half(static_cast<float>(v))};
  return rounded;
}

/// Each token sees the keys and values before it: rounded where they lie more than `residual` before its run of 32, else as they
/// are.
reference::Matrix expected_attention(const Sequence& s, const KvCacheConfig& kv) {
  const Index d = s.c.head_dim;
  reference::Matrix q = reference::matrix_of(s.q), k = reference::matrix_of(s.k), v = reference::matrix_of(s.v),
                    out(q.rows, q.cols);
  const reference::Matrix h = kv.hadamard ? reference::normalized(reference::sylvester(d)) : reference::Matrix();
  if (kv.hadamard) q = rotated_heads(q, h), k = rotated_heads(k, h), v = rotated_heads(v, h);
  const reference::Matrix rounded_k = settled(k, kv.bits, d, true), rounded_v = settled(v, kv.bits, d, false);
  for (Index p = 0; p < q.rows; ++p) {
    const Index rounded = std::max(p / 32 * 32 - kv.residual, Index{0});
    reference::Matrix keys(p + 1, k.cols), values(p + 1, k.cols);
    for (Index t = 0; t <= p; ++t)
      for (Index c = 0; c < k.cols; ++c)
        keys(t, c) = (t < rounded ? rounded_k : k)(t, c), values(t, c) = (t < rounded ? rounded_v : v)(t, c);
    const reference::Vector row = attend(q.row(p), p, keys, values, d);
    for (Index j = 0; j < q.cols; ++j) out(p, j) = row[j];
  }
  return kv.hadamard ? rotated_heads(out, h) : out;
}

double worst_difference(const Matrix& is, const reference::Matrix& should) {
  double worst = 0;
  for (Index r = 0; r < is.rows(); ++r)
    for (Index c = 0; c < is.cols(); ++c) worst = std::max(worst, std::abs(static_cast<double>(is(r, c)) - should(r, c)));
  return worst;
}

double relative_error(const Matrix& a, const Matrix& b) {
  double error = 0, size = 0;
  for (Index i = 0; i < a.extents().size(); ++i) {
    const double x = static_cast<double>(a.data()[i]), y = static_cast<double>(b.data()[i]);
    error += (x - y) * (x - y), size += y * y;
  }
  return std::sqrt(error / size);
}

}  // namespace

TEST_CASE("attention from floats and from codes agrees with the reference, in any pieces") {
  struct Case {
    Index heads, kv_heads, head_dim, tokens;
  };
  for (const auto& [heads, kv_heads, head_dim, tokens] : {Case{4, 2, 64, 110}, Case{3, 3, 10, 97}, Case{2, 1, 34, 129},
                                                          Case{2, 2, 2, 64}, Case{3, 1, 16, 200}, Case{1, 1, 128, 70}})
    for (const int bits : {32, 16, 8, 4, 3, 2})
      for (const Index residual : bits == 4 ? std::vector<Index>{0, 32, 96} : std::vector<Index>{32})
        for (const bool rotated : {false, true}) {
          if (rotated && !std::has_single_bit(static_cast<std::size_t>(head_dim))) continue;
          CAPTURE(heads, kv_heads, head_dim, tokens, bits, residual, rotated);
          const Sequence s(shape(heads, kv_heads, head_dim), tokens);
          const KvCacheConfig kv{bits, residual, rotated};
          REQUIRE(check(kv, KvShape(s.c)));
          KvCache cache(s.c, tokens, kv);
          const Matrix whole = run(cache, s, {tokens});
          CHECK(cache.length() == tokens);
          // Rotated in float, a value in the middle between two codes may go the other way.
          const double rounding = bits < 32 && rotated ? 0.02 : 0;
          CHECK(worst_difference(whole, expected_attention(s, kv)) < 5e-5 * (1 + std::sqrt(head_dim)) + rounding);
          for (const std::vector<Index>& pieces : {std::vector<Index>{1}, {33, 1, 7}, {64, tokens}}) {
            CAPTURE(pieces);
            KvCache again(s.c, tokens + 40, kv);
            CHECK(same_bits(run(again, s, pieces), whole));
          }
        }
}

TEST_CASE("more bits are closer to floats") {
  const Sequence s(shape(6, 2, 64), 400);
  KvCache floats(s.c, 400);
  const Matrix exact = run(floats, s, {400});
  double before = 0;
  for (const int bits : {16, 8, 4, 3, 2}) {
    CAPTURE(bits);
    KvCache cache(s.c, 400, {bits, 32, false});
    const double error = relative_error(run(cache, s, {400}), exact);
    CHECK(error > before);
    CHECK(error < (bits == 16 ? 0.0005 : bits == 8 ? 0.008 : 0.5));
    before = error;
  }
}

TEST_CASE("the same bits for any number of threads, prompt and single tokens") {
  for (const KvCacheConfig& kv : {KvCacheConfig{}, KvCacheConfig{4, 32, true}, KvCacheConfig{3, 0, false}}) {
    const Sequence s(shape(9, 3, 16), 330);
    KvCache cache(s.c, 330, kv);
    const Matrix serial = run(cache, s, {320, 1});
    for (const Index threads : {2, 3, 8}) {
      CAPTURE(kv.bits, threads);
      ThreadPool pool(threads);
      cache.clear();
      CHECK(same_bits(run(cache, s, {320, 1}, pool), serial));
    }
  }
}

TEST_CASE("a cache goes back to any length and on from there") {
  const Index tokens = 230;
  const Sequence s(shape(4, 2, 32), tokens);
  for (const KvCacheConfig& kv : {KvCacheConfig{}, KvCacheConfig{16, 0, false}, KvCacheConfig{8, 64, false},
                                  KvCacheConfig{4, 32, true}, KvCacheConfig{8, 0, true}}) {
    KvCache fresh(s.c, tokens, kv);
    const Matrix whole = run(fresh, s, {tokens});
    for (Index length = 0; length <= tokens; length += 3) {
      CAPTURE(kv.bits, kv.residual, length);
      KvCache cache = fresh;
      cache.truncate(length);
      CHECK(cache.length() == length);
      if (length == tokens) continue;
      Matrix rest = run_piece(cache, s, length, std::min(length + 5, tokens));
      Matrix expected(whole.view().row_range(length, length + rest.rows()));
      // What was still there as floats when the cache went back is exact; what came back from codes is off by their rounding.
      const bool exact = kv.bits == 32 || length == 0 || length / 32 - kv.residual / 32 >= (tokens - 1) / 32 - kv.residual / 32;
      if (exact)
        CHECK(same_bits(rest, expected));
      else
        CHECK(relative_error(rest, expected) < (kv.bits >= 8 ? 0.02 : 0.2));
      if (cache.length() == tokens) continue;
      rest = run_piece(cache, s, cache.length(), tokens);
      CHECK(relative_error(rest, Matrix(whole.view().row_range(tokens - rest.rows(), tokens))) < (kv.bits >= 8 ? 0.02 : 0.2));
    }
  }
}

TEST_CASE("going back and forth many times loses no more than the codes do") {
  const Sequence s(shape(4, 2, 32), 200);
  for (const Index residual : {0, 32}) {
    KvCache cache(s.c, 200, {8, residual, false});
    const Matrix whole = run(cache, s, {200});
    std::mt19937 rng(5);
    Matrix last;
    for (int i = 0; i < 60; ++i) {
      cache.truncate(static_cast<Index>(rng() % 199));
      while (cache.length() < 200)
        last = run_piece(cache, s, cache.length(), std::min<Index>(cache.length() + 1 + static_cast<Index>(rng() % 90), 200));
    }
    CHECK(relative_error(last, Matrix(whole.view().row_range(200 - last.rows(), 200))) < 0.02);
  }
}

TEST_CASE("sizes are what the layout says") {
  const Shape c = shape(9, 3, 64);
  // Of 32 positions x 64 channels: codes, and 16 + 16 bits for each 32 values.
  CHECK(KvCache(c, 512, {16, 32, false}).bits_per_value() == 16.0);
  CHECK(KvCache(c, 512, {8, 32, false}).bits_per_value() == 9.0);
  CHECK(KvCache(c, 512, {4, 32, true}).bits_per_value() == 5.0);
  CHECK(KvCache(c, 512, {3, 32, false}).bits_per_value() == 4.0);
  CHECK(KvCache(c, 512, {2, 32, false}).bits_per_value() == 3.0);
  CHECK(KvCache(c, 512).bits_per_value() == 32.0);
  const Index floats = KvCache(c, 4096).bytes();
  CHECK(floats == Index{2} * 4096 * 3 * 2 * 64 * 4);
  // 2 blocks of floats and 126 of codes.
  CHECK(KvCache(c, 4096, {4, 32, false}).bytes() < floats * 5 / 32 * 126 / 128 + floats / 64 + 128);
}

TEST_CASE("values that are not finite spoil the sums that they are in and no others") {
  Sequence s(shape(2, 2, 32), 130);
  s.v(3, 40) = std::numeric_limits<float>::quiet_NaN();  // the second head's group
  s.k(5, 7) = std::numeric_limits<float>::infinity();    // the first head's
  KvCache cache(s.c, 130, {4, 0, false});
  const Matrix out = run(cache, s, {130});
  CHECK(std::isnan(out(129, 0)));
  CHECK(std::isnan(out(129, 40)));
  Sequence clean(shape(2, 2, 32), 130);
  clean.v(3, 40) = 1e30f;  // beyond binary16: not silently cut off
  for (const int bits : {16, 4}) {
    KvCache other(clean.c, 130, {bits, 0, false});
    CHECK(!std::isfinite(run(other, clean, {130})(129, 40)));
  }
}

TEST_CASE("what a KV cache cannot be is an error that says what to do") {
  const Shape c = shape(6, 2, 50);
  const auto message = [&](KvCacheConfig kv) {
    const auto status = check(kv, KvShape(c));
    return status ? std::string() : status.error().message;
  };
  CHECK(message({}).empty());
  CHECK(message({5, 32, false}) == "KV cache: 5 bits are not offered: choose 16, 8, 4, 3 or 2, or 32 for floats");
  CHECK(message({0, 32, false}).find("0 bits") != std::string::npos);
  CHECK(message({4, 33, false}).find("a residual of 33 positions: it must be a multiple of 32") != std::string::npos);
  CHECK(message({4, -32, false}).find("residual of -32") != std::string::npos);
  CHECK(
      message({4, 32, true}) ==
      "KV cache: heads of length 50 have no Hadamard rotation: switch it off (hadamard: there is no matrix of order 50; nearest to "
      "it are 48 and 52)");
}

TEST_CASE("heads whose length is no power of two are rotated, and back: floats give what no rotation gives") {
  for (const Index head_dim : {12, 24, 80}) {
    CAPTURE(head_dim);
    const Sequence s(shape(4, 2, head_dim), 70);
    KvCache plain(s.c, 70), rotated(s.c, 70, {.bits = 32, .residual = 32, .hadamard = true});
    const Matrix a = run(plain, s, {70}), b = run(rotated, s, {70});
    for (Index i = 0; i < a.extents().size(); ++i)
      if (std::abs(a.data()[i] - b.data()[i]) > 1e-4f) FAIL("output " << i << " is " << b.data()[i] << ", not " << a.data()[i]);
  }
}
