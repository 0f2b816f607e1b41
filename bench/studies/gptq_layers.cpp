// How much layer error Gptq::best() saves at equal bits, on real layers: three blocks of a model, every linear, 2 to 4 bits,
// against the published method; and what small groups with scales of one byte save. Errors are ||(W - Q) X|| / ||W X|| on the
// calibration text (the second half of the file) and on the first half, which the methods have not seen. --dither adds uniform
// noise of one step to every 32 weights: a model that was stored in 4 bits lies on 16 levels otherwise, which no method should
// be judged by.
// ctest: skip
// uses: anybit_study

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/sites.hpp>
#include <anybit/scheme/mixed_widths.hpp>

#include "shared/text.hpp"

using namespace anybit;

namespace {

constexpr Index window = 512, calibration_tokens = 12288, held_out_tokens = 6144;

struct Layer {
  std::string name, kind;
  Matrix weights;
  const Stats *calibration = nullptr, *held_out = nullptr;
};

Result<std::map<model::SiteId, Stats>> inputs_of(const model::Model& m, std::span<const Index> blocks, const std::string& text,
                                                 Index tokens, ExecutorRef executor) {
  ANYBIT_TRY(const std::vector<model::TokenId> ids, m.tokenizer.encode(text));
  if (static_cast<Index>(ids.size()) < tokens)
    return Error{ErrorCode::insufficient_data, "each half of the text must have " + std::to_string(tokens) +
                                                   " tokens; this one has " + std::to_string(ids.size())};
  const model::Blueprint& blueprint = *m.decoder.blueprint;
  std::vector<model::SiteId> sites;
  for (const Index block : blocks)
    for (const model::SiteId site : blueprint.sites_of(block)) sites.push_back(site);
  std::map<model::SiteId, Stats> stats;
  for (const model::SiteId site : sites) stats.emplace(site, Stats(blueprint[site].inputs, Needs::hessian));
  Status status = Ok{};
  for (Index t = 0; t < tokens; t += window) {
    nn::KvCache cache(cache_shape(m.decoder.config), window);
    const auto taps = model::site_taps(blueprint, sites, [&](model::SiteId site, ConstMatrix x) {
      if (status) status = stats.at(site).accumulate(x);
    });
    ANYBIT_TRY(
        const Matrix hidden,
        model::hidden_states(m.decoder, std::span(ids).subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(window)),
                             cache, {executor, taps}));
    ANYBIT_TRY_STATUS(status);
  }
  return stats;
}

void dither(Matrix& w) {
  constexpr Index block = 32;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> half_a_step(-0.5f, 0.5f);
  for (Index i = 0; i + block <= w.extents().size(); i += block) {
    const auto [low, high] = std::minmax_element(w.data() + i, w.data() + i + block);
    const float step = (*high - *low) / 15;
    for (Index j = 0; j < block; ++j) w.data()[i + j] += step * half_a_step(random);
  }
}

double error_on(const Stats& stats, ConstMatrix w, ConstMatrix q, ExecutorRef executor) {
  std::vector<double> h(static_cast<std::size_t>(w.cols * w.cols));
  stats.hessian(MatrixView<double>(h.data(), w.cols, w.cols));
  const recipe::OutputMetric<> metric(w, {h.data(), w.cols, w.cols}, executor);
  return metric.relative_to_outputs(metric.error(q));
}

struct Errors {
  double calibration = 0, held_out = 0;
};
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Method>
std::vector<Errors> run(const char* name, const Method& method, std::span<const Layer> layers, std::span<const Errors> published,
                        ExecutorRef executor) {
  QuantizeOptions options;
  options.executor = executor;
  std::vector<Errors> all;
  std::map<std::string, std::array<double, 2>> by_kind;  // sum of logs of ratios, count
  Errors mean, ratio;
  double taken = 0;
  const auto count = static_cast<double>(layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Layer& l = layers[i];
    const double start = seconds();
    const auto q = method.quantize(l.weights.view(), *l.calibration, options);
    taken += seconds() - start;
    if (!q) {
      std::fprintf(stderr, "%s, %s: %s\n", name, l.name.c_str(), q.error().message.c_str());
      return {};
    }
    for (const std::string& fallback : q->report.fallbacks) std::printf("%s, %s: %s\n", name, l.name.c_str(), fallback.c_str());
    const Matrix back = dequantize(q->matrix);
    const Errors e{error_on(*l.calibration, l.weights.view(), back.view(), executor),
                   error_on(*l.held_out, l.weights.view(), back.view(), executor)};
    const Errors& base = published.empty() ? e : published[i];
    mean.calibration += e.calibration / count;
    mean.held_out += e.held_out / count;
    ratio.calibration += std::log(e.calibration / base.calibration) / count;
    ratio.held_out += std::log(e.held_out / base.held_out) / count;
    by_kind[l.kind][0] += std::log(e.calibration / base.calibration);
    by_kind[l.kind][1] += 1;
    all.push_back(e);
  }
  std::printf("  %-42s %.4f  %.3f   %.4f  %.3f  %6.1f s  ", name, mean.calibration, std::exp(ratio.calibration), mean.held_out,
              std::exp(ratio.held_out), taken);
  if (!published.empty())
    for (const auto& [kind, sum] : by_kind) std::printf(" %s %.2f", kind.c_str(), std::exp(sum[0] / sum[1]));
  std::printf("\n");
  std::fflush(stdout);
  return all;
}

template <AnyScheme S>
void compare(std::span<const Layer> layers, ExecutorRef executor) {
  std::printf("%s\n", std::string(std::string_view(S::name)).c_str());
  using Method = Gptq<S>;
  const auto published = run("published defaults", Method{}, layers, {}, executor);
  if (published.empty()) return;
  run("published: act-order, static groups, search", Method{.act_order = true, .static_groups = true, .search = Search::mse},
      layers, published, executor);
  run("best()", Method::best(), layers, published, executor);
}

/// best() of every scheme against that of the first.
template <AnyScheme First, AnyScheme... Rest>
void compare_schemes(TypeList<First, Rest...>, std::span<const Layer> layers, ExecutorRef executor) {
  const auto row = [&]<AnyScheme S>(std::type_identity<S>, std::span<const Errors> base) {
    char name[80];
    std::snprintf(name, sizeof name, "%s, %.3f bits", std::string(std::string_view(S::name)).c_str(),
                  S::bits_per_weight({1536, 576}));
    return run(name, Gptq<S>::best(), layers, base, executor);
  };
  std::printf("best()\n");
  const auto base = row(std::type_identity<First>{}, {});
  if (!base.empty()) (row(std::type_identity<Rest>{}, base), ...);
}

Status work(const std::string& model_file, const std::string& text_file, bool dithered) {
  ThreadPool pool(2);
  ANYBIT_TRY(model::Model m, model::load_model(model_file));
  ANYBIT_TRY(const std::string text, tool::read_text(text_file));
  const tool::TwoTexts halves = tool::cut_in_two(text);
  const Index count = m.decoder.config.blocks;
  const std::vector<Index> blocks{0, count * 3 / 8, count - 1};
  ANYBIT_TRY(const auto calibration, inputs_of(m, blocks, halves.evaluate, calibration_tokens, pool));
  ANYBIT_TRY(const auto held_out, inputs_of(m, blocks, halves.calibrate, held_out_tokens, pool));
  std::vector<Layer> layers;
  for (const model::SiblingGroup& group : model::sibling_groups(m.decoder)) {
    const auto found = std::find(blocks.begin(), blocks.end(), group.block);
    if (found == blocks.end()) continue;
    for (const model::NamedLinear& linear : group.linears) {
      const std::string kind = linear.name.substr(linear.name.find('.', 4) + 1);
      layers.push_back({linear.name, kind.substr(0, kind.find('.')), Matrix(linear.linear->dense()->view()),
                        &calibration.at(group.id), &held_out.at(group.id)});
      if (dithered) dither(layers.back().weights);
    }
  }
  std::printf("%zu layers, mean error and geometric mean of ratios to the first row; on calibration text, on held-out text\n",
              layers.size());
  compare<Scheme<UInt<2>, PerGroup<128>>>(layers, pool);
  compare<Scheme<UInt<3>, PerGroup<128>>>(layers, pool);
  compare<Scheme<UInt<4>, PerGroup<128>>>(layers, pool);
  compare<Scheme<Superfloat<4>, PerGroup<64>>>(layers, pool);
  using presets::ByteScaledInt;
  compare_schemes(TypeList<Scheme<UInt<4>, PerGroup<128>>, ByteScaledInt<4, 64>, Scheme<UInt<4>, PerGroup<64>>,
                           ByteScaledInt<4, 32>, Scheme<UInt<4>, PerGroup<32>>>{},
                  layers, pool);
  compare_schemes(TypeList<Scheme<UInt<3>, PerGroup<128>>, ByteScaledInt<3, 64>, Scheme<UInt<3>, PerGroup<64>>,
                           ByteScaledInt<3, 32>, Scheme<UInt<3>, PerGroup<32>>>{},
                  layers, pool);
  compare_schemes(TypeList<Scheme<UInt<2>, PerGroup<64>>, ByteScaledInt<2, 32>>{}, layers, pool);
  compare_schemes(TypeList<Scheme<UInt<5>, PerGroup<128>>, ByteScaledInt<5, 64>>{}, layers, pool);
  return Ok{};
}

}  // namespace

int main(int argc, char** argv) {
  const bool dithered = argc == 4 && std::strcmp(argv[3], "--dither") == 0;
  if (argc != 3 && !dithered) return std::fprintf(stderr, "gptq_layers MODEL.gguf TEXT [--dither]\n"), 2;
  const Status done = work(argv[1], argv[2], dithered);
  if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  return 0;
}
