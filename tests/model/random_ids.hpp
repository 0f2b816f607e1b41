#pragma once
// Texts and what decoders say to them. If nothing else is said, texts are for the decoders of random_decoder.hpp, whose
// vocabulary has 61 entries.

#include <random>
#include <vector>

#include <anybit/quantize/model_stats.hpp>

#include "support/catch.hpp"

namespace test_support {

inline std::vector<anybit::model::TokenId> ids(anybit::Index n, unsigned seed, unsigned vocabulary = 61) {
  std::mt19937 random(seed);
  std::vector<anybit::model::TokenId> out(static_cast<std::size_t>(n));
  for (auto& id : out) id = static_cast<anybit::model::TokenId>(random() % vocabulary);
  return out;
}

/// Of every token.
inline anybit::Matrix logits_of(const anybit::model::Decoder& d, const std::vector<anybit::model::TokenId>& tokens,
                                anybit::nn::KvCacheConfig kv = {}) {
  anybit::nn::KvCache cache(cache_shape(d.config), static_cast<anybit::Index>(tokens.size()), kv);
  auto logits = forward(d, tokens, cache);
  REQUIRE(logits);
  return *std::move(logits);
}

/// Adds four windows of 48 tokens.
inline anybit::model::ModelStats calibrated(const anybit::model::Decoder& d, anybit::model::ModelStats stats) {
  for (unsigned w = 0; w < 4; ++w) REQUIRE(stats.accumulate(d, ids(48, w), {}).ok());
  return stats;
}
inline anybit::model::ModelStats calibrated(const anybit::model::Decoder& d, anybit::Needs needs) {
  return calibrated(d, anybit::model::ModelStats(d, needs));
}

}  // namespace test_support
