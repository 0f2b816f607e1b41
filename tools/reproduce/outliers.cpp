#include "outliers.hpp"

#include <algorithm>
#include <numeric>
#include <random>

#include <anybit/quantize/sites.hpp>

namespace reproduce {

using namespace anybit;

model::Decoder with_outliers(const model::Decoder& d, const Outliers& o) {
  model::Decoder out = d;
  const auto n = static_cast<std::size_t>(d.config.dim);
  std::vector<Index> channels(n);
  std::iota(channels.begin(), channels.end(), Index{0});
  std::mt19937 random(1);
  for (std::size_t i = n - 1; i > 0; --i) std::swap(channels[i], channels[random() % (i + 1)]);
  channels.resize(std::max<std::size_t>(1, static_cast<std::size_t>(o.share * static_cast<double>(n) + 0.5)));
  for (model::SiblingGroup& g : model::sibling_groups(out)) {
    if (!g.norm_gain) continue;
    for (const Index j : channels) (*g.norm_gain)[static_cast<std::size_t>(j)] *= o.factor;
    for (const model::NamedLinear& l : g.linears) {
      Matrix w(*l.linear->dense());
      for (Index r = 0; r < w.rows(); ++r)
        for (const Index j : channels) w(r, j) /= o.factor;
      *l.linear = l.linear->with_weights(nn::Linear(std::move(w)));
    }
  }
  return out;
}

}  // namespace reproduce
