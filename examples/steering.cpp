// Read a direction from activations and steer along it. The concept here: a prompt ends with token 2, not with token 3.

#include <cstdio>

#include <anybit/steer/states.hpp>

#include "random_decoder.hpp"

using namespace anybit;

int main() {
  const model::Decoder d = random_decoder();
  // Pairs of prompts that differ in the concept alone; which one comes first is mixed.
  std::vector<std::vector<model::TokenId>> prompts[2];  // to fit on, to test on
  std::vector<steer::Label> labels[2];
  std::mt19937 random(7);
  for (int pair = 0; pair < 60; ++pair) {
    std::vector<model::TokenId> ids(6);
    for (auto& id : ids) id = static_cast<model::TokenId>(4 + random() % 60);
    const auto first = static_cast<steer::Label>(random() % 2);
    for (const steer::Label label : {first, 1 - first}) {
      ids.back() = label == 1 ? 2 : 3;
      prompts[pair >= 40].push_back(ids), labels[pair >= 40].push_back(label);
    }
  }
  const auto fit = steer::states(d, prompts[0]), test = steer::states(d, prompts[1]);
  if (!fit || !test) return std::fprintf(stderr, "%s\n", (fit ? test : fit).error().message.c_str()), 1;
  const auto blocks = steer::read_blocks(steer::ReadingMethod::pca, *fit, labels[0], *test, labels[1]);
  if (!blocks) return std::fprintf(stderr, "%s\n", blocks.error().message.c_str()), 1;
  for (const steer::BlockReading& b : *blocks)
    std::printf("block %d: %.2f of the test pairs right\n", static_cast<int>(b.direction.block), b.test_pairs);

  // A shift in the first block is read in the last one.
  const std::vector<steer::BlockDirection> first{blocks->front().direction}, last{blocks->back().direction};
  for (const double coefficient : {-4.0, -2.0, 0.0, 2.0, 4.0}) {
    const auto taps = steer::control_taps(d, first, {.coefficient = coefficient});
    double mean = 0;
    for (const auto& ids : prompts[1])
      mean += static_cast<double>((*steer::token_scores(d, ids, last, {.taps = *taps}))(0, 5)) / 40;
    std::printf("coefficient %+.0f: the last tokens score %+.3f on average\n", coefficient, mean);
  }
}
