#pragma once
// Small decoders with experts: of random weights, and made from a dense one.

#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <anybit/model/arch/qwen2_moe.hpp>

#include "support/catch.hpp"

namespace test_support {

/// Three blocks, of which the middle one is dense; six experts, two per token; a shared one behind its gate unless `shared` is 0.
inline anybit::model::Decoder random_experts(anybit::Index shared = 20, unsigned seed = 5) {
  using anybit::Index;
  anybit::model::DecoderConfig config{.vocabulary = 61,
                                      .dim = 32,
                                      .hidden = 40,
                                      .blocks = 3,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .head_dim = 8,
                                      .rotary_dim = 8,
                                      .context = 64,
                                      .rope_factors = {}};
  config.form.experts = {.count = 6, .used = 2, .hidden = 24, .weights = anybit::nn::RouterWeights::renormalized};
  config.form.experts.shared_hidden = shared, config.form.experts.shared_gate = shared > 0;
  config.form.experts.sparse = {1, 0, 1};
  anybit::model::Decoder d = make_decoder(anybit::model::qwen2_moe_architecture, std::move(config));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const anybit::model::WeightSpec& spec = d.blueprint->weights[i];
    if (!spec.multiplies()) {
      // One input channel in eight is large, as in trained models.
      for (Index j = 0; j < spec.shape.cols; ++j) d.weights[i].values.push_back((j % 8 == 3 ? 6.f : 1.f) + 0.1f * normal(random));
      continue;
    }
    anybit::Matrix w(spec.shape.rows, spec.shape.cols);
    for (Index k = 0; k < w.extents().size(); ++k) w.data()[k] = normal(random) / std::sqrt(static_cast<float>(w.cols()));
    d.weights[i].linear = anybit::nn::Linear(std::move(w));
    if (spec.bias.empty()) continue;
    std::vector<float> bias(static_cast<std::size_t>(spec.shape.rows));
    for (float& b : bias) b = 0.1f * normal(random);
    d.weights[i].linear.set_bias(std::move(bias));
  }
  REQUIRE(check(d).ok());
  return d;
}

/// The llama `dense` with its hidden units dealt to `count` experts, unit by unit, all of which every token goes to with the same
/// weight. The same function.
inline anybit::model::Decoder dealt(const anybit::model::Decoder& dense, anybit::Index count) {
  using anybit::Index;
  anybit::model::DecoderConfig config = dense.config;
  config.form.experts = {
      .count = count, .used = count, .hidden = config.hidden / count, .weights = anybit::nn::RouterWeights::renormalized};
  const Index width = config.form.experts.hidden;
  anybit::model::Decoder d = make_decoder(anybit::model::llama_architecture, std::move(config));
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const anybit::model::WeightSpec& spec = d.blueprint->weights[i];
    anybit::model::Weight& to = d.weights[i];
    if (const auto same = dense.blueprint->find(spec.name)) {
      to = dense[*same];
      continue;
    }
    if (!spec.quantizable) {
      to.linear = anybit::nn::Linear(anybit::Matrix(spec.shape.rows, spec.shape.cols));
      continue;
    }
    const std::size_t dot = spec.name.find('.', spec.name.find("ffn_"));
    const Index first = std::stol(spec.name.substr(dot + 1)) * width;
    const anybit::Matrix& from = *dense[dense.weight(spec.name.substr(0, dot) + ".weight")].linear.dense();
    anybit::Matrix w(spec.shape.rows, spec.shape.cols);
    const bool down = spec.name.find("ffn_down") != std::string::npos;
    for (Index r = 0; r < w.rows(); ++r)
      for (Index c = 0; c < w.cols(); ++c) w(r, c) = down ? from(r, first + c) * static_cast<float>(count) : from(first + r, c);
    to.linear = anybit::nn::Linear(std::move(w));
  }
  REQUIRE(check(d).ok());
  return d;
}

}  // namespace test_support
