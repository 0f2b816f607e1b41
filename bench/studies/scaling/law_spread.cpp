// Maximum neuron spread: layers are ranked by how far the mean magnitude of their outputs moves when they are rounded, and the
// worst are tuned. Whether that ranking finds the layers whose rounding costs most, and those that are worth tuning, compared
// with the relative error of outputs, the relative error of weights, and chance.

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <anybit/evaluate/losses.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>
#include <anybit/train/random.hpp>
#include <anybit/train/wasq/grid_model.hpp>

#include "scaling/report.hpp"

namespace study {

using namespace anybit;
namespace wasq = train::wasq;

namespace {

constexpr std::size_t scores = 4;  ///< values of a layer: spread, error of outputs, error of weights, added loss
constexpr const char* score_names[] = {"spread", "error of outputs", "error of weights"};

/// Of every layer, with it alone on the grid: the three scores, and by how much the loss of `ids` grows.
Result<Values> layer_scores(const model::Decoder& d, std::span<const model::TokenId> ids, int bits, Index step,
                            ExecutorRef executor) {
  const model::Blueprint& b = *d.blueprint;
  std::vector<Matrix> inputs(b.sites.size());
  const auto taps = model::site_taps(b, [&](model::SiteId site, ConstMatrix x) { inputs[model::place(site)] = Matrix(x); });
  nn::KvCache cache(model::cache_shape(d.config), static_cast<Index>(ids.size()));
  ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, ids, cache, {executor, taps}));
  const evaluate::Windows text{static_cast<Index>(ids.size()), 0, {ids.begin(), ids.end()}};
  ANYBIT_TRY(const std::vector<double> base, evaluate::losses(d, text, executor));
  ANYBIT_TRY(const model::Decoder all, rounded(d, {Use::rows, bits}));
  Values out;
  Index number = 0;
  for (std::size_t i = 0; i < b.sites.size(); ++i)
    for (const model::WeightId id : b.sites[i].readers) {
      if (number++ % step != 0) continue;
      const Matrix &w = *d[id].linear.dense(), &q = *all[id].linear.dense();
      const auto outputs = [&](const Matrix& weights) {
        Matrix y(inputs[i].rows(), weights.rows());
        nn::float_product(weights.view(), inputs[i].view(), y.view(), executor);
        return y;
      };
      const Matrix y = outputs(w), z = outputs(q);
      double before = 0, behind = 0, error = 0, size = 0, weight_error = 0, weight_size = 0;
      for (Index k = 0; k < y.extents().size(); ++k) {
        const auto a = static_cast<double>(y.data()[k]), c = static_cast<double>(z.data()[k]);
        before += std::abs(a), behind += std::abs(c), error += (a - c) * (a - c), size += a * a;
      }
      for (Index k = 0; k < w.extents().size(); ++k) {
        const auto a = static_cast<double>(w.data()[k]), c = static_cast<double>(q.data()[k]);
        weight_error += (a - c) * (a - c), weight_size += a * a;
      }
      model::Decoder one = d;
      one[id].linear = all[id].linear;
      ANYBIT_TRY(const std::vector<double> losses, evaluate::losses(one, text, executor));
      out.push_back(std::abs(before - behind) / static_cast<double>(y.extents().size()));
      out.push_back(std::sqrt(error / size)), out.push_back(std::sqrt(weight_error / weight_size));
      out.push_back(evaluate::mean(losses) - evaluate::mean(base));
    }
  return out;
}

std::vector<double> column(const Values& v, std::size_t which) {
  std::vector<double> out;
  for (std::size_t i = which; i < v.size(); i += scores) out.push_back(v[i]);
  return out;
}

std::vector<std::string> layer_names(const model::Decoder& d) {
  std::vector<std::string> out;
  for (const model::SiteSpec& site : d.blueprint->sites)
    for (const model::WeightId id : site.readers) out.push_back((*d.blueprint)[id].name);
  return out;
}

/// A net trained as floats; the first call of a width trains it, the others read its state.
Result<model::Decoder> trained_net(const Study& s, Index width) {
  model::Decoder d = make_net(width, 1);
  Training how;
  how.tokens = s.quick ? 4096 : 10 * static_cast<double>(block_weights(width));
  how.state = s.folder + line("/spread_%td%s.state", width, s.quick ? "_quick" : "");
  ANYBIT_TRY_STATUS(train_net(d, s.corpus.train(), {}, how));
  return d;
}

/// All layers on the grid of 3 bits, of which those of `tuned` train; loss in windows of 256.
Result<double> tune_some(const Study& s, Index width, const std::set<std::string>& tuned) {
  ANYBIT_TRY(model::Decoder d, trained_net(s, width));
  ANYBIT_TRY(const model::Decoder on_grid, rounded(d, {Use::rows, 3}));
  for (const model::WeightId id : d.blueprint->linears)
    if (const std::string& name = (*d.blueprint)[id].name; !tuned.contains(name)) d[id].linear = on_grid[id].linear;
  Training tuning;
  tuning.tokens = s.quick ? 1024 : 65536, tuning.rate = 1e-3, tuning.falls = false;
  tuning.trained = [&](std::string_view name) { return tuned.contains(std::string(name)); };
  if (!tuned.empty()) ANYBIT_TRY_STATUS(train_net(d, s.corpus.tune(), {Use::rows, 3}, tuning));
  ANYBIT_TRY(const Measured m, measure(d, s.corpus.test(), 256, s.windows()));
  return m.loss;
}

std::set<std::string> worst(const std::vector<std::string>& names, const std::vector<double>& score, std::size_t count) {
  std::vector<std::size_t> order(names.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return score[a] > score[b] || (score[a] == score[b] && a < b); });
  std::set<std::string> out;
  for (std::size_t i = 0; i < count; ++i) out.insert(names[order[i]]);
  return out;
}

}  // namespace

Result<Report> spread_law(Study& s) {
  const std::vector<Index> widths = s.widths();
  constexpr std::size_t tuned_layers = 4;
  constexpr int chances = 4;
  std::vector<Job> jobs;
  for (auto w = widths.rbegin(); w != widths.rend(); ++w)
    jobs.push_back({line("spread width %td", *w), [&s, width = *w]() -> Result<Values> {
                      ANYBIT_TRY(const model::Decoder d, trained_net(s, width));
                      Values mean;
                      constexpr Index pieces = 8;
                      for (Index i = 0; i < pieces; ++i) {
                        const auto ids =
                            s.corpus.tune().subspan(s.corpus.tune().size() / (pieces + 1) * static_cast<std::size_t>(i), 1024);
                        ANYBIT_TRY(const Values v, layer_scores(d, ids, 3, 1, {}));
                        mean.resize(v.size());
                        for (std::size_t k = 0; k < v.size(); ++k) mean[k] += v[k] / pieces;
                      }
                      return mean;
                    }});
  if (s.corpus.tune().size() < 9 * 1024)
    return Error{ErrorCode::insufficient_data, "the text is too short: an eighth of it must have 9216 bytes"};
  ANYBIT_TRY_STATUS(measure_points(s.points, jobs, s.threads));
  if (!s.model.empty())
    ANYBIT_TRY_STATUS(measure_points(s.points,
                                     {{"spread of the real model",
                                       [&]() -> Result<Values> {
                                         ThreadPool pool(s.threads);
                                         ANYBIT_TRY(const model::Model m, model::load_model(s.model));
                                         ANYBIT_TRY(const auto ids, m.tokenizer.encode(s.text.substr(0, 8192)));
                                         const auto some = std::span(ids).first(std::min<std::size_t>(ids.size(), 512));
                                         return layer_scores(m.decoder, some, 3, 5, pool);
                                       }}},
                                     1));
  Report out;
  out.csv = "model,layer,spread,error_of_outputs,error_of_weights,added_loss\n";
  Chart chart{"Added loss of one layer, SF3", "mean spread of its outputs"};
  const auto judge = [&](const std::string& model, const Values& v, const std::vector<std::string>& names) {
    const std::vector<double> added = column(v, 3);
    std::string what;
    for (std::size_t k = 0; k + 1 < scores; ++k)
      what += line("%s%s %.2f", k == 0 ? "" : ", ", score_names[k], rank_correlation(column(v, k), added));
    out.lines.push_back(model + line(", %zu layers: rank correlation with the added loss: ", added.size()) + what);
    for (std::size_t i = 0; i < added.size(); ++i)
      out.csv += line("%s,%s,%.6g,%.6g,%.6g,%.6g\n", model.c_str(), names.empty() ? "" : names[i].c_str(), v[i * scores],
                      v[i * scores + 1], v[i * scores + 2], added[i]);
  };
  std::array<std::vector<double>, scores - 1> correlations;
  std::vector<Job> tunings;
  struct Choice {
    Index width;
    std::string how, point;
  };
  std::vector<Choice> choices;
  const auto choose = [&](Index w, const std::string& how, const std::set<std::string>& tuned) {
    Job j{line("spread tuned width %td, ", w) + how, [&s, w, tuned]() -> Result<Values> {
            ANYBIT_TRY(const double loss, tune_some(s, w, tuned));
            return Values{loss};
          }};
    choices.push_back({w, how, j.name});
    tunings.push_back(std::move(j));
  };
  for (const Index w : widths) {
    const Values& v = *s.points.find(line("spread width %td", w));
    const std::vector<std::string> names = layer_names(make_net(w, 1));
    if (v.size() != scores * names.size())
      return Error{ErrorCode::corrupt_data, "the file of points is of another program: give another folder"};
    judge(line("width %td", w), v, names);
    Series series{line("width %td", w), {}, true, false};
    for (std::size_t i = 0; i < names.size(); ++i) series.points.push_back({v[i * scores], v[i * scores + 3]});
    chart.series.push_back(std::move(series));
    for (std::size_t k = 0; k + 1 < scores; ++k) correlations[k].push_back(rank_correlation(column(v, k), column(v, 3)));
    choose(w, "none", {});
    choose(w, "all", {names.begin(), names.end()});
    choose(w, "by spread", worst(names, column(v, 0), tuned_layers));
    choose(w, "by error of outputs", worst(names, column(v, 1), tuned_layers));
    choose(w, "by added loss", worst(names, column(v, 3), tuned_layers));
    for (int i = 0; i < chances; ++i) {
      const train::Draws draws(static_cast<std::uint64_t>(w), static_cast<std::uint64_t>(i));
      std::vector<double> score;
      for (std::size_t k = 0; k < names.size(); ++k) score.push_back(static_cast<double>(draws.uniform(k)));
      choose(w, line("by chance %d", i), worst(names, score, tuned_layers));
    }
  }
  ANYBIT_TRY_STATUS(measure_points(s.points, tunings, s.threads));
  for (std::size_t k = 0; k + 1 < scores; ++k)
    out.lines.push_back(line("rank correlation with the added loss over nets, %s: ", score_names[k]) +
                        shown(mean_interval(correlations[k])));
  if (const Values* const v = s.points.find("spread of the real model")) {
    judge("the real model", *v, {});
  }
  out.verdict("neuron spread finds the layers whose rounding costs most",
              "rank correlation with the added loss: spread " + shown(mean_interval(correlations[0])) + ", error of outputs " +
                  shown(mean_interval(correlations[1])));
  Chart gains{line("Loss with %zu of 14 layers tuned", tuned_layers), "weights", true};
  std::map<std::string, std::vector<double>> shares;  // parts of the gain of tuning all layers
  std::map<std::string, Series> curves;
  for (const Index w : widths) {
    const auto loss = [&](const std::string& how) { return (*s.points.find(line("spread tuned width %td, ", w) + how))[0]; };
    const double none = loss("none"), all = loss("all");
    double chance = 0;
    for (int i = 0; i < chances; ++i) chance += loss(line("by chance %d", i)) / chances;
    for (const char* const how : {"none", "by spread", "by error of outputs", "by added loss", "by chance", "all"}) {
      const double l = std::string(how) == "by chance" ? chance : loss(how);
      curves[how].points.push_back({static_cast<double>(block_weights(w)), l});
      curves[how].name = how;
      if (none > all) shares[how].push_back((none - l) / (none - all));
    }
  }
  for (auto& [how, series] : curves) gains.series.push_back(series);
  std::vector<double> better;
  for (std::size_t i = 0; i < shares["by spread"].size(); ++i) better.push_back(shares["by spread"][i] - shares["by chance"][i]);
  for (const char* const how : {"by spread", "by error of outputs", "by added loss", "by chance"})
    out.lines.push_back(line("tuned %s: share of the gain of tuning all ", how) + shown(mean_interval(shares[how])));
  const Interval gain = mean_interval(better);
  out.verdict("tuning the layers of the largest spread is worth more than tuning others",
              "share of the gain of tuning all, less that of layers by chance: " + shown(gain) +
                  (gain.above(0)   ? ": holds"
                   : gain.below(0) ? ": the opposite"
                                   : ": too close to tell"));
  out.picture = draw("Neuron spread", {chart, gains});
  return out;
}

}  // namespace study
