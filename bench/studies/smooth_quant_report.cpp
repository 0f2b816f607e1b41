// What SmoothQuant does to a real model: the outliers of what enters its linears before and after, the errors of 8-bit products
// under several alphas on text that calibration has not seen, and a picture of one layer's channels.
//   smooth_quant_report MODEL.gguf TEXT OUT.svg [BLOCK]
// ctest: skip
// uses: anybit_study

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/evaluate/outliers.hpp>
#include <anybit/evaluate/svg_channels.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "drawing/picture.hpp"
#include "shared/text.hpp"

using namespace anybit;

namespace {

using Weights = Nearest<presets::Int8PerRow>;
constexpr Index window = 512, calibration_tokens = 4096, held_out_tokens = 1024;
constexpr Needs needs = SmoothQuantSearch::needs;

Result<model::ModelStats> inputs_of(const model::Decoder& d, std::span<const model::TokenId> ids, ExecutorRef executor) {
  model::ModelStats stats(d, needs, 128);
  for (std::size_t t = 0; t < ids.size(); t += static_cast<std::size_t>(window)) {
    ANYBIT_TRY(const Matrix hidden, stats.accumulate(d, ids.subspan(t, static_cast<std::size_t>(window)), executor));
  }
  return stats;
}

/// ||y - y_q|| / ||y|| over the linears that norms feed, geometric mean over groups of siblings.
struct Errors {
  double per_token = 0, fixed = 0;
};

/// The input scales of every group that a norm feeds; empty where a recipe leaves it alone.
template <class Recipe>
Result<std::vector<std::vector<float>>> scales_of(const Recipe& recipe, model::Decoder& d, const model::ModelStats& stats,
                                                  ExecutorRef executor) {
  std::vector<std::vector<float>> all;
  for (const model::SiblingGroup& group : model::sibling_groups(d)) {
    all.emplace_back();
    if (!group.norm_gain) continue;
    std::vector<ConstMatrix> weights;
    for (const model::NamedLinear& l : group.linears) weights.push_back(l.linear->dense()->view());
    QuantizeOptions options;
    options.executor = executor;
    ANYBIT_TRY(auto result, quantize_siblings(recipe, weights, stats.at(group.id, needs), options));
    all.back() = std::move(result.input_scale);
  }
  return all;
}

Errors errors_of(const std::vector<std::vector<float>>& scales, model::Decoder& d, const model::ModelStats& calibration,
                 const model::ModelStats& held_out, ExecutorRef executor) {
  Errors logs;
  double groups = 0;
  const std::vector<model::SiblingGroup> all = model::sibling_groups(d);
  for (std::size_t g = 0; g < all.size(); ++g) {
    if (!all[g].norm_gain) continue;
    std::vector<ConstMatrix> weights;
    for (const model::NamedLinear& l : all[g].linears) weights.push_back(l.linear->dense()->view());
    const ConstMatrix x = held_out.at(all[g].id, needs).samples();
    const auto maxima = calibration.at(all[g].id, needs).abs_max();
    const std::vector<float> s = scales[g].empty() ? std::vector<float>(maxima.size(), 1.0f) : scales[g];
    float largest = 0;
    for (std::size_t j = 0; j < s.size(); ++j) largest = std::max(largest, maxima[j] / s[j]);
    double reference = 0;
    for (const ConstMatrix& w : weights) {
      Matrix y(x.rows, w.rows);
      nn::float_product(w, x, y.view(), executor);
      for (Index i = 0; i < y.extents().size(); ++i)
        reference += static_cast<double>(y.data()[i]) * static_cast<double>(y.data()[i]);
    }
    const auto error = [&](bool fixed) {
      const double squared = smooth_quant::product_error<presets::Int8PerRow>(x, weights, s, GridFit{}, fixed, largest,
                                                                              std::numeric_limits<double>::infinity(), executor);
      return 0.5 * std::log(squared / reference);
    };
    logs.per_token += error(false), logs.fixed += error(true), ++groups;
  }
  return {std::exp(logs.per_token / groups), std::exp(logs.fixed / groups)};
}

/// The same model in floats: columns times s, norms divided by it.
model::Decoder smoothed(const model::Decoder& d, const std::vector<std::vector<float>>& scales) {
  model::Decoder out = d;
  const std::vector<model::SiblingGroup> groups = model::sibling_groups(out);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (scales[g].empty()) continue;
    for (const model::NamedLinear& l : groups[g].linears) {
      Matrix w = *l.linear->dense();
      for (Index r = 0; r < w.rows(); ++r)
        for (Index j = 0; j < w.cols(); ++j) w(r, j) *= scales[g][static_cast<std::size_t>(j)];
      *l.linear = nn::Linear(std::move(w));
    }
    fold(scales[g], *groups[g].norm_gain);
  }
  return out;
}

std::string draw(model::Decoder& d, const std::string& name, Index block, const model::ModelStats& stats,
                 const std::vector<std::vector<float>>& scales) {
  const model::SiblingGroup group = model::sibling_group(d, d.site(block, "ffn_gate"));
  std::vector<ConstMatrix> weights;
  for (const model::NamedLinear& l : group.linears) weights.push_back(l.linear->dense()->view());
  const auto maxima = stats.at(group.id, needs).abs_max();
  const std::vector<float> columns = smooth_quant::column_maxima(weights);
  std::vector<double> x(maxima.begin(), maxima.end()), w(columns.begin(), columns.end()), x_after = x, w_after = w;
  for (std::size_t j = 0; j < scales[model::place(group.id)].size(); ++j)
    x_after[j] /= static_cast<double>(scales[model::place(group.id)][j]),
        w_after[j] *= static_cast<double>(scales[model::place(group.id)][j]);
  std::string body = evaluate::detail::svg_text(
      60, 30, "start", 16,
      name + ", gate and up of block " + std::to_string(block) + ": largest magnitude of each input channel");
  double top = 90;
  const auto row = [&](const std::vector<double>& before, const std::vector<double>& after, const std::string& what,
                       const char* colour) {
    for (const auto* values : {&before, &after}) {
      const double largest = *std::max_element(values->begin(), values->end()), median = evaluate::detail::median(*values);
      body += evaluate::svg_channels(*values, {values == &before ? 60.0 : 610.0, top, 480, 180}, largest,
                                     what + (values == &before ? ", as trained" : ", smoothed"),
                                     "largest / median channel: " + evaluate::detail::fixed(largest / median, 1), colour);
    }
    top += 260;
  };
  row(x, x_after, "inputs X", "#1f77b4");
  row(w, w_after, "weights W", "#c2410c");
  return body;
}

Status work(const std::string& model_file, const std::string& text_file, const std::string& picture, Index block) {
  ThreadPool pool(2);
  ANYBIT_TRY(model::Model m, model::load_model(model_file));
  ANYBIT_TRY(const std::string text, tool::read_text(text_file));
  const tool::TwoTexts halves = tool::cut_in_two(text);
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(halves.evaluate));
  ANYBIT_TRY(std::vector<model::TokenId> others, m.tokenizer.encode(halves.calibrate));
  if (static_cast<Index>(ids.size()) < calibration_tokens || static_cast<Index>(others.size()) < held_out_tokens)
    return Error{ErrorCode::insufficient_data, "the text must have " + std::to_string(2 * calibration_tokens) + " tokens"};
  ids.resize(static_cast<std::size_t>(calibration_tokens)), others.resize(static_cast<std::size_t>(held_out_tokens));
  ANYBIT_TRY(const auto calibration, inputs_of(m.decoder, ids, pool));
  ANYBIT_TRY(const auto held_out, inputs_of(m.decoder, others, pool));

  std::printf("| 8-bit weights a row, 8-bit activations | error, a scale a token | error, one scale |\n|---|---|---|\n");
  std::vector<std::vector<float>> searched;
  const auto show = [&](const std::string& name, const auto& recipe) -> Status {
    ANYBIT_TRY(auto scales, scales_of(recipe, m.decoder, calibration, pool));
    const Errors e = errors_of(scales, m.decoder, calibration, held_out, pool);
    std::printf("| %s | %.4f | %.4f |\n", name.c_str(), e.per_token, e.fixed);
    std::fflush(stdout);
    searched = std::move(scales);
    return Ok{};
  };
  ANYBIT_TRY_STATUS(show("not smoothed", Weights{}));
  for (const float alpha : {0.25f, 0.5f, 0.75f, 0.85f})
    ANYBIT_TRY_STATUS(
        show("alpha " + evaluate::detail::fixed(static_cast<double>(alpha), 2), SmoothQuant{.alpha = alpha} | Weights{}));
  ANYBIT_TRY_STATUS(show("searched", SmoothQuantSearch{.tokens = 64} | Weights{}));

  const auto some = std::span(others).first(static_cast<std::size_t>(window));
  ANYBIT_TRY(const auto before, evaluate::outliers(m.decoder, some, pool));
  ANYBIT_TRY(const auto after, evaluate::outliers(smoothed(m.decoder, searched), some, pool));
  std::printf("\n%s", evaluate::outlier_table(*m.decoder.blueprint, before, after).c_str());
  ANYBIT_TRY_STATUS(tool::check_block(m.decoder, block));
  return tool::write_svg(picture, 1110, 580, draw(m.decoder, m.name, block, calibration, searched));
}

}  // namespace

int main(int argc, char** argv) { return tool::draw_block(argc, argv, "smooth_quant_report", 0, work); }
