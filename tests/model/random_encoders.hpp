#pragma once
// Small models with encoders, of random weights: T5, BERT and Whisper as their files make them, with odd widths.

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/run.hpp>

#include "support/catch.hpp"

namespace test_support {

/// A model of the configuration whose every weight is random; one input channel in eight of each norm is large.
inline anybit::model::Decoder random_model(const anybit::model::Architecture& a, anybit::model::DecoderConfig c) {
  using namespace anybit::model;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  Decoder d = make_decoder(a, std::move(c));
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const WeightSpec& spec = d.blueprint->weights[i];
    if (spec.optional && spec.name == "output.weight") continue;
    anybit::Matrix m(spec.shape.rows, spec.shape.cols);
    const bool table = spec.role == Role::table || spec.name == "enc.attn_rel_b.weight";
    for (anybit::Index k = 0; k < m.extents().size(); ++k)
      m.data()[k] = normal(random) / (table ? 1.0f : std::sqrt(static_cast<float>(m.cols())));
    if (spec.multiplies()) {
      d.weights[i].linear = anybit::nn::Linear(std::move(m));
      if (spec.bias.empty()) continue;
      std::vector<float> bias(static_cast<std::size_t>(spec.shape.rows));
      for (float& b : bias) b = 0.2f * normal(random);
      d.weights[i].linear.set_bias(std::move(bias));
      continue;
    }
    for (anybit::Index j = 0; j < spec.shape.cols; ++j)
      d.weights[i].values.push_back((spec.role == Role::gain ? (j % 8 == 3 ? 4.0f : 1.0f) : 0.0f) + 0.1f * normal(random));
  }
  const auto valid = check(d);
  INFO((valid ? std::string() : valid.error().message));
  REQUIRE(valid);
  return d;
}

inline anybit::model::Decoder random_t5(bool gated) {
  anybit::model::DecoderConfig c{.vocabulary = 61,
                                 .dim = 40,
                                 .hidden = 56,
                                 .blocks = 2,
                                 .heads = 5,
                                 .kv_heads = 5,
                                 .head_dim = 6,
                                 .rotary_dim = 6,
                                 .context = 512,
                                 .rope_factors = {}};
  c.form = anybit::model::t5::form();
  c.form.gated = gated;
  c.form.activation = gated ? anybit::nn::Activation::gelu_tanh : anybit::nn::Activation::relu;
  c.form.relative_buckets = 8, c.form.relative_distance = 20;
  if (!gated) c.form.logit_scale = 1 / std::sqrt(40.0f);
  anybit::model::t5::add_encoder(c, 3);
  return random_model(anybit::model::t5_architecture, std::move(c));
}

inline anybit::model::Decoder random_bert() {
  anybit::model::DecoderConfig c{.vocabulary = 61,
                                 .dim = 48,
                                 .hidden = 88,
                                 .blocks = 2,
                                 .heads = 4,
                                 .kv_heads = 4,
                                 .head_dim = 12,
                                 .rotary_dim = 12,
                                 .context = 50,
                                 .rope_factors = {}};
  c.form = anybit::model::bert::form();
  c.form.token_types = 2;
  return random_model(anybit::model::bert_architecture, std::move(c));
}

/// Its stacks have other numbers of heads and other hidden widths.
inline anybit::model::Decoder random_whisper() {
  anybit::model::DecoderConfig c{.vocabulary = 61,
                                 .dim = 40,
                                 .hidden = 44,
                                 .blocks = 2,
                                 .heads = 4,
                                 .kv_heads = 4,
                                 .head_dim = 10,
                                 .rotary_dim = 10,
                                 .context = 32,
                                 .rope_factors = {}};
  c.form = anybit::model::whisper::form();
  anybit::model::DecoderConfig e = c;
  e.hidden = 56, e.heads = e.kv_heads = 5, e.head_dim = e.rotary_dim = 8, e.context = 14;
  e.form.causal = e.form.head = false, e.form.feature_bins = 10;
  c.form.cross_attention = true;
  c.blocks += e.blocks;
  c.encoder.assign(1, std::move(e));
  return random_model(anybit::model::whisper_architecture, std::move(c));
}

inline anybit::Matrix random_features(anybit::Index frames, anybit::Index bins, unsigned seed = 5) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  anybit::Matrix m(frames, bins);
  for (anybit::Index i = 0; i < m.extents().size(); ++i) m.data()[i] = normal(random);
  return m;
}

}  // namespace test_support
