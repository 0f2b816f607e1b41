// What AWQ, GPTQ and AWQ before GPTQ make of the real layers of a model at equal bits: ||(W - Q) X|| / ||W X|| by kind of layer,
// geometric means over blocks, on the calibration text (the second half of the file) and on the first half, which no method has
// seen.
//   awq_layers MODEL.gguf TEXT [BLOCKS]
// ctest: skip
// uses: anybit_study

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/transform/awq.hpp>

#include "shared/text.hpp"

using namespace anybit;

namespace {

constexpr Index window = 512, calibration_tokens = 16384, held_out_tokens = 8192;

Result<model::ModelStats> inputs_of(const model::Model& m, const std::string& text, Index tokens, ExecutorRef executor) {
  ANYBIT_TRY(const std::vector<model::TokenId> ids, m.tokenizer.encode(text));
  if (static_cast<Index>(ids.size()) < tokens)
    return Error{ErrorCode::insufficient_data, "each half of the text must have " + std::to_string(tokens) +
                                                   " tokens; this one has " + std::to_string(ids.size())};
  model::ModelStats stats(m.decoder, Awq::needs);
  for (Index t = 0; t < tokens; t += window) {
    const auto some = std::span(ids).subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(window));
    ANYBIT_TRY(const Matrix hidden, stats.accumulate(m.decoder, some, executor));
  }
  return stats;
}

struct Errors {
  double calibration = 0, held_out = 0;
};
/// By kind of layer, one entry a block.
using ByKind = std::map<std::string, std::vector<Errors>>;

double error_on(const Stats& stats, ConstMatrix w, ConstMatrix q, ExecutorRef executor) {
  std::vector<double> h(static_cast<std::size_t>(w.cols * w.cols));
  stats.hessian(MatrixView<double>(h.data(), w.cols, w.cols));
  const recipe::OutputMetric<> metric(w, {h.data(), w.cols, w.cols}, executor);
  return metric.relative_to_outputs(metric.error(q));
}

template <class Method>
Result<ByKind> errors_of(const Method& method, model::Decoder& d, Index every, const model::ModelStats& calibration,
                         const model::ModelStats& held_out, ExecutorRef executor) {
  ByKind all;
  for (const model::SiblingGroup& group : model::sibling_groups(d)) {
    if (group.block % every != 0) continue;
    std::vector<ConstMatrix> weights;
    for (const model::NamedLinear& l : group.linears) weights.push_back(l.linear->dense()->view());
    QuantizeOptions options;
    options.executor = executor;
    const model::ClipFlags clip(group);
    options.clip = clip.view();
    const Stats& stats = calibration.at(group.id, Awq::needs);
    ANYBIT_TRY(const auto result, quantize_siblings(method, weights, stats, options));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      Matrix back = dequantize(result.matrices[i].matrix);
      if (!result.input_scale.empty())
        for (Index r = 0; r < back.rows(); ++r)
          for (Index c = 0; c < back.cols(); ++c) back(r, c) /= result.input_scale[static_cast<std::size_t>(c)];
      const std::string& name = group.linears[i].name;
      const std::string kind = name.substr(name.find('.', 4) + 1);
      all[kind.substr(0, kind.find('.'))].push_back(
          {error_on(stats, weights[i], back.view(), executor),
           error_on(held_out.at(group.id, Awq::needs), weights[i], back.view(), executor)});
    }
  }
  return all;
}

double mean(const std::vector<Errors>& errors, double Errors::* of) {
  double logs = 0;
  for (const Errors& e : errors) logs += std::log(e.*of);
  return std::exp(logs / static_cast<double>(errors.size()));
}

template <AnyScheme S>
Status compare(model::Decoder& d, Index every, const model::ModelStats& calibration, const model::ModelStats& held_out,
               ExecutorRef executor) {
  const Range range = S::has_zero_point ? Range::min_max : Range::format;
  const Gptq<S> gptq{};
  ANYBIT_TRY(ByKind by_awq, errors_of(Awq{} | Nearest<S>{.range = range}, d, every, calibration, held_out, executor));
  ANYBIT_TRY(ByKind by_gptq, errors_of(gptq, d, every, calibration, held_out, executor));
  ANYBIT_TRY(ByKind by_both, errors_of(Awq{} | gptq, d, every, calibration, held_out, executor));
  std::printf("%s\n  %-12s %8s %8s %8s  ratio |%8s %8s %8s  ratio | layers worse (of)\n", std::string(S::name.view()).c_str(),
              "layer", "AWQ", "GPTQ", "both", "AWQ", "GPTQ", "both");
  for (const auto& [kind, both] : by_both) {
    const auto &awq = by_awq[kind], &alone = by_gptq[kind];
    std::printf("  %-12s", kind.c_str());
    for (double Errors::* of : {&Errors::calibration, &Errors::held_out}) {
      const double a = mean(awq, of), g = mean(alone, of), b = mean(both, of);
      std::printf(" %8.4f %8.4f %8.4f  %.3f |", a, g, b, b / std::min(a, g));
    }
    int worse = 0;
    for (std::size_t i = 0; i < both.size(); ++i)
      worse += both[i].calibration > 1.0001 * std::min(awq[i].calibration, alone[i].calibration);
    std::printf(" %d of %zu\n", worse, both.size());
  }
  std::fflush(stdout);
  return Ok{};
}

Status work(const std::string& model_file, const std::string& text_file, Index blocks) {
  ThreadPool pool(2);
  ANYBIT_TRY(model::Model m, model::load_model(model_file));
  ANYBIT_TRY(const std::string text, tool::read_text(text_file));
  const tool::TwoTexts halves = tool::cut_in_two(text);
  ANYBIT_TRY(const auto calibration, inputs_of(m, halves.evaluate, calibration_tokens, pool));
  ANYBIT_TRY(const auto held_out, inputs_of(m, halves.calibrate, held_out_tokens, pool));
  const Index every = std::max<Index>(m.decoder.config.blocks / blocks, 1);
  std::printf("errors on %td tokens of calibration, and on %td others; ratio: both / the better of the two\n", calibration_tokens,
              held_out_tokens);
  ANYBIT_TRY_STATUS((compare<Scheme<UInt<4>, PerGroup<128>>>(m.decoder, every, calibration, held_out, pool)));
  ANYBIT_TRY_STATUS((compare<Scheme<UInt<3>, PerGroup<128>>>(m.decoder, every, calibration, held_out, pool)));
  return compare<Scheme<Superfloat<4>, PerGroup<128>>>(m.decoder, every, calibration, held_out, pool);
}

}  // namespace

int main(int argc, char** argv) {
  const Index blocks = argc > 3 ? std::atol(argv[3]) : 1000;
  if (argc < 3 || argc > 4 || blocks < 1) return std::fprintf(stderr, "awq_layers MODEL.gguf TEXT [BLOCKS]\n"), 2;
  const Status done = work(argv[1], argv[2], blocks);
  if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  return 0;
}
