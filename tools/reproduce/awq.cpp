#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/transform/awq.hpp>

#include "integer_methods.hpp"
#include "integer_schemes.hpp"

namespace reproduce {

using namespace anybit;

namespace {

enum class Chosen { by_activation, by_weight, at_random };

/// The input channels of a group that count as salient.
std::vector<std::size_t> salient_channels(const Group& g, Chosen chosen, double share) {
  const auto n = static_cast<std::size_t>(g.weights[0].cols);
  std::vector<float> score(n);
  if (chosen == Chosen::by_activation) score = g.sums.mean_abs();
  if (chosen == Chosen::by_weight)
    for (const ConstMatrix& w : g.weights)
      for (Index r = 0; r < w.rows; ++r)
        for (std::size_t j = 0; j < n; ++j) score[j] += w.row(r)[j] * w.row(r)[j];
  std::mt19937 random(1);
  if (chosen == Chosen::at_random)
    for (float& s : score) s = static_cast<float>(random());
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return score[a] > score[b]; });
  order.resize(std::max<std::size_t>(1, static_cast<std::size_t>(std::lround(share * static_cast<double>(n)))));
  return order;
}

/// Nearest at 3 bits in groups of 128, but for the salient channels: those stay as they are, in 16 bits.
Method keep_salient(Chosen chosen, double share) {
  return [=, nearest = round_to_nearest(3, 128, Range::min_max)](const Group& g) -> Result<Replaced> {
    ANYBIT_TRY(Replaced r, nearest(g));
    const auto channels = salient_channels(g, chosen, share);
    for (std::size_t i = 0; i < g.weights.size(); ++i) {
      Matrix& w = r.weights[i];
      for (Index row_index = 0; row_index < w.rows(); ++row_index)
        for (const std::size_t j : channels) w(row_index, static_cast<Index>(j)) = g.weights[i].row(row_index)[j];
      r.bits += (16 - 3) * static_cast<double>(channels.size()) * static_cast<double>(w.rows());
    }
    return r;
  };
}

/// Nearest at 3 bits with the 1 % salient channels multiplied by s before and divided by it after.
Method scale_salient(float s) {
  return [s, nearest = round_to_nearest(3, 128, Range::min_max)](const Group& g) -> Result<Replaced> {
    const auto channels = salient_channels(g, Chosen::by_activation, 0.01);
    const auto times = [&](Matrix& w, float factor) {
      for (Index r = 0; r < w.rows(); ++r)
        for (const std::size_t j : channels) w(r, static_cast<Index>(j)) *= factor;
    };
    std::vector<Matrix> scaled;
    for (const ConstMatrix& w : g.weights) times(scaled.emplace_back(w), s);
    std::vector<ConstMatrix> views;
    for (const Matrix& w : scaled) views.push_back(w.view());
    ANYBIT_TRY(Replaced r, nearest(Group{g.query_key_value, g.upstream, views, g.sums, g.hessian}));
    for (Matrix& w : r.weights) times(w, 1 / s);
    return r;
  };
}

/// The scale that AWQ would fold into what makes the input is divided out of the weights again, which computes the same.
Method awq(int bits, bool scale, bool clip) {
  return for_scheme(bits, 128, [=]<class S>() -> Method {
    return [=](const Group& g) -> Result<Replaced> {
      // Where nothing upstream can take a scale the published code only clips.
      const Awq transform{.ratios = scale && g.upstream != Upstream::nothing ? 20 : 1, .clip = clip};
      constexpr std::array<bool, 3> not_query_and_key{false, false, true};
      QuantizeOptions options;
      if (g.query_key_value) options.clip = not_query_and_key;
      ANYBIT_TRY(const auto result,
                 quantize_siblings(transform | Nearest<S>{.range = Range::min_max}, g.weights, g.hessian, options));
      Replaced r;
      for (const auto& q : result.matrices) {
        Matrix w = dequantize(q.matrix);
        for (Index i = 0; i < w.rows() && !result.input_scale.empty(); ++i)
          for (Index j = 0; j < w.cols(); ++j) w(i, j) /= result.input_scale[static_cast<std::size_t>(j)];
        r.bits += q.report.bits_per_weight * static_cast<double>(w.extents().size());
        r.weights.push_back(std::move(w));
      }
      return r;
    };
  });
}

}  // namespace

Experiment awq_experiment() {
  Experiment e{"awq", "AWQ: 1 % salient channels, their scale, and the search, in groups of 128", {}};
  const auto add = [&](const char* name, const char* description, Method m) {
    e.settings.push_back(setting(name, description, std::move(m)));
  };
  add("rtn-3", "3 bits, nearest", round_to_nearest(3, 128, Range::min_max));
  add("keep-0.1-activation", "0.1 % of channels in 16 bits, by mean |x|", keep_salient(Chosen::by_activation, 0.001));
  add("keep-1-activation", "1 % of channels in 16 bits, by mean |x|", keep_salient(Chosen::by_activation, 0.01));
  add("keep-3-activation", "3 % of channels in 16 bits, by mean |x|", keep_salient(Chosen::by_activation, 0.03));
  add("keep-1-weight", "1 % of channels in 16 bits, by the norm of the weights", keep_salient(Chosen::by_weight, 0.01));
  add("keep-1-random", "1 % of channels in 16 bits, at random", keep_salient(Chosen::at_random, 0.01));
  add("scale-1.5", "1 % salient channels times 1.5", scale_salient(1.5f));
  add("scale-2", "1 % salient channels times 2", scale_salient(2));
  add("scale-4", "1 % salient channels times 4", scale_salient(4));
  add("awq-3-scale", "3 bits, AWQ's scale search alone", awq(3, true, false));
  add("awq-3-clip", "3 bits, AWQ's clipping alone", awq(3, false, true));
  add("awq-3", "3 bits, AWQ", awq(3, true, true));
  add("gptq-3", "3 bits, GPTQ", gptq(3, 128));
  add("gptq-r-3", "3 bits, GPTQ with act-order", gptq(3, 128, true));
  add("rtn-4", "4 bits, nearest", round_to_nearest(4, 128, Range::min_max));
  add("awq-4", "4 bits, AWQ", awq(4, true, true));
  add("gptq-4", "4 bits, GPTQ", gptq(4, 128));
  add("gptq-r-4", "4 bits, GPTQ with act-order", gptq(4, 128, true));
  return e;
}

}  // namespace reproduce
