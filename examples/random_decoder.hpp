#pragma once
// A small random llama for examples: what a trained model is needed for is not what they show.

#include <cmath>
#include <random>

#include <anybit/model/arch/llama.hpp>

inline anybit::model::Decoder random_decoder() {
  anybit::model::DecoderConfig c;
  c.vocabulary = 64, c.dim = 48, c.hidden = 96, c.blocks = 3, c.heads = 4, c.kv_heads = 2, c.head_dim = c.rotary_dim = 12;
  c.context = 128;
  anybit::model::Decoder d = make_decoder(anybit::model::llama_architecture, c);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const anybit::model::WeightSpec& spec = d.blueprint->weights[i];
    if (spec.optional) continue;
    if (!spec.multiplies()) {
      d.weights[i].values.assign(static_cast<std::size_t>(spec.shape.cols), 1.0f);
      continue;
    }
    anybit::Matrix w(spec.shape.rows, spec.shape.cols);
    for (anybit::Index j = 0; j < w.extents().size(); ++j)
      w.data()[j] = normal(random) / std::sqrt(static_cast<float>(spec.shape.cols));
    d.weights[i].linear = anybit::nn::Linear(std::move(w));
  }
  return d;
}
