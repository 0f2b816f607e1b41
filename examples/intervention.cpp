// Probe every head, shift the best ones (ITI), and bake the shift into a bias: the same logits without taps.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <anybit/model/run.hpp>
#include <anybit/steer/intervention.hpp>
#include <anybit/steer/states.hpp>

#include "random_decoder.hpp"

using namespace anybit;

int main() {
  model::Decoder d = random_decoder();
  std::vector<std::vector<model::TokenId>> prompts;
  std::vector<steer::Label> labels;
  std::vector<steer::Split> split;
  std::mt19937 random(7);
  for (int i = 0; i < 120; ++i) {  // the concept: token 2, not token 3, stands somewhere before the end
    std::vector<model::TokenId> ids(6);
    for (auto& id : ids) id = static_cast<model::TokenId>(4 + random() % 60);
    labels.push_back(static_cast<steer::Label>(random() % 2));
    ids[random() % 5] = labels.back() == 1 ? 2 : 3;
    prompts.push_back(ids);
    split.push_back(i % 5 == 0 ? steer::Split::validation : steer::Split::train);
  }
  const auto heads = steer::states(d, prompts, {.point = model::Point::head_out});  // of each block (prompts, heads * size)
  const auto probes = steer::fit_head_probes(*heads, labels, split, d.config.head_dim);
  if (!probes) return std::fprintf(stderr, "%s\n", probes.error().message.c_str()), 1;
  const auto shift = steer::fit_intervention(*heads, labels, split, *probes, d.config.head_dim, {.heads = 3});
  for (const steer::HeadShift& h : shift->heads)
    std::printf("block %d head %d: %.2f of the validation prompts right, sigma %.3f\n", static_cast<int>(h.block),
                static_cast<int>(h.head), h.accuracy, h.sigma);

  const auto logits = [&](const model::Decoder& of, std::span<const model::Tap> taps) {
    nn::KvCache cache(cache_shape(of.config), 6);
    return forward(of, prompts.front(), cache, {.taps = taps}).value();
  };
  const Matrix tapped = logits(d, steer::intervention_taps(d, *shift, 15, 0).value());
  if (const Status baked = steer::bake(d, *shift, 15); !baked)
    return std::fprintf(stderr, "%s\n", baked.error().message.c_str()), 1;
  const Matrix biased = logits(d, {});
  float most = 0;
  for (Index i = 0; i < tapped.extents().size(); ++i) most = std::max(most, std::abs(tapped.data()[i] - biased.data()[i]));
  std::printf("largest difference of taps and biases: %g\n", static_cast<double>(most));
  return most < 1e-4f ? 0 : 1;
}
