// f(c, x) of a real model without training: divergence of its rounded predictions by width x and by how many tokens stand before
// (c), and what the length c of calibration windows means to GPTQ.

#include <algorithm>
#include <cmath>
#include <utility>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/evaluate/softmax.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/superfloat.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/model_stats.hpp>
#include <anybit/scheme/scheme.hpp>

#include "scaling/report.hpp"

namespace study {

using namespace anybit;

namespace {

constexpr Index window = 1024, windows = 1, calibration_tokens = 2048;
const std::vector<int> widths{2, 3, 4, 6, 8, 10, 16};
const std::vector<Index> contexts{4, 32, 128, 256, 1024};
/// Positions are taken together by powers of two: predictions behind 1 to 3 tokens, 4 to 15, and so on.
const std::vector<Index> edges{1, 4, 16, 64, 128, 256, 512, 1024};

struct Real {
  model::Model model;
  std::vector<model::TokenId> ids;
  std::vector<Matrix> logits;  ///< of the floats, per window

  std::span<const model::TokenId> evaluated(Index i) const {
    return std::span(ids).subspan(static_cast<std::size_t>(i * window), static_cast<std::size_t>(window));
  }
  std::span<const model::TokenId> calibration() const {
    return std::span(ids).last(static_cast<std::size_t>(calibration_tokens));
  }
};

Result<Matrix> logits_of(const model::Decoder& d, std::span<const model::TokenId> ids, ExecutorRef executor) {
  nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(ids.size()));
  return model::forward(d, ids, cache, {executor});
}

/// KL divergence in nats of every position, all windows one behind the other.
Result<std::vector<double>> divergences(const Real& real, const model::Decoder& d, ExecutorRef executor) {
  std::vector<double> out;
  for (Index i = 0; i < windows; ++i) {
    ANYBIT_TRY(const Matrix other, logits_of(d, real.evaluated(i), executor));
    const Matrix& mine = real.logits[static_cast<std::size_t>(i)];
    const std::size_t first = out.size();
    out.resize(first + static_cast<std::size_t>(window));
    executor.parallel_for(window, 1, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        const auto p = mine.view().row(t), q = other.view().row(t);
        const auto top = [](std::span<const float> v) { return static_cast<double>(*std::max_element(v.begin(), v.end())); };
        const double most_p = top(p), most_q = top(q);
        double sum_p = 0, sum_q = 0, weighted = 0;
        for (std::size_t k = 0; k < p.size(); ++k) {
          const double a = static_cast<double>(p[k]) - most_p, b = static_cast<double>(q[k]) - most_q, e = std::exp(a);
          sum_p += e, sum_q += std::exp(b), weighted += e * (a - b);
        }
        out[first + static_cast<std::size_t>(t)] = weighted / sum_p - std::log(sum_p) + std::log(sum_q);
      }
    });
  }
  return out;
}

/// Mean of all positions, then of every range of them.
Values by_position(std::span<const double> kl) {
  Values out{evaluate::mean(kl)};
  for (std::size_t e = 0; e + 1 < edges.size(); ++e) {
    std::vector<double> some;
    for (Index i = 0; i < windows; ++i)
      for (Index t = edges[e]; t < edges[e + 1]; ++t) some.push_back(kl[static_cast<std::size_t>(i * window + t)]);
    out.push_back(evaluate::mean(some));
  }
  return out;
}

template <int Bits>
Result<model::Decoder> gptq(const model::Decoder& d, const model::ModelStats& stats, ExecutorRef executor) {
  model::Decoder out = d;
  QuantizeOptions options;
  options.executor = executor;
  const model::Blueprint& b = *d.blueprint;
  for (std::size_t i = 0; i < b.sites.size(); ++i)
    for (const model::WeightId id : b.sites[i].readers) {
      const auto q = Gptq<Scheme<Superfloat<Bits>, PerGroup<128>, ScaleF16>>{}.quantize(
          d[id].linear.dense()->view(), stats.at(static_cast<model::SiteId>(i), Needs::hessian), options);
      if (!q) return in_context(q.error(), b[id].name);
      out[id].linear = out[id].linear.with_weights(nn::Linear(dequantize(q->matrix)));
    }
  return out;
}

}  // namespace

Result<Report> smollm2_law(Study& s) {
  Report out;
  if (s.model.empty()) {
    out.lines.emplace_back("no model was given: nothing is measured");
    return out;
  }
  ThreadPool pool(s.threads);
  ANYBIT_TRY(model::Model loaded, model::load_model(s.model));
  ANYBIT_TRY(std::vector<model::TokenId> ids, loaded.tokenizer.encode(s.text));
  Real real{std::move(loaded), std::move(ids), {}};
  if (static_cast<Index>(real.ids.size()) < windows * window + calibration_tokens)
    return Error{ErrorCode::insufficient_data, "the text has " + std::to_string(real.ids.size()) + " tokens, " +
                                                   std::to_string(windows * window + calibration_tokens) + " are needed"};
  const model::Decoder& d = real.model.decoder;
  const auto floats_first = [&]() -> Status {
    for (Index i = static_cast<Index>(real.logits.size()); i < windows; ++i) {
      ANYBIT_TRY(Matrix logits, logits_of(d, real.evaluated(i), pool));
      real.logits.push_back(std::move(logits));
    }
    return Ok{};
  };
  std::vector<Job> jobs;
  for (const int bits : widths)
    jobs.push_back({line("smollm2 rows SF%d", bits), [&, bits]() -> Result<Values> {
                      ANYBIT_TRY_STATUS(floats_first());
                      ANYBIT_TRY(const model::Decoder q, rounded(d, {Use::rows, bits}));
                      ANYBIT_TRY(const std::vector<double> kl, divergences(real, q, pool));
                      return by_position(kl);
                    }});
  for (const Index c : contexts)  // values: of 3 and of 4 bits
    jobs.push_back({line("smollm2 gptq of windows of %td", c), [&, c]() -> Result<Values> {
                      ANYBIT_TRY_STATUS(floats_first());
                      model::ModelStats stats(d, Needs::mean_square | Needs::hessian);
                      for (Index t = 0; t + c <= calibration_tokens; t += c)
                        ANYBIT_TRY_STATUS(stats.accumulate(
                            d, real.calibration().subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(c)), pool));
                      Values all;
                      const auto add = [&](const Result<model::Decoder>& q) -> Status {
                        if (!q) return q.error();
                        ANYBIT_TRY(const std::vector<double> kl, divergences(real, *q, pool));
                        const Values v = by_position(kl);
                        all.insert(all.end(), v.begin(), v.end());
                        return Ok{};
                      };
                      ANYBIT_TRY_STATUS(add(gptq<3>(d, stats, pool)));
                      ANYBIT_TRY_STATUS(add(gptq<4>(d, stats, pool)));
                      return all;
                    }});
  ANYBIT_TRY_STATUS(measure_points(s.points, jobs, 1));  // each with all threads

  const std::size_t ranges = edges.size() - 1;
  out.csv = "method,bits,calibration_window,positions,kl\n";
  Chart by_bits{"KL by position, scale per row", "tokens before", true},
      by_window{"GPTQ by calibration window", "c, tokens", true};
  Table t{{"constant", "per bit", "log2 of tokens before"}}, held_out = t;
  for (std::size_t w = 0; w < widths.size(); ++w) {
    const Values& v = *s.points.find(jobs[w].name);
    if (v.size() != ranges + 1)
      return Error{ErrorCode::corrupt_data, "the file of points is of another program: give another folder"};
    Series series{line("rows SF%d", widths[w]), {}};
    out.csv += line("rows,%d,,all,%.6g\n", widths[w], v[0]);
    for (std::size_t e = 0; e < ranges; ++e) {
      out.csv += line("rows,%d,,%td-%td,%.6g\n", widths[w], edges[e], edges[e + 1] - 1, v[e + 1]);
      const double u = std::log2(std::sqrt(static_cast<double>(edges[e] * edges[e + 1])));
      if (widths[w] <= 6) series.points.push_back({std::exp2(u), v[e + 1]});
      // Where divergence is a small quadratic form it falls by 4 per bit; from 12 bits on it is rounding of floats.
      if (widths[w] >= 4 && widths[w] <= 10)
        (widths[w] == 8 ? held_out : t).add({1, static_cast<double>(widths[w]), u}, std::log(v[e + 1]));
    }
    if (widths[w] <= 6) by_bits.series.push_back(std::move(series));
    out.lines.push_back(line("rows SF%d: KL %.5g", widths[w], v[0]));
  }
  ANYBIT_TRY(const Fit f, fit_linear(t));
  out.fit("log of the KL, 4 to 10 bits", t, f);
  double squares = 0;
  for (std::size_t i = 0; i < held_out.rows.size(); ++i) squares += std::pow(held_out.values[i] - f.at(held_out.rows[i]), 2);
  out.lines.push_back(
      line("  held out, 8 bits: root of the mean square %.4f", std::sqrt(squares / static_cast<double>(held_out.rows.size()))));
  const Interval per_bit = f.interval(1), per_doubling = f.interval(2);
  out.verdict("the KL falls by a factor of 4 per bit",
              line("exp(-slope) = %.2f [%.2f, %.2f]", std::exp(-per_bit.value), std::exp(-per_bit.high), std::exp(-per_bit.low)));
  out.verdict("rounding hurts most behind few tokens", "log KL per doubling of the tokens before " + shown(per_doubling));
  for (const std::size_t bits : {std::size_t{0}, std::size_t{1}}) {
    Series series{line("SF%zu, all positions", bits + 3), {}};
    Index best = 0;
    double least = 0;
    for (std::size_t i = 0; i < contexts.size(); ++i) {
      const Values& v = *s.points.find(jobs[widths.size() + i].name);
      if (v.size() != 2 * (ranges + 1))
        return Error{ErrorCode::corrupt_data, "the file of points is of another program: give another folder"};
      const double kl = v[bits * (ranges + 1)];
      series.points.push_back({static_cast<double>(contexts[i]), kl});
      out.csv += line("gptq,%zu,%td,all,%.6g\n", bits + 3, contexts[i], kl);
      if (best == 0 || kl < least) best = contexts[i], least = kl;
    }
    std::string values;
    for (const auto& [c, kl] : series.points) values += line("%s%.0f: %.4f", values.empty() ? "" : ", ", c, kl);
    out.verdict(line("calibration windows of 128 to 256 tokens are best (GPTQ, SF%zu)", bits + 3),
                line("lowest at c = %td; ", best) + values);
    by_window.series.push_back(std::move(series));
  }
  out.picture = draw("Rounding of a real model by context", {by_bits, by_window});
  return out;
}

}  // namespace study
