// Processor time of a run with a tap in every block that steers, over one without: a prompt, and tokens one by one. Both in
// turns, so that what else the machine does falls on both; medians.
// steering_cost MODEL [REPETITIONS]

// ctest: skip
// uses: anybit_tool

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <vector>

#include <anybit/steer/control.hpp>

#include "shared/open_model.hpp"

using namespace anybit;

namespace {

constexpr Index prompt_tokens = 128, decode_tokens = 16;

double processor_seconds() {
  std::timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  const std::size_t middle = x.size() / 2;
  return x.size() % 2 == 1 ? x[middle] : (x[middle - 1] + x[middle]) / 2;
}

/// Seconds of one run of `count` tokens behind an empty cache, `step` at a time.
double seconds(const model::Decoder& d, std::span<const model::TokenId> ids, Index step, std::span<const model::Tap> taps) {
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  const double start = processor_seconds();
  for (std::size_t t = 0; t < ids.size(); t += static_cast<std::size_t>(step))
    if (const auto logits = forward(d, ids.subspan(t, static_cast<std::size_t>(step)), cache, {.taps = taps, .last_only = true});
        !logits)
      std::exit(std::fprintf(stderr, "%s\n", logits.error().message.c_str()));
  return processor_seconds() - start;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "steering_cost MODEL [REPETITIONS]\n"), 2;
  auto m = tool::open_model(argv[1], "");
  if (!m) return std::fprintf(stderr, "%s\n", m.error().message.c_str()), 1;
  tool::round_activations(m->decoder);
  const model::Decoder& d = m->decoder;
  std::vector<steer::BlockDirection> directions;
  for (Index b = 0; b < d.config.blocks; ++b)
    directions.push_back({b, {.vector = steer::random_unit(d.config.dim, static_cast<std::uint64_t>(b)), .center = {}}});
  const auto taps = steer::control_taps(d, directions, {.coefficient = 0.01}).value();
  std::mt19937 random(1);
  std::vector<model::TokenId> ids(static_cast<std::size_t>(prompt_tokens));
  for (auto& id : ids) id = static_cast<model::TokenId>(random() % static_cast<unsigned long>(d.config.vocabulary));
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : 15;
  std::printf("%s, %zu taps, one thread, medians of %d in turns\n", m->name.c_str(), taps.size(), repetitions);
  for (const bool decodes : {false, true}) {
    const auto text = std::span(ids).first(static_cast<std::size_t>(decodes ? decode_tokens : prompt_tokens));
    const Index step = decodes ? 1 : prompt_tokens;
    std::vector<double> plain, tapped, change;
    seconds(d, text, step, taps);  // warm
    for (int r = 0; r < repetitions; ++r) {
      const bool first = r % 2 == 0;
      const double a = seconds(d, text, step, first ? std::span<const model::Tap>() : std::span(taps));
      const double b = seconds(d, text, step, first ? std::span(taps) : std::span<const model::Tap>());
      plain.push_back(first ? a : b), tapped.push_back(first ? b : a);
      change.push_back(100 * (tapped.back() / plain.back() - 1));
    }
    std::printf("%-22s %8.2f ms without, %8.2f ms with: %+.2f %% (of the pairs %+.2f %%)\n",
                decodes ? "16 tokens one by one" : "prompt of 128 tokens", 1e3 * median(plain), 1e3 * median(tapped),
                100 * (median(tapped) / median(plain) - 1), median(change));
  }
}
