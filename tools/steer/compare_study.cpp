#include "compare_study.hpp"

#include <algorithm>

#include <anybit/steer/keep.hpp>
#include <anybit/steer/probe.hpp>

namespace tool {

using namespace anybit;

namespace {

/// 1 for each item that is right, else 0.
template <class F>
std::vector<double> hits(std::size_t count, F right) {
  std::vector<double> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(right(i) ? 1 : 0);
  return out;
}

MeanInterval probe_accuracy(const steer::Probe& p, ConstMatrix x, std::span<const steer::Label> labels) {
  const std::vector<double> d = steer::decisions(p, x);
  return steer::bootstrap_mean(hits(d.size(), [&](std::size_t i) { return (d[i] > 0) == (labels[i] == 1); }));
}

}  // namespace

std::vector<steer::BlockDirection> Study::directions() const {
  std::vector<steer::BlockDirection> out;
  for (std::size_t b = first(); b < last(); ++b) out.push_back(float_.blocks[b].direction);
  return out;
}

Status Study::measure_float(std::span<const model::TokenId> text, Progress& progress) {
  ANYBIT_TRY(const Read read, read_states(m_.decoder, progress));
  ANYBIT_TRY(float_.blocks, blocks_of(read));
  std::size_t best = first();
  for (std::size_t b = first(); b < last(); ++b)
    if (float_.blocks[b].test_rows > float_.blocks[best].test_rows) best = b;
  best_ = best;
  ANYBIT_TRY(probe_, steer::fit_probe(read.train[best_].view(), stimuli_.train.labels));
  if (!text.empty()) {
    constexpr Index window = 256;
    ANYBIT_TRY(windows_, evaluate::gptq_windows(text, std::min(window, static_cast<Index>(text.size()))));
    ANYBIT_TRY(reference_, evaluate::reference_logits(m_.decoder, windows_, executor_));
  }
  ANYBIT_TRY(float_, measured(m_.decoder, read));
  return Ok{};
}

Result<Measured> Study::measure(const model::Decoder& d, Progress& progress) const {
  ANYBIT_TRY(const Read read, read_states(d, progress));
  ANYBIT_TRY(Measured out, measured(d, read));
  if (windows_.count() > 0) {
    ANYBIT_TRY(const std::vector<evaluate::TokenComparison> tokens, evaluate::compare(reference_, d, windows_, executor_));
    out.kl = evaluate::kl_statistics(tokens).kl.value;
  }
  return out;
}

Result<Study::Read> Study::read_states(const model::Decoder& d, Progress& progress) const {
  Read out;
  const auto total = static_cast<Index>(stimuli_.train.size() + stimuli_.test.size());
  Index before = 0;
  for (const auto& [s, to] : {std::pair(&stimuli_.train, &out.train), std::pair(&stimuli_.test, &out.test)}) {
    std::vector<std::vector<model::TokenId>> prompts;
    for (const std::string& t : s->texts) {
      ANYBIT_TRY(const std::string prompt, steer::fill_template(o_.pattern, t));
      ANYBIT_TRY(prompts.emplace_back(), steer::encode_prompt(m_.tokenizer, prompt));
    }
    ANYBIT_TRY(*to,
               steer::states(d, prompts, {.position = o_.position, .executor = executor_, .progress = [&](Index done, Index) {
                                            progress.update(before + done, total);
                                          }}));
    before += static_cast<Index>(s->size());
  }
  return out;
}

Result<std::vector<steer::BlockReading>> Study::blocks_of(const Read& read) const {
  return steer::read_blocks(steer::ReadingMethod::pca, read.train, stimuli_.train.labels, read.test, stimuli_.test.labels);
}

Result<Measured> Study::measured(const model::Decoder& d, const Read& read) const {
  Measured out;
  ANYBIT_TRY(out.blocks, blocks_of(read));
  out.least_cosine = 1;
  const std::vector<steer::Label>& labels = stimuli_.test.labels;
  const auto count = static_cast<double>(last() - first());
  std::vector<double> own_right(test_pairs()), float_right(test_pairs());  // per pair, share of the blocks
  for (std::size_t b = first(); b < last(); ++b) {
    const steer::Direction &own = out.blocks[b].direction.direction, &original = float_.blocks[b].direction.direction;
    const double cosine = own.sign * original.sign * steer::cosine(own.vector, original.vector);
    out.cosine += cosine / count;
    out.least_cosine = std::min(out.least_cosine, cosine);
    for (const auto& [direction, right] : {std::pair(&own, &own_right), std::pair(&original, &float_right)}) {
      const std::vector<double> s = steer::scores(*direction, read.test[b].view());
      for (std::size_t i = 0; i < right->size(); ++i)
        (*right)[i] += steer::pair_accuracy(std::span(s).subspan(2 * i, 2), std::span(labels).subspan(2 * i, 2)) / count;
    }
  }
  out.pairs = steer::bootstrap_mean(own_right), out.pairs_of_float_direction = steer::bootstrap_mean(float_right);
  ANYBIT_TRY(const steer::Probe probe, steer::fit_probe(read.train[best_].view(), stimuli_.train.labels));
  out.probe = probe_accuracy(probe, read.test[best_].view(), labels);
  out.float_probe = probe_accuracy(probe_, read.test[best_].view(), labels);
  ANYBIT_TRY(out.effect, effects(d));
  return out;
}

Result<std::vector<MeanInterval>> Study::effects(const model::Decoder& d) const {
  ANYBIT_TRY(const steer::TokenPair pair, token_pair(m_.tokenizer, o_.wanted, o_.other));
  const std::vector<steer::BlockDirection> along = directions();
  const std::size_t count = std::min(static_cast<std::size_t>(o_.steered), stimuli_.test.size());
  std::vector<MeanInterval> out;
  for (const double coefficient : o_.coefficients) {
    std::vector<double> effect(count);
    for (const double side : {1.0, -1.0}) {
      ANYBIT_TRY(const auto taps, steer::control_taps(d, along, {.coefficient = side * coefficient}));
      for (std::size_t i = 0; i < count; ++i) {
        ANYBIT_TRY(const std::string prompt, steer::fill_template(o_.pattern, stimuli_.test.texts[i]));
        ANYBIT_TRY(const std::vector<model::TokenId> ids, steer::encode_prompt(m_.tokenizer, prompt));
        ANYBIT_TRY(const double difference, steer::logit_difference(d, ids, pair, taps, executor_));
        effect[i] += side * difference;
      }
    }
    out.push_back(steer::bootstrap_mean(effect));
  }
  return out;
}

Result<Source> Source::prepare(model::Decoder d, Needs needs, std::span<const model::TokenId> text, ExecutorRef executor) {
  Source out{.decoder = std::move(d), .stats = nullptr, .embedding = {}};
  out.stats = std::make_unique<model::ModelStats>(out.decoder, needs);
  constexpr std::size_t window = 512;
  for (std::size_t t = 0; t < text.size(); t += window)
    ANYBIT_TRY_STATUS(out.stats->accumulate(out.decoder, text.subspan(t, std::min(window, text.size() - t)), executor));
  ANYBIT_TRY(out.embedding, model::pack_embedding(out.decoder));
  return out;
}

Result<Source> Source::keeping(std::span<const steer::BlockDirection> directions, double lambda) const {
  Source out{.decoder = decoder, .stats = std::make_unique<model::ModelStats>(*stats), .embedding = embedding};
  ANYBIT_TRY_STATUS(steer::keep_directions(*out.stats, out.decoder, directions, lambda));
  return out;
}

Result<model::Decoder> Source::quantized(const model::ModelRecipe& recipe, ExecutorRef executor) const {
  ANYBIT_TRY(model::QuantizedModel q, model::quantize_model(decoder, *stats, recipe, embedding, {.executor = executor}));
  return std::move(q.decoder);
}

std::string method_of(const model::ModelRecipe& recipe) {
  for (const char* const method : {"awq", "gptq"})
    if (recipe.description.find(method) != std::string::npos) return method;
  return "nearest";
}

}  // namespace tool
