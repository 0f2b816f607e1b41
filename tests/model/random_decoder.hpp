#pragma once
// A small decoder to quantize and rotate.

#include <cmath>
#include <random>
#include <vector>

#include <anybit/model/arch/llama.hpp>

#include "model/llama_block.hpp"
#include "support/catch.hpp"

namespace test_support {

/// A decoder of random weights; one input channel in eight is large, as in trained models.
inline anybit::model::Decoder random_decoder(anybit::Index kv_heads, bool own_head = false) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  anybit::model::DecoderConfig config{.vocabulary = 61,
                                      .dim = 32,
                                      .hidden = 56,
                                      .blocks = 2,
                                      .heads = 4,
                                      .kv_heads = kv_heads,
                                      .head_dim = 8,
                                      .rotary_dim = 8,
                                      .context = 64,
                                      .rope_factors = {}};
  anybit::model::Decoder d = make_decoder(anybit::model::llama_architecture, std::move(config));
  const auto linear = [&](anybit::Index rows, anybit::Index cols) {
    anybit::Matrix w(rows, cols);
    for (anybit::Index i = 0; i < w.extents().size(); ++i) w.data()[i] = normal(random) / std::sqrt(static_cast<float>(cols));
    return anybit::nn::Linear(std::move(w));
  };
  const auto gains = [&] {
    std::vector<float> g(static_cast<std::size_t>(d.config.dim));
    for (std::size_t j = 0; j < g.size(); ++j) g[j] = (j % 8 == 3 ? 6.f : 1.f) + 0.1f * normal(random);
    return g;
  };
  const anybit::model::DecoderConfig& c = d.config;
  d.token_embedding() = linear(c.vocabulary, c.dim);
  for (anybit::Index i = 0; i < c.blocks; ++i)
    set_llama_block(d, i,
                    {gains(), gains(), linear(c.query_width(), c.dim), linear(c.kv_width(), c.dim), linear(c.kv_width(), c.dim),
                     linear(c.dim, c.query_width()), linear(c.hidden, c.dim), linear(c.hidden, c.dim), linear(c.dim, c.hidden)});
  d.output_norm() = gains();
  if (own_head) d.head() = linear(c.vocabulary, c.dim);
  REQUIRE(check(d).ok());
  return d;
}

}  // namespace test_support
