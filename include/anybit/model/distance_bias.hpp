#pragma once
// Numbers that attention adds to a score by the distance of key and query (T5, Raffel et al., arXiv:1910.10683). Readable twin:
// reference/relative_bias.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include <anybit/model/architecture.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The bucket of a key that stands `ahead` positions behind its query in the sequence, below 0 before it: one per distance up to
/// half of a side's buckets, logarithmic ones up to `distance`, beyond it the last. A stack that looks back only has one side.
inline Index distance_bucket(Index ahead, bool causal, Index buckets, Index distance) {
  if (causal && ahead > 0) ahead = 0;
  const Index side = causal ? buckets : buckets / 2, base = !causal && ahead > 0 ? side : 0;
  const Index n = std::abs(ahead), single = side / 2;
  if (n < single) return base + n;
  // In float32, as models were trained: powers of two of the ratio are boundaries of buckets.
  const float share = std::log(static_cast<float>(n) / static_cast<float>(single)) /
                      static_cast<float>(std::log(static_cast<double>(distance) / static_cast<double>(single)));
  const Index beyond = n >= distance ? side : static_cast<Index>(share * static_cast<float>(side - single));
  return base + std::min(single + beyond, side - 1);
}

/// AttentionOptions::distance_bias of a stack with Positions::relative.
inline std::vector<float> distance_bias(const Decoder& d, Stack stack) {
  const bool encoder = stack == Stack::encoder;
  const DecoderConfig& c = encoder ? d.config.encoder.front() : d.config;
  const DecoderForm& f = c.form;
  const nn::Linear& table = d[d.weight(encoder ? "enc.attn_rel_b.weight" : "attn_rel_b.weight")].linear;  // (buckets, heads)
  Matrix by_bucket(f.relative_buckets, c.heads);
  for (Index b = 0; b < f.relative_buckets; ++b) table.read_row(b, by_bucket.view().row(b));
  const Index reach = f.relative_distance, each = 2 * reach + 1;
  std::vector<float> out(static_cast<std::size_t>(c.heads * each));
  for (Index ahead = -reach; ahead <= reach; ++ahead) {
    const Index bucket = distance_bucket(ahead, f.causal, f.relative_buckets, reach);
    for (Index h = 0; h < c.heads; ++h) out[static_cast<std::size_t>(h * each + reach + ahead)] = by_bucket(bucket, h);
  }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
