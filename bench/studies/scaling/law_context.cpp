// P = f(n, c, 3, x): nets of n weights, trained as floats on pieces of 1024 bytes, are tuned on the grid of x bits for three
// passes over pieces of c bytes of another part of the text, the same bytes for every c. Losses are those of windows of 64 and of
// 1024 bytes, since the evaluation that the published optimum comes from has short prompts.

#include <algorithm>
#include <cmath>

#include "scaling/report.hpp"

namespace study {

using namespace anybit;

namespace {

constexpr double passes = 3;
constexpr Index tune_bytes = 16384, step_bytes = 1024;

struct Plan {
  std::vector<Index> widths, contexts;
  std::vector<int> bits;
};

Plan plan_of(const Study& s) {
  if (s.quick) return {{8, 16}, {4, 64, 1024}, {2, 4, 16}};
  return {{16, 24, 32, 40, 48}, {4, 16, 64, 128, 256, 512, 1024}, {2, 4, 16}};
}
constexpr Index published_width = 24;
const std::vector<int> published_bits{4, 8, 11, 16};

Result<model::Decoder> base_of(const Study& s, Index width) {
  model::Decoder d = make_net(width, 1);
  Training how;
  how.tokens = s.quick ? 4096 : 20 * static_cast<double>(block_weights(width)), how.context = how.batch = 1024;
  how.state = s.folder + line("/base_%td%s.state", width, s.quick ? "_quick" : "");
  ANYBIT_TRY_STATUS(train_net(d, s.corpus.train(), {}, how));
  return d;
}

std::string name_of(Index width, Index context, const Grid& g) {
  return line("context width %td, %td bytes, %s", width, context, g.name().c_str());
}

/// Loss in windows of 1024 and of 64 bytes.
Result<Values> losses_of(const Study& s, const model::Decoder& d) {
  ANYBIT_TRY(const Measured far, measure(d, s.corpus.test(), 1024, s.quick ? 1 : 24));
  ANYBIT_TRY(const Measured near, measure(d, s.corpus.test(), 64, s.quick ? 2 : 400));
  return Values{far.loss, near.loss};
}

Job job_of(const Study& s, Index width, Index context, const Grid& g) {
  return {name_of(width, context, g), [&s, width, context, g]() -> Result<Values> {
            ANYBIT_TRY(model::Decoder d, base_of(s, width));
            const auto bytes = static_cast<std::size_t>(s.quick ? 2048 : tune_bytes);
            if (s.corpus.tune().size() < bytes)
              return Error{ErrorCode::insufficient_data,
                           "the text is too short: an eighth of it must have " + std::to_string(bytes) + " bytes"};
            Training how;
            how.tokens = (s.quick ? 1 : passes) * static_cast<double>(bytes), how.context = context, how.batch = step_bytes;
            how.rate = 1e-3, how.falls = false;
            ANYBIT_TRY_STATUS(train_net(d, s.corpus.tune().first(bytes), g, how));
            return losses_of(s, d);
          }};
}

/// The published claim about one evaluation.
Status judge(const Study& s, const Plan& plan, std::size_t which, const char* evaluation, Report& out) {
  const std::vector<std::string> names{"constant",   "per decade of weights", "log2 c", "squared log2 c", "2^-x", "4^-x",
                                       "2^-x log2 c"};
  Table fitted{names}, held_out = fitted;
  Index inside = 0, lines_of_c = 0, cells = 0;
  for (const Index w : plan.widths)
    for (const int bits : plan.bits) {
      Index best = 0;
      double least = 0;
      for (const Index c : plan.contexts) {
        const Values* const v = s.points.find(name_of(w, c, {Use::rows, bits}));
        if (!v || v->size() != 2)
          return {ErrorCode::corrupt_data, "the file of points is of another program: give another folder"};
        const double u = std::log2(static_cast<double>(c)), loss = (*v)[which];
        const std::vector<double> row{1,
                                      std::log10(static_cast<double>(block_weights(w))),
                                      u,
                                      u * u,
                                      std::exp2(-bits),
                                      std::exp2(-2 * bits),
                                      std::exp2(-bits) * u};
        (cells++ % 5 == 2 ? held_out : fitted).add(row, loss);
        if (best == 0 || loss < least) best = c, least = loss;
      }
      ++lines_of_c;
      inside += best >= 128 && best <= 256 ? 1 : 0;
    }
  ANYBIT_TRY(const Fit f, fit_linear(fitted));
  out.fit(std::string("loss in ") + evaluation, fitted, f);
  double squares = 0, spread = 0;
  const double center = evaluate::mean(held_out.values);
  for (std::size_t i = 0; i < held_out.rows.size(); ++i) {
    const double e = held_out.values[i] - f.at(held_out.rows[i]);
    squares += e * e, spread += (held_out.values[i] - center) * (held_out.values[i] - center);
  }
  const auto count = static_cast<double>(held_out.rows.size());
  out.lines.push_back(line("  held out, every fifth cell: root of the mean square %.4f, their spread %.4f",
                           std::sqrt(squares / count), std::sqrt(spread / count)));
  const Interval bend = f.interval(3);
  std::string optimum = "the curve in c has no minimum";
  if (bend.above(0)) {
    const Interval u = f.interval([](std::span<const double> b) { return -b[2] / (2 * b[3]); });
    optimum = line("the fitted minimum at 16 bits lies at c = %.0f [%.0f, %.0f]", std::exp2(u.value), std::exp2(u.low),
                   std::exp2(std::min(u.high, 30.0)));
  }
  out.verdict(std::string("the loss is lowest at c = 128 to 256 (") + evaluation + ")",
              line("%td of %td nets and widths have it there; ", inside, lines_of_c) + optimum);
  return Ok{};
}

}  // namespace

Result<Report> context_law(Study& s) {
  const Plan plan = plan_of(s);
  std::vector<Job> bases, jobs;
  for (auto w = plan.widths.rbegin(); w != plan.widths.rend(); ++w)
    bases.push_back({line("base width %td", *w), [&s, width = *w]() -> Result<Values> {
                       ANYBIT_TRY(const model::Decoder d, base_of(s, width));
                       return losses_of(s, d);
                     }});
  for (auto w = plan.widths.rbegin(); w != plan.widths.rend(); ++w)
    for (const int bits : plan.bits)
      for (const Index c : plan.contexts) jobs.push_back(job_of(s, *w, c, {Use::rows, bits}));
  if (!s.quick)
    for (const int bits : published_bits)
      for (const Index c : plan.contexts) jobs.push_back(job_of(s, published_width, c, {Use::published, bits}));
  ANYBIT_TRY_STATUS(measure_points(s.points, bases, s.threads));
  ANYBIT_TRY_STATUS(measure_points(s.points, jobs, s.threads));
  Report out;
  out.csv = "width,weights,context,grid,loss_1024,loss_64\n";
  std::vector<Chart> charts;
  const Index shown_width = plan.widths.back();
  for (const std::size_t which : {std::size_t{0}, std::size_t{1}}) {
    Chart chart{line("%td weights, windows of %d bytes", block_weights(shown_width), which == 0 ? 1024 : 64), "c, bytes", true};
    for (const int bits : plan.bits) {
      Series series{line("rows SF%d", bits), {}};
      for (const Index c : plan.contexts) {
        const Values* const v = s.points.find(name_of(shown_width, c, {Use::rows, bits}));
        series.points.push_back({static_cast<double>(c), (*v)[which]});
      }
      chart.series.push_back(std::move(series));
    }
    charts.push_back(std::move(chart));
  }
  const auto add_row = [&](Index w, Index c, const Grid& g) {
    const Values* const v = s.points.find(name_of(w, c, g));
    out.csv += line("%td,%td,%td,%s,%.5f,%.5f\n", w, block_weights(w), c, g.name().c_str(), (*v)[0], (*v)[1]);
    return (*v)[1];
  };
  for (const Index w : plan.widths)
    for (const int bits : plan.bits)
      for (const Index c : plan.contexts) add_row(w, c, {Use::rows, bits});
  ANYBIT_TRY_STATUS(judge(s, plan, 0, "windows of 1024 bytes", out));
  ANYBIT_TRY_STATUS(judge(s, plan, 1, "windows of 64 bytes", out));
  if (!s.quick) {
    Chart chart{line("%td weights, as published, windows of 64", block_weights(published_width)), "c, bytes", true};
    std::string best;
    for (const int bits : published_bits) {
      Series series{line("published SF%d", bits), {}};
      for (const Index c : plan.contexts)
        series.points.push_back({static_cast<double>(c), add_row(published_width, c, {Use::published, bits})});
      const auto least =
          std::min_element(series.points.begin(), series.points.end(), [](const auto& a, const auto& b) { return a[1] < b[1]; });
      best += line("%sSF%d at c = %.0f", best.empty() ? "" : ", ", bits, (*least)[0]);
      chart.series.push_back(std::move(series));
    }
    out.verdict("the loss is lowest at c = 128 to 256 (the published method, windows of 64 bytes)", best);
    charts.push_back(std::move(chart));
  }
  out.picture = draw("Loss by the context that was tuned on", charts);
  return out;
}

}  // namespace study
