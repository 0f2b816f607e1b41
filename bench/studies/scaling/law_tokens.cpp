// Penalty by tokens per weight, with several seeds; and rounding of one net behind ever longer training.

#include <algorithm>
#include <cmath>

#include "scaling/report.hpp"

namespace study {

using namespace anybit;

namespace {

constexpr std::array<double, 4> ratios{5, 10, 20, 40};
constexpr std::array<int, 4> bits_of_tokens{2, 3, 4, 6};
constexpr int seeds = 3;
/// Absorbed weights are larger, so a step of one rate is a smaller part of them than of floats as they are: what rounding does is
/// the difference from absorbed weights on a grid too fine to matter.
constexpr int control_bits = 16;

std::vector<Index> token_widths(const Study& s) { return s.quick ? std::vector<Index>{8} : std::vector<Index>{16, 24}; }

/// Loss less that of the control; `bits` 0: of floats that have absorbed nothing.
Result<double> penalty(const Study& s, Index width, double ratio, int bits, int seed) {
  const auto loss = [&](const Grid& g) -> Result<double> {
    const Values* const v = s.points.find(training_job(s, width, ratio, g, static_cast<std::uint64_t>(seed)).name);
    if (!v || v->empty()) return Error{ErrorCode::corrupt_data, "a point is missing: run the law again"};
    return (*v)[0];
  };
  ANYBIT_TRY(const double base, loss({Use::norms, control_bits}));
  ANYBIT_TRY(const double on_grid, bits == 0 ? loss({}) : loss({Use::norms, bits}));
  return on_grid - base;
}

}  // namespace

Result<Report> tokens_law(Study& s) {
  std::vector<Job> jobs;
  for (const Index w : token_widths(s))
    for (const double r : ratios)
      for (int seed = 1; seed <= seeds; ++seed) {
        jobs.push_back(training_job(s, w, r, {}, static_cast<std::uint64_t>(seed)));
        jobs.push_back(training_job(s, w, r, {Use::norms, control_bits}, static_cast<std::uint64_t>(seed)));
        for (const int bits : bits_of_tokens)
          jobs.push_back(training_job(s, w, r, {Use::norms, bits}, static_cast<std::uint64_t>(seed)));
      }
  ANYBIT_TRY_STATUS(measure_points(s.points, jobs, s.threads));
  Report out;
  out.csv = "width,weights,tokens_per_weight,bits,seed,penalty,over_plain_floats\n";
  std::vector<Chart> charts;
  for (const Index w : token_widths(s)) {
    Chart chart{line("%td weights, norms", block_weights(w)), "tokens per weight", true};
    std::string grows, floats;
    for (const double r : ratios) {
      std::vector<double> differences;
      for (int seed = 1; seed <= seeds; ++seed) {
        ANYBIT_TRY(const double p, penalty(s, w, r, 0, seed));
        differences.push_back(p);
      }
      floats += line("%s%g: %s", floats.empty() ? "" : ", ", r, shown(mean_interval(differences)).c_str());
    }
    out.lines.push_back(line("width %td, floats that absorbed nothing less the control, by tokens per weight: ", w) + floats);
    for (const int bits : bits_of_tokens) {
      Table t{{"constant", "per doubling of tokens per weight"}}, two = t, over_floats = t;
      Series series{line("SF%d", bits), {}};
      double squares = 0;
      for (const double r : ratios) {
        double sum = 0;
        for (int seed = 1; seed <= seeds; ++seed) {
          ANYBIT_TRY(const double p, penalty(s, w, r, bits, seed));
          ANYBIT_TRY(const double floats_less_control, penalty(s, w, r, 0, seed));
          t.add({1, std::log2(r)}, p), over_floats.add({1, std::log2(r)}, p - floats_less_control);
          if (seed < seeds) two.add({1, std::log2(r)}, p);
          sum += p;
          out.csv += line("%td,%td,%g,%d,%d,%.5f,%.5f\n", w, block_weights(w), r, bits, seed, p, p - floats_less_control);
        }
        series.points.push_back({r, sum / seeds});
      }
      ANYBIT_TRY(const Fit f, fit_linear(t));
      out.fit(line("width %td, penalty of norms SF%d", w, bits), t, f);
      ANYBIT_TRY(const Fit without, fit_linear(two));
      for (const double r : ratios) {
        ANYBIT_TRY(const double p, penalty(s, w, r, bits, seeds));
        const double e = p - without.at(std::vector<double>{1, std::log2(r)});
        squares += e * e;
      }
      out.lines.push_back(line("  held out, the last seed: root of the mean square %.4f, in the fit %.4f",
                               std::sqrt(squares / static_cast<double>(ratios.size())), without.residual));
      ANYBIT_TRY(const Fit naive, fit_linear(over_floats));
      out.lines.push_back("  over floats that absorbed nothing, per doubling " + shown(naive.interval(1)));
      const Interval slope = f.interval(1);
      grows += line("%sSF%d %s", grows.empty() ? "" : ", ", bits, shown(slope).c_str());
      chart.series.push_back(std::move(series));
    }
    out.verdict(line("the penalty grows with tokens per weight (width %td)", w), "per doubling " + grows);
    for (const double r : ratios) {
      std::vector<double> differences;
      for (int seed = 1; seed <= seeds; ++seed) {
        ANYBIT_TRY(const double coarse, penalty(s, w, r, 2, seed));
        ANYBIT_TRY(const double fine, penalty(s, w, r, 4, seed));
        differences.push_back(coarse - fine);
      }
      const Interval d = mean_interval(differences);
      out.verdict(line("SF2 beats SF4 at %g tokens per weight (width %td)", r, w), "SF2 less SF4 " + shown(d) +
                                                                                       (d.below(0)   ? ": holds"
                                                                                        : d.above(0) ? ": SF4 is better"
                                                                                                     : ": too close to tell"));
    }
    charts.push_back(std::move(chart));
  }
  out.picture = draw("Penalty by tokens per weight", charts);
  return out;
}

Result<Report> damage_law(Study& s) {
  const std::vector<double> places =
      s.quick ? std::vector<double>{1, 2, 4} : std::vector<double>{1, 2, 4, 8, 16, 32, 64, 128, 200};
  const std::vector<Index> widths = s.quick ? std::vector<Index>{8} : std::vector<Index>{24, 32};
  const std::vector<Grid> grids{{Use::plain, 4}, {Use::plain, 5}, {Use::plain, 6}, {Use::plain, 7},
                                {Use::exact, 4}, {Use::exact, 6}, {Use::rows, 3},  {Use::rows, 4}};
  // Values: of every place the loss of the floats, then of every grid the penalty with its standard error over windows.
  const std::size_t per_place = 1 + 2 * grids.size();
  std::vector<Job> jobs;
  for (const Index w : widths)
    jobs.push_back({line("damage width %td", w), [&s, &places, &grids, w]() -> Result<Values> {
                      constexpr Index step_tokens = 512;
                      model::Decoder d = make_net(w, 1);
                      Values values;
                      Status status = Ok{};
                      const auto evaluate_here = [&]() -> Status {
                        ANYBIT_TRY(const Measured base, measure(d, s.corpus.test(), 256, s.windows()));
                        values.push_back(base.loss);
                        for (const Grid& g : grids) {
                          ANYBIT_TRY(const model::Decoder q, rounded(d, g));
                          ANYBIT_TRY(const Measured m, measure(q, s.corpus.test(), 256, s.windows()));
                          std::vector<double> more;
                          for (std::size_t i = 0; i < m.by_window.size(); ++i) more.push_back(m.by_window[i] - base.by_window[i]);
                          const evaluate::Estimate e = evaluate::estimate(more);
                          values.push_back(e.value), values.push_back(e.plus_minus);
                        }
                        return Ok{};
                      };
                      Training how;
                      how.tokens = places.back() * static_cast<double>(block_weights(w)), how.falls = false, how.rate = 2e-3;
                      const auto last = static_cast<Index>(how.tokens / step_tokens);
                      std::vector<Index> steps;
                      for (const double p : places)
                        steps.push_back(
                            std::min(static_cast<Index>(p * static_cast<double>(block_weights(w)) / step_tokens), last));
                      how.behind = [&](Index step) {
                        if (status && std::find(steps.begin(), steps.end(), step + 1) != steps.end()) status = evaluate_here();
                      };
                      ANYBIT_TRY_STATUS(train_net(d, s.corpus.train(), {}, how));
                      ANYBIT_TRY_STATUS(status);
                      return values;
                    }});
  ANYBIT_TRY_STATUS(measure_points(s.points, jobs, s.threads));
  Report out;
  out.csv = "width,weights,tokens_per_weight,grid,float_loss,penalty,standard_error\n";
  std::vector<Chart> charts;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const Values& v = *s.points.find(jobs[i].name);
    if (v.size() != per_place * places.size())
      return Error{ErrorCode::corrupt_data, "the file of points is of another program: give another folder"};
    Chart chart{line("%td weights, rounded behind training", block_weights(widths[i])), "tokens per weight", true};
    for (std::size_t g = 0; g < grids.size(); ++g) {
      Table t{{"constant", "u", "u squared, u = log2 of tokens per weight"}}, most = t;
      Series series{grids[g].name(), {}};
      std::vector<double> penalties, errors;
      for (std::size_t p = 0; p < places.size(); ++p) {
        const double* const at = v.data() + p * per_place;
        const double u = std::log2(places[p]);
        penalties.push_back(at[1 + 2 * g]), errors.push_back(at[2 + 2 * g]);
        t.add({1, u, u * u}, penalties.back());
        if (p + 1 < places.size()) most.add({1, u, u * u}, penalties.back());
        series.points.push_back({places[p], penalties.back()});
        out.csv += line("%td,%td,%g,%s,%.5f,%.5f,%.5f\n", widths[i], block_weights(widths[i]), places[p], grids[g].name().c_str(),
                        at[0], penalties.back(), errors.back());
      }
      const auto least = static_cast<std::size_t>(std::min_element(penalties.begin(), penalties.end()) - penalties.begin());
      const auto apart = [&](std::size_t a, std::size_t b) {  // beyond two standard errors
        return penalties[a] - penalties[b] > 2 * std::hypot(errors[a], errors[b]);
      };
      const std::size_t end = penalties.size() - 1;
      const std::string what = least > 0 && least < end && apart(0, least) && apart(end, least) ? "U-shaped"
                               : apart(end, 0)                                                  ? "grows"
                               : apart(0, end)                                                  ? "falls"
                                                                                                : "no trend beyond the noise";
      out.verdict(line("damage over training is U-shaped (%s, width %td)", grids[g].name().c_str(), widths[i]),
                  line("%s: first %.3f, least %.3f at %g tokens per weight, last %.3f, noise %.3f", what.c_str(), penalties[0],
                       penalties[least], places[least], penalties[end], *std::max_element(errors.begin(), errors.end())));
      if (!s.quick) {
        ANYBIT_TRY(const Fit f, fit_linear(t));
        out.fit(line("width %td, %s", widths[i], grids[g].name().c_str()), t, f);
        ANYBIT_TRY(const Fit without, fit_linear(most));
        out.lines.push_back(line("  held out, the last point: measured %.4f, expected ", penalties[end]) +
                            shown(without.value_at(t.rows.back(), true)));
      }
      chart.series.push_back(std::move(series));
    }
    charts.push_back(std::move(chart));
  }
  out.picture = draw("Damage of rounding over training", charts);
  return out;
}

}  // namespace study
