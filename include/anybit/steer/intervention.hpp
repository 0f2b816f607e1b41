#pragma once
// Inference-time intervention, ITI (Li et al., arXiv:2306.03341): shifts of the heads that tell true from false best.
//
//   x_h         a head's output before the output projection W_O, at one token of each answer
//   probes      logistic regression per head, fitted on the training rows, ranked by accuracy on the validation rows
//   theta       mean(x | true) - mean(x | false) over training and validation rows, normalized ("mass mean shift");
//               or the probe's weight, or a random vector
//   sigma       standard deviation of theta . x over the tuning rows (of all rows where there are none)
//   inference   x_h += alpha sigma theta for the best K heads, at the last token of every step
//
// At all positions the same is a bias of the output projection: b_O += W_O [alpha sigma theta of each head].

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <anybit/steer/control.hpp>
#include <anybit/steer/probe.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

enum class Split : std::int32_t { train, validation, tuning };

enum class ShiftKind : std::uint8_t { mass_mean, probe_weight, random };

struct InterventionOptions {
  Index heads = 48;  ///< K
  ShiftKind kind = ShiftKind::mass_mean;
  double c = 1;             ///< of the probes
  bool sample_std = false;  ///< sigma with n - 1 in place of n
  std::uint64_t seed = 42;  ///< of random directions
};

struct HeadProbe {
  Index block = 0, head = 0;
  Probe probe{};
  double accuracy = 0;  ///< on the validation rows
};

struct HeadShift {
  Index block = 0, head = 0;
  std::vector<double> theta{};  ///< (head size), unit length
  double sigma = 0;
  double accuracy = 0;  ///< of the head's probe on the validation rows
};

/// The best heads, the best first.
struct Intervention {
  Index head_dim = 0;
  std::vector<HeadShift> heads{};
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

namespace detail {

/// The rows of x whose split is `first` or `second`, and their labels.
inline std::pair<Matrix, std::vector<Label>> rows_of(ConstMatrix x, std::span<const Label> labels, std::span<const Split> split,
                                                     Split first, Split second) {
  std::vector<Index> rows;
  for (std::size_t i = 0; i < split.size(); ++i)
    if (split[i] == first || split[i] == second) rows.push_back(static_cast<Index>(i));
  std::pair<Matrix, std::vector<Label>> out{Matrix(static_cast<Index>(rows.size()), x.cols), {}};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x.row(rows[i]).data(), x.cols, out.first.data() + static_cast<Index>(i) * x.cols);
    out.second.push_back(labels[static_cast<std::size_t>(rows[i])]);
  }
  return out;
}

}  // namespace detail

/// Standard deviation of the projections of the rows of x on a vector.
inline double projection_deviation(ConstMatrix x, std::span<const double> theta, bool sample = false) {
  std::vector<double> p;
  double mean = 0;
  for (Index r = 0; r < x.rows; ++r) mean += p.emplace_back(dot(x.row(r), theta));
  mean /= static_cast<double>(std::max<Index>(x.rows, 1));
  double sum = 0;
  for (const double v : p) sum += (v - mean) * (v - mean);
  const auto count = static_cast<double>(x.rows - (sample ? 1 : 0));
  return count > 0 ? std::sqrt(sum / count) : 0;
}

/// A probe for each head of each block; activations[block] is (answers, heads * head_dim) at Point::head_out.
inline Result<std::vector<HeadProbe>> fit_head_probes(std::span<const Matrix> activations, std::span<const Label> labels,
                                                      std::span<const Split> split, Index head_dim, double c = 1) {
  using io::detail::text;
  std::vector<HeadProbe> out;
  for (std::size_t b = 0; b < activations.size(); ++b) {
    const ConstMatrix all = activations[b].view();
    if (head_dim < 1 || all.cols % head_dim != 0)
      return {ErrorCode::shape_mismatch,
              text("steer: block ", b, ": ", all.cols, " channels are no heads of ", head_dim, ": give the model's head size")};
    if (static_cast<Index>(split.size()) != all.rows || static_cast<Index>(labels.size()) != all.rows)
      return {ErrorCode::shape_mismatch, text("steer: block ", b, ": ", all.rows, " rows, ", labels.size(), " labels, ",
                                              split.size(), " splits: give one of each per row")};
    for (Index h = 0; h < all.cols / head_dim; ++h) {
      const ConstMatrix x = all.col_range(h * head_dim, (h + 1) * head_dim);
      const auto [train, train_labels] = detail::rows_of(x, labels, split, Split::train, Split::train);
      const auto [validation, validation_labels] = detail::rows_of(x, labels, split, Split::validation, Split::validation);
      if (validation.rows() < 2)
        return {ErrorCode::insufficient_data,
                text("steer: ", validation.rows(), " validation rows: heads cannot be ranked, give more statements")};
      auto probe = fit_probe(train.view(), train_labels, {.c = c});
      if (!probe) return in_context(probe.error(), text("block ", b, " head ", h));
      const double right = accuracy(*probe, validation.view(), validation_labels);
      out.push_back({static_cast<Index>(b), h, *std::move(probe), right});
    }
  }
  return out;
}

/// Shifts of the best heads by validation accuracy; of equal ones the lower block and head.
inline Result<Intervention> fit_intervention(std::span<const Matrix> activations, std::span<const Label> labels,
                                             std::span<const Split> split, std::span<const HeadProbe> probes, Index head_dim,
                                             const InterventionOptions& options = {}) {
  using io::detail::text;
  if (options.heads < 1 || options.heads > static_cast<Index>(probes.size()))
    return {ErrorCode::invalid_argument,
            text("steer: ", options.heads, " heads asked for, the model has ", probes.size(), ": ask for 1 to that many")};
  std::vector<double> accuracies;
  for (const HeadProbe& p : probes) accuracies.push_back(p.accuracy);
  const std::vector<std::size_t> order = ranking(accuracies);
  Intervention out{.head_dim = head_dim};
  for (std::size_t i = 0; i < static_cast<std::size_t>(options.heads); ++i) {
    const HeadProbe& p = probes[order[i]];
    const ConstMatrix x =
        activations[static_cast<std::size_t>(p.block)].view().col_range(p.head * head_dim, (p.head + 1) * head_dim);
    HeadShift shift{.block = p.block, .head = p.head, .accuracy = p.accuracy};
    if (options.kind == ShiftKind::mass_mean) {
      const auto [rows, row_labels] = detail::rows_of(x, labels, split, Split::train, Split::validation);
      ANYBIT_TRY(Direction mean, mean_difference(rows.view(), row_labels));
      shift.theta = std::move(mean.vector);
    } else if (options.kind == ShiftKind::probe_weight) {
      shift.theta = p.probe.weight;
    } else {
      shift.theta = random_unit(head_dim, options.seed + order[i]);
    }
    const double length = norm(shift.theta);
    if (!(length > 0))
      return {ErrorCode::numerical,
              text("steer: block ", p.block, " head ", p.head, ": the direction is zero: ask for fewer heads")};
    for (double& v : shift.theta) v /= length;
    const auto tuning = detail::rows_of(x, labels, split, Split::tuning, Split::tuning).first;
    shift.sigma = projection_deviation(tuning.rows() > 1 ? tuning.view() : x, shift.theta, options.sample_std);
    out.heads.push_back(std::move(shift));
  }
  return out;
}

/// alpha sigma theta of the heads of a block at their places, (width) = heads * head_dim; zero elsewhere.
inline std::vector<double> displacement(const Intervention& s, Index block, Index width, double alpha) {
  std::vector<double> out(static_cast<std::size_t>(width));
  for (const HeadShift& h : s.heads)
    for (std::size_t j = 0; h.block == block && j < h.theta.size(); ++j)
      out[static_cast<std::size_t>(h.head * s.head_dim) + j] += alpha * h.sigma * h.theta[j];
  return out;
}

/// Whether the model has these heads, and plain head outputs.
inline Status check(const model::Decoder& d, const Intervention& s) {
  using io::detail::text;
  if (d.online.attn_output)
    return {ErrorCode::unsupported,
            "steer: this model rotates its head outputs, which mixes the heads: intervene on the model "
            "without that rotation"};
  if (s.head_dim != d.config.head_dim)
    return {ErrorCode::shape_mismatch, text("steer: shifts of heads of ", s.head_dim, " values, the model's have ",
                                            d.config.head_dim, ": they were fitted on another model")};
  for (const HeadShift& h : s.heads) {
    if (h.block < 0 || h.block >= d.config.blocks || h.head < 0 || h.head >= d.config.heads)
      return {ErrorCode::invalid_argument,
              text("steer: a shift of block ", h.block, " head ", h.head, ", the model has ", d.config.blocks, " blocks of ",
                   d.config.heads, " heads: it was fitted on another model, fit again")};
    if (static_cast<Index>(h.theta.size()) != s.head_dim)
      return {ErrorCode::shape_mismatch, text("steer: the shift of block ", h.block, " head ", h.head, " has ", h.theta.size(),
                                              " values, a head has ", s.head_dim, ": the file is damaged, fit again")};
    for (const double& v : h.theta)
      if (!is_finite(v) || !is_finite(h.sigma))
        return {ErrorCode::not_finite,
                text("steer: the shift of block ", h.block, " head ", h.head, " is not finite: fit again")};
  }
  return Ok{};
}

/// One tap per block that has a shifted head. `from` is the position of the prompt's last token, so that the last token of every
/// step is shifted, as in the paper; 0 shifts all.
inline Result<std::vector<model::Tap>> intervention_taps(const model::Decoder& d, const Intervention& s, double alpha,
                                                         Index from) {
  ANYBIT_TRY_STATUS(check(d, s));
  const ControlOptions o{.op = Operator::linear, .positions = {.begin = from}, .point = model::Point::head_out};
  std::vector<model::Tap> taps;
  for (Index b = 0; b < d.config.blocks; ++b) {
    const std::vector<double> shift = displacement(s, b, d.config.query_width(), alpha);
    if (norm(shift) > 0) taps.push_back(control_tap(b, {shift.begin(), shift.end()}, o));
  }
  ANYBIT_TRY_STATUS(model::check(d, taps));
  return taps;
}

/// W x in double, with the linear's adapter, without its bias.
inline std::vector<double> times(const nn::Linear& w, std::span<const double> x) {
  const Extents e = w.extents();
  ANYBIT_CHECK(static_cast<Index>(x.size()) == e.cols, "steer::times: shapes differ");
  std::vector<double> out;
  std::vector<float> row(static_cast<std::size_t>(e.cols));
  for (Index r = 0; r < e.rows; ++r) {
    w.read_row(r, row);
    out.push_back(dot(row, x));
  }
  if (const nn::LowRank* const low = w.adapter())
    for (Index k = 0; k < low->a.rows(); ++k) {
      const double share = static_cast<double>(low->scale) * dot(low->a.view().row(k), x);
      for (Index r = 0; r < e.rows; ++r) out[static_cast<std::size_t>(r)] += share * static_cast<double>(low->b(r, k));
    }
  return out;
}

/// The intervention at all positions as biases of the output projections: b_O += W_O displacement. Where the architecture has no
/// such bias its blueprint gets one in this decoder, so that saving writes it; a loader of the architecture then refuses the file
/// instead of losing the bias.
inline Status bake(model::Decoder& d, const Intervention& s, double alpha) {
  ANYBIT_TRY_STATUS(check(d, s));
  auto blueprint = std::make_shared<model::Blueprint>(*d.blueprint);
  for (const model::SiteSpec& site : d.blueprint->sites) {
    if (site.point != model::Point::head_out) continue;
    const std::vector<double> shift = displacement(s, site.block, d.config.query_width(), alpha);
    if (!(norm(shift) > 0)) continue;
    for (const model::WeightId id : site.readers) {
      nn::Linear& o = d[id].linear;
      const std::vector<double> change = times(o, shift);
      std::vector<float> bias = o.bias();
      bias.resize(change.size());
      for (std::size_t j = 0; j < bias.size(); ++j) bias[j] = static_cast<float>(static_cast<double>(bias[j]) + change[j]);
      o.set_bias(std::move(bias));
      model::WeightSpec& spec = blueprint->weights[place(id)];
      if (spec.bias.empty()) spec.bias = spec.name.substr(0, spec.name.rfind('.')) + ".bias";
    }
  }
  d.blueprint = std::move(blueprint);
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
