// The options of attention over the KV cache, against reference/attention.hpp.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/nn/attention.hpp>
#include <anybit/nn/kv_cache.hpp>
#include <anybit/reference/attention.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace anybit;
using namespace anybit::nn;
using test_support::same_bits;

namespace {

struct Tokens {
  AttentionShape c;
  Matrix q, k, v;
  Tokens(AttentionShape shape, Index count)
      : c(shape),
        q(normal_values(1, count, c.heads * c.head_dim)),
        k(normal_values(2, count, c.kv_heads * c.head_dim)),
        v(normal_values(3, count, c.kv_heads * c.head_dim)) {}
  Index count() const { return q.rows(); }

 private:
  static Matrix normal_values(unsigned seed, Index rows, Index cols) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0, 1);
    Matrix m(rows, cols);
    for (Index i = 0; i < rows * cols; ++i) m.data()[i] = normal(rng);
    return m;
  }
};

/// All tokens in pieces of at most `piece`.
Matrix attention_in_pieces(const Tokens& s, const KvCacheConfig& kv, Index piece, const AttentionOptions& o,
                           ExecutorRef executor = {}) {
  KvCache cache({1, s.c.kv_heads, s.c.head_dim}, s.count(), kv);
  Matrix out(s.count(), s.q.cols());
  for (Index at = 0; at < s.count(); at += piece) {
    const Index end = std::min(at + piece, s.count());
    Matrix k(s.k.view().row_range(at, end)), v(s.v.view().row_range(at, end));
    cache.append(0, k.view(), v.view(), executor);
    attention(s.c, s.q.view().row_range(at, end), cache, 0, out.view().row_range(at, end), executor, o);
    cache.settle(0, end - at);
    cache.advance(end - at);
  }
  return out;
}

reference::Matrix by_definition(const Tokens& s, const AttentionOptions& o) {
  reference::AttentionOptions r;
  r.scale = double{o.scale}, r.soft_cap = double{o.soft_cap}, r.window = o.window, r.causal = o.causal;
  r.slopes = reference::Vector(std::vector<double>(o.slopes.begin(), o.slopes.end()));
  return reference::attention(reference::matrix_of(s.q), reference::matrix_of(s.k), reference::matrix_of(s.v), s.c.head_dim, r);
}

double largest_difference(const Matrix& is, const reference::Matrix& should) {
  double most = 0;
  for (Index r = 0; r < is.rows(); ++r)
    for (Index c = 0; c < is.cols(); ++c) {
      const double off = std::abs(double{is(r, c)} - should(r, c));
      most = off > most || off != off ? off : most;
    }
  return most;
}

std::vector<AttentionOptions> all_options(std::span<const float> slopes) {
  std::vector<AttentionOptions> all;
  for (const bool causal : {true, false})
    for (const Index window : {Index{0}, Index{1}, Index{5}, Index{32}, Index{100}, std::numeric_limits<Index>::max()})
      for (const int others : {0, 1, 2, 3}) {
        AttentionOptions o;
        o.causal = causal, o.window = window;
        if (others & 1) o.soft_cap = 1.5f, o.scale = 0.4f;
        if (others & 2) o.slopes = slopes;
        all.push_back(o);
      }
  return all;
}

}  // namespace

TEST_CASE("window, soft cap, scale and slopes agree with the reference, causal or not") {
  for (const AttentionShape& c : {AttentionShape{4, 2, 10}, AttentionShape{3, 3, 33}, AttentionShape{6, 1, 16}})
    for (const Index count : {1, 31, 77, 301}) {
      const Tokens s(c, count);
      const std::vector<float> slopes{0.5f, 0.0f, 0.03f, 1.0f, 0.25f, 0.125f};
      for (const AttentionOptions& o : all_options(std::span(slopes).first(static_cast<std::size_t>(c.heads)))) {
        CAPTURE(c.heads, c.head_dim, count, o.causal, o.window, o.soft_cap, o.slopes.size());
        const Matrix whole = attention_in_pieces(s, {}, count, o);
        CHECK(largest_difference(whole, by_definition(s, o)) < 1e-5);
        if (!o.causal || count > 100) continue;
        CHECK(same_bits(attention_in_pieces(s, {}, 1, o), whole));
        CHECK(same_bits(attention_in_pieces(s, {}, 45, o), whole));
      }
    }
}

TEST_CASE("options over codes: the same bits in any pieces and for any number of threads") {
  const Tokens s({6, 2, 24}, 300);
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 1.0f, 2.0f, 0.01f};
  AttentionOptions o;
  o.soft_cap = 20, o.slopes = slopes;
  for (const Index window : {0, 40, 260})
    for (const int bits : {16, 8, 4}) {
      CAPTURE(window, bits);
      o.window = window;
      const KvCacheConfig kv{bits, 0, false};
      const Matrix whole = attention_in_pieces(s, kv, 300, o);
      CHECK(largest_difference(whole, by_definition(s, o)) < (bits == 16 ? 1e-3 : bits == 8 ? 0.03 : 0.6));
      CHECK(same_bits(attention_in_pieces(s, kv, 7, o), whole));
      ThreadPool pool(3);
      CHECK(same_bits(attention_in_pieces(s, kv, 300, o, pool), whole));
      CHECK(same_bits(attention_in_pieces(s, kv, 1, o, pool), whole));
    }
}

TEST_CASE("NaN and infinity in a token reach only the tokens that see it") {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  const Index at = 50;
  for (const float x : bad)
    for (const int where : {0, 1, 2})  // in q, k, v
      for (const Index window : {0, 20}) {
        CAPTURE(x, where, window);
        Tokens s({4, 2, 16}, 100);
        AttentionOptions o;
        o.window = window;
        const Matrix clean = attention_in_pieces(s, {}, 100, o);
        (where == 0 ? s.q : where == 1 ? s.k : s.v)(at, 3) = x;
        const Matrix out = attention_in_pieces(s, {}, 100, o);
        for (Index t = 0; t < 100; ++t) {
          const bool sees = where == 0 ? t == at : t >= at && (window == 0 || t - at < window);
          CAPTURE(t);
          if (!sees) CHECK(std::memcmp(out.data() + t * 64, clean.data() + t * 64, 64 * sizeof(float)) == 0);
          // k's infinity times a negative query is a score of minus infinity, which weighs nothing.
          if (sees && !(where == 1 && std::isinf(x))) CHECK(!std::isfinite(out(t, 3)));
          CHECK(std::memcmp(out.data() + t * 64 + 32, clean.data() + t * 64 + 32, 32 * sizeof(float)) == 0);  // the other heads
        }
        CHECK(same_bits(attention_in_pieces(s, {}, 1, o), out));
      }
}

TEST_CASE("numbers by distance are added to scores as the reference adds them, causal or not") {
  for (const AttentionShape& c : {AttentionShape{4, 2, 10}, AttentionShape{3, 3, 33}})
    for (const Index count : {1, 31, 77, 301})
      for (const Index reach : {0, 1, 20, 64, 400}) {
        const Tokens s(c, count);
        std::mt19937 rng(9);
        std::normal_distribution<float> normal(0, 2);
        std::vector<float> bias(static_cast<std::size_t>(c.heads * (2 * reach + 1)));
        for (float& b : bias) b = normal(rng);
        reference::Matrix table(c.heads, 2 * reach + 1);
        table.values.assign(bias.begin(), bias.end());
        for (const bool causal : {true, false})
          for (const float scale : {0.0f, 1.0f}) {
            CAPTURE(c.heads, c.head_dim, count, reach, causal, scale);
            AttentionOptions o;
            o.causal = causal, o.scale = scale, o.distance_bias = bias;
            reference::AttentionOptions r;
            r.causal = causal, r.scale = double{scale}, r.distance_bias = table;
            const Matrix whole = attention_in_pieces(s, {}, count, o);
            CHECK(largest_difference(whole, reference::attention(reference::matrix_of(s.q), reference::matrix_of(s.k),
                                                                 reference::matrix_of(s.v), c.head_dim, r)) < 1e-4);
            if (!causal || count > 100) continue;
            CHECK(same_bits(attention_in_pieces(s, {}, 1, o), whole));
            CHECK(same_bits(attention_in_pieces(s, {}, 45, o), whole));
          }
      }
}

TEST_CASE("cross-attention sees all of its source, for tokens in pieces or at once") {
  ThreadPool pool(3);
  for (const AttentionShape& c : {AttentionShape{4, 2, 10}, AttentionShape{5, 5, 8}})
    for (const auto& size : {std::pair<Index, Index>{1, 1}, {1, 40}, {33, 1}, {70, 45}, {300, 3}}) {
      const Index source = size.first, count = size.second;
      CAPTURE(c.heads, source, count);
      const Tokens s(c, source), queries(c, count);
      KvCache cache({2, c.kv_heads, c.head_dim}, source);
      Matrix k(s.k.view()), v(s.v.view());
      cache.append(1, k.view(), v.view(), {});
      const auto run = [&](Index piece, ExecutorRef executor = {}) {
        Matrix out(count, queries.q.cols());
        for (Index at = 0; at < count; at += piece) {
          const Index end = std::min(at + piece, count);
          cross_attention(c, queries.q.view().row_range(at, end), cache, 1, source, out.view().row_range(at, end), executor);
        }
        return out;
      };
      reference::AttentionOptions all;
      all.causal = false;
      const Matrix whole = run(count);
      CHECK(largest_difference(whole, reference::attention(reference::matrix_of(queries.q), reference::matrix_of(s.k),
                                                           reference::matrix_of(s.v), c.head_dim, all)) < 1e-5);
      CHECK(same_bits(run(1), whole));
      CHECK(same_bits(run(7, pool), whole));
      cache.advance(source);
      CHECK(same_bits(run(count), whole));
    }
}
