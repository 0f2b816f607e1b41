// Penalty by the number of weights, and the bits that a width needs: nets of several widths trained with and without the grid,
// ten tokens per weight as published.

#include <algorithm>
#include <cmath>

#include <anybit/train/wasq/superfloat_grid.hpp>

#include "scaling/report.hpp"

namespace study {

using namespace anybit;

namespace {

constexpr double per_weight = 10;
constexpr std::array<int, 6> plain_bits{2, 3, 4, 5, 6, 8};
constexpr std::array<int, 2> row_bits{2, 4};

struct Cell {
  double loss = 0, accuracy = 0, dead = 0;
};

Result<Cell> cell(const Study& s, Index width, const Grid& grid) {
  const Values* const v = s.points.find(training_job(s, width, per_weight, grid, 1).name);
  if (!v || v->size() < 3)
    return Error{ErrorCode::corrupt_data, "the file of points has a point of another program: give another folder"};
  return Cell{(*v)[0], (*v)[1], (*v)[2]};
}

std::vector<Grid> grids() {
  std::vector<Grid> out{{}};
  for (const int bits : plain_bits) out.push_back({Use::plain, bits});
  for (const int bits : row_bits) out.push_back({Use::rows, bits});
  return out;
}

/// The largest nets first, so that no thread waits at the end.
Status measure_sizes(Study& s) {
  std::vector<Job> jobs;
  const std::vector<Index> widths = s.widths();
  for (auto w = widths.rbegin(); w != widths.rend(); ++w)
    for (const Grid& g : grids()) jobs.push_back(training_job(s, *w, per_weight, g, 1));
  return measure_points(s.points, jobs, s.threads);
}

double log_weights(Index width) { return std::log10(static_cast<double>(block_weights(width))); }

Result<std::string> table_of(const Study& s) {
  std::string csv = "width,weights,grid,loss,penalty,accuracy,dead\n";
  for (const Index w : s.widths()) {
    ANYBIT_TRY(const Cell base, cell(s, w, {}));
    for (const Grid& g : grids()) {
      ANYBIT_TRY(const Cell c, cell(s, w, g));
      csv += line("%td,%td,%s,%.5f,%.5f,%.5f,%.5f\n", w, block_weights(w), g.name().c_str(), c.loss, c.loss - base.loss,
                  c.accuracy, c.dead);
    }
  }
  return csv;
}

/// The widest net against the fit of the others, where these are enough for one.
Status hold_out_widest(const Table& t, Report& out) {
  Table narrow = t;
  narrow.rows.pop_back(), narrow.values.pop_back();
  if (narrow.rows.size() <= 2) return Ok{};
  ANYBIT_TRY(const Fit f, fit_linear(narrow));
  const Interval expected = f.value_at(t.rows.back(), true);
  out.lines.push_back(line("  held out, the widest: measured %.4f, expected ", t.values.back()) + shown(expected) +
                      (expected.holds(t.values.back()) ? ": inside" : ": outside"));
  return Ok{};
}

}  // namespace

Result<Report> size_law(Study& s) {
  ANYBIT_TRY_STATUS(measure_sizes(s));
  Report out;
  ANYBIT_TRY(out.csv, table_of(s));
  Chart plain{"Penalty, plain grid", "weights", true}, rows{"Penalty, a scale per row", "weights", true};
  for (const Grid& g : grids()) {
    if (g.use == Use::floats) continue;
    Table t{{"constant", "per decade of weights"}};
    Series series{g.name(), {}};
    for (const Index w : s.widths()) {
      ANYBIT_TRY(const Cell base, cell(s, w, {}));
      ANYBIT_TRY(const Cell c, cell(s, w, g));
      t.add({1, log_weights(w)}, c.loss - base.loss);
      series.points.push_back({static_cast<double>(block_weights(w)), c.loss - base.loss});
    }
    ANYBIT_TRY(const Fit f, fit_linear(t));
    out.fit("penalty of " + g.name(), t, f);
    ANYBIT_TRY_STATUS(hold_out_widest(t, out));
    const bool claimed = g.use == Use::plain && (g.bits == 3 || g.bits == 4);
    const Interval slope = f.interval(1);
    if (claimed) {
      const double published = g.bits == 3 ? 1.150 : 1.132;
      out.verdict(line("the penalty of %s grows by %.3f nats per decade of weights", g.name().c_str(), published),
                  std::string(slope.above(0)   ? "it grows"
                              : slope.below(0) ? "it falls"
                                               : "no trend beyond the scatter") +
                      ", by " + shown(slope) + (slope.holds(published) ? "; the figure holds" : "; the figure does not hold"));
    }
    if (g.use == Use::rows)
      out.verdict("a scale per row takes the growth away (" + g.name() + ")",
                  "slope " + shown(slope) + (slope.above(0) ? ": it still grows" : ": no growth beyond the scatter"));
    (g.use == Use::plain ? plain : rows).series.push_back(std::move(series));
  }
  out.picture = draw("Penalty of Superfloat by size", {plain, rows});
  return out;
}

Result<Report> width_law(Study& s) {
  ANYBIT_TRY_STATUS(measure_sizes(s));
  Report out;
  out.csv = "width,floor,top,k,p0,residual\n";
  Chart curves{"Accuracy by bits, plain grid", "bits"}, law{"Bits at half height", "width", true};
  Table t{{"constant", "per doubling of the width"}};
  Series points{"p0", {}, true, false};
  for (const Index w : s.widths()) {
    std::vector<double> x, y;
    Series series{line("width %td", w), {}};
    for (const int bits : plain_bits) {
      ANYBIT_TRY(const Cell c, cell(s, w, {Use::plain, bits}));
      x.push_back(bits), y.push_back(c.accuracy);
      series.points.push_back({x.back(), y.back()});
    }
    ANYBIT_TRY(const Logistic l, fit_logistic(x, y));
    out.csv += line("%td,%.5f,%.5f,%.4f,%.4f,%.5f\n", w, l.floor, l.top, l.k, l.middle, l.residual);
    out.lines.push_back(
        line("width %td: floor %.4f, top %.4f, k %.2f, p0 %.3f, residual %.4f", w, l.floor, l.top, l.k, l.middle, l.residual));
    const double doublings = std::log2(static_cast<double>(w));
    t.add({1, doublings}, l.middle);
    points.points.push_back({static_cast<double>(w), l.middle});
    curves.series.push_back(std::move(series));
  }
  ANYBIT_TRY(const Fit f, fit_linear(t));
  out.fit("p0", t, f);
  ANYBIT_TRY_STATUS(hold_out_widest(t, out));
  Series fitted{"fit", {}, false};
  for (const auto& row : t.rows) fitted.points.push_back({std::exp2(row[1]), f.at(row)});
  law.series = {points, fitted};
  const Interval slope = f.interval(1);
  const auto whether = [&](double claimed) {
    return "slope " + shown(slope) + (slope.holds(claimed) ? ": the figure holds" : ": the figure does not hold");
  };
  out.verdict("p0 grows by 0.29 bits per doubling of the width", whether(0.29));
  out.verdict("p0 grows by 0.5 bits per doubling, as dead weights predict", whether(0.5));

  // Share of weights that the plain grid makes 0 before training: closed form of uniform weights within +-1 / sqrt(inputs).
  double most = 0;
  for (const Index w : s.widths())
    for (const int bits : plain_bits) {
      const model::Decoder d = make_net(w, 1);
      double expected = 0, all = 0;
      for (const model::WeightId id : d.blueprint->linears) {
        const auto e = d[id].linear.extents();
        const auto n = static_cast<double>(e.size());
        expected += n * std::min(1.0, std::exp2(-bits) * std::sqrt(static_cast<double>(e.cols))), all += n;
      }
      ANYBIT_TRY(const model::Decoder q, rounded(d, {Use::plain, bits}));
      most = std::max(most, std::abs(dead_share(q) - expected / all));
    }
  out.verdict("dead share before training is min(1, 2^-bits sqrt(inputs))", line("largest difference %.4f: holds", most));
  out.picture = draw("Bits by width", {curves, law});
  return out;
}

}  // namespace study
