#include <mutex>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/recipe/activation_scale.hpp>
#include <anybit/recipe/recipe.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "lab.hpp"
#include "outliers.hpp"
#include "packed_linears.hpp"

namespace reproduce {

using namespace anybit;

namespace {

/// 8-bit weights, one scale an output channel; activations as `compute` says.
Method w8(Compute compute, std::optional<float> alpha) {
  return [=](const Group& g) -> Result<Replaced> {
    const Nearest<presets::Int8PerRow> nearest;
    const bool smooth = alpha && g.upstream == Upstream::norm;
    ANYBIT_TRY(auto result, smooth ? quantize_siblings(SmoothQuant{.alpha = *alpha} | nearest, g.weights, g.sums)
                                   : quantize_siblings(nearest, g.weights, g.sums));
    Replaced r;
    r.packed = std::make_shared<PackedLinears>();
    ActivationMode activations;
    if (compute == Compute::int8_static) {
      ANYBIT_TRY(const float scale, static_activation_scale(g.sums, result.input_scale));
      activations = ActivationMode::int8_static(scale);
    } else {
      activations = compute;
    }
    for (const auto& q : result.matrices) {
      r.bits += q.report.bits_per_weight * static_cast<double>(q.matrix.extents.size());
      r.packed->linears.emplace_back(AnyPacked(pack(q.matrix)), activations);
    }
    r.input_scale = std::move(result.input_scale);
    return r;
  };
}

}  // namespace

Experiment smoothquant_experiment() {
  Experiment e{"smoothquant", "SmoothQuant: 8-bit weights (a scale a channel) and activations (a scale a token)", {}};
  const auto add = [&](const std::string& name, const std::string& description, Method m) {
    e.settings.push_back(setting(name, description, std::move(m)));
  };
  add("naive", "W8A8, nearest", w8(Compute::int8_per_token, {}));
  const auto text = [](int tenths) { return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10); };
  for (int tenths = 0; tenths <= 10; ++tenths)
    add("alpha-" + text(tenths), "W8A8, SmoothQuant with alpha " + text(tenths),
        w8(Compute::int8_per_token, static_cast<float>(tenths) / 10));

  // Made when the first setting asks for it: it takes a second calibration.
  struct Made {
    std::once_flag once;
    Result<Source> source = Error{};
  };
  const auto with_outliers_of = [&e](float factor) {
    return [&e, factor, made = std::make_shared<Made>()](const std::string& name, const std::string& description, Method m) {
      e.settings.push_back({name, description, [made, factor, m = std::move(m)](const Lab& lab) -> Result<Changed> {
                              std::call_once(made->once, [&] {
                                made->source = lab.calibrate(with_outliers(lab.source().decoder, {.factor = factor}));
                              });
                              if (!made->source) return made->source.error();
                              return lab.change(*made->source, m);
                            }});
    };
  };
  const auto add_with_outliers = with_outliers_of(Outliers{}.factor), add_with_larger = with_outliers_of(256);
  const Method as_is = [](const Group& g) -> Result<Replaced> {
    Replaced r;
    for (const ConstMatrix& w : g.weights) r.weights.emplace_back(w);
    return r;
  };
  add_with_outliers("outliers-float", "with outliers, floats", as_is);
  add_with_outliers("outliers-w8", "with outliers, W8 and float activations", w8(Compute::f32, {}));
  add_with_outliers("outliers-naive", "with outliers, W8A8, nearest", w8(Compute::int8_per_token, {}));
  add_with_outliers("outliers-alpha-0.5", "with outliers, W8A8, SmoothQuant with alpha 0.5", w8(Compute::int8_per_token, 0.5f));
  add_with_outliers("outliers-alpha-0.5-static",
                    "with outliers, W8A8, SmoothQuant with alpha 0.5, one calibrated scale for the activations of a layer",
                    w8(Compute::int8_static, 0.5f));
  add_with_outliers("outliers-alpha-0.8", "with outliers, W8A8, SmoothQuant with alpha 0.8", w8(Compute::int8_per_token, 0.8f));
  const std::string larger = "with outliers four times as large, ";
  add_with_larger("outliers-256-w8", larger + "W8 and float activations", w8(Compute::f32, {}));
  add_with_larger("outliers-256-naive", larger + "W8A8, nearest", w8(Compute::int8_per_token, {}));
  add_with_larger("outliers-256-alpha-0.5", larger + "W8A8, SmoothQuant with alpha 0.5", w8(Compute::int8_per_token, 0.5f));
  return e;
}

}  // namespace reproduce
