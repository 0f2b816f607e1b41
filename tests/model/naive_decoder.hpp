#pragma once
// The llama architecture once more, as plainly as it can be written: double precision, one token after the other, all
// positions recomputed. It shares no code with the library.

#include <cmath>
#include <cstddef>
#include <vector>

#include <anybit/model/decoder.hpp>

namespace test_support {

using Vector = std::vector<double>;

inline Vector times(const anybit::model::Linear& w, const Vector& x) {
  const anybit::Matrix& m = *w.dense();
  Vector y(static_cast<std::size_t>(m.rows()));
  for (anybit::Index r = 0; r < m.rows(); ++r)
    for (anybit::Index c = 0; c < m.cols(); ++c)
      y[static_cast<std::size_t>(r)] += static_cast<double>(m(r, c)) * x[static_cast<std::size_t>(c)];
  return y;
}

inline Vector normed(const Vector& x, const std::vector<float>& gain, double epsilon) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  Vector y(x.size());
  for (std::size_t j = 0; j < x.size(); ++j)
    y[j] = x[j] / std::sqrt(squares / static_cast<double>(x.size()) + epsilon) * static_cast<double>(gain[j]);
  return y;
}

/// Pairs (2i, 2i + 1) of each head turn by position * base^(-2i / rotary) / scale / factor.
inline void rotate(Vector& v, const anybit::model::DecoderConfig& c, std::size_t position) {
  const auto d = static_cast<std::size_t>(c.head_dim), rotary = static_cast<std::size_t>(c.rotary_dim);
  for (std::size_t head = 0; head < v.size(); head += d)
    for (std::size_t j = 0; j < rotary; j += 2) {
      const double factor = c.rope_factors.empty() ? 1 : static_cast<double>(c.rope_factors[j / 2]);
      const double angle = static_cast<double>(position) / static_cast<double>(c.rope_scale) / factor /
                           std::pow(static_cast<double>(c.rope_base), static_cast<double>(j) / static_cast<double>(rotary));
      const double a = v[head + j], b = v[head + j + 1];
      v[head + j] = a * std::cos(angle) - b * std::sin(angle);
      v[head + j + 1] = b * std::cos(angle) + a * std::sin(angle);
    }
}

/// Logits of every position; optionally the inputs of block `watched`'s four groups of linears.
struct NaiveInputs {
  std::size_t block = 0;
  std::vector<Vector> attn, mixed, ffn, product;
};

inline std::vector<Vector> naive_forward(const anybit::model::Decoder& d, const std::vector<anybit::model::TokenId>& ids,
                                         NaiveInputs* inputs = nullptr) {
  const auto& c = d.config;
  const auto size = [](anybit::Index i) { return static_cast<std::size_t>(i); };
  const auto epsilon = static_cast<double>(c.norm_epsilon);
  std::vector<Vector> x;
  for (const auto id : ids) {
    Vector row(size(c.dim));
    for (std::size_t j = 0; j < row.size(); ++j)
      row[j] = static_cast<double>((*d.token_embedding.dense())(id, static_cast<anybit::Index>(j)));
    x.push_back(row);
  }
  for (std::size_t block = 0; block < d.blocks.size(); ++block) {
    const auto& b = d.blocks[block];
    const bool watched = inputs && inputs->block == block;
    std::vector<Vector> keys, values;
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Vector a = normed(x[t], b.attn_norm, epsilon);
      Vector q = times(b.q, a), k = times(b.k, a);
      rotate(q, c, t), rotate(k, c, t);
      keys.push_back(k), values.push_back(times(b.v, a));
      Vector mixed(size(c.heads * c.head_dim));
      for (std::size_t h = 0; h < size(c.heads); ++h) {
        const std::size_t from = h * size(c.head_dim), shared = h / size(c.heads / c.kv_heads) * size(c.head_dim);
        Vector weight;
        double sum = 0;
        for (const Vector& key : keys) {
          double score = 0;
          for (std::size_t j = 0; j < size(c.head_dim); ++j) score += q[from + j] * key[shared + j];
          weight.push_back(std::exp(score / std::sqrt(static_cast<double>(c.head_dim))));
          sum += weight.back();
        }
        for (std::size_t p = 0; p < keys.size(); ++p)
          for (std::size_t j = 0; j < size(c.head_dim); ++j) mixed[from + j] += weight[p] / sum * values[p][shared + j];
      }
      if (watched) inputs->attn.push_back(a), inputs->mixed.push_back(mixed);
      const Vector out = times(b.o, mixed);
      for (std::size_t j = 0; j < out.size(); ++j) x[t][j] += out[j];

      const Vector f = normed(x[t], b.ffn_norm, epsilon), gate = times(b.gate, f), up = times(b.up, f);
      Vector product(gate.size());
      for (std::size_t j = 0; j < product.size(); ++j) product[j] = gate[j] / (1 + std::exp(-gate[j])) * up[j];
      if (watched) inputs->ffn.push_back(f), inputs->product.push_back(product);
      const Vector down = times(b.down, product);
      for (std::size_t j = 0; j < down.size(); ++j) x[t][j] += down[j];
    }
  }
  std::vector<Vector> logits;
  for (const Vector& row : x) logits.push_back(times(d.head ? *d.head : d.token_embedding, normed(row, d.output_norm, epsilon)));
  return logits;
}

}  // namespace test_support
