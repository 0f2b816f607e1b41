#pragma once
// From sensitivities and output errors to a plan: the recipe of each tensor within a number of bytes. See docs/bits.md.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/evaluate/model.hpp>
#include <anybit/quantize/allocation.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/quantize/plan.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_ABI {

/// Facts about the tensors of a model. Recipes are the caller's and must outlive the plans that come of it. Errors are
/// ||(W - Q) X|| / ||W X||, one a linear in the order of Blueprint::linears; or all of them ||W - Q|| / ||W||: the two are not to
/// be mixed, so candidates and probe either all need a Hessian or none of them does.
struct BitCosts {
  std::vector<const model::ModelRecipe*> recipes;  ///< candidates for the linears
  std::vector<std::vector<double>> errors;         ///< [recipe][linear]
  std::vector<double> probe_errors, probe_kl;      ///< of one quantized model, its KL linear by linear: sensitivities()

  std::vector<const model::ModelRecipe*> embedding_recipes;  ///< candidates for the embedding; null: the usual 8 bits
  std::vector<double> embedding_kl;                          ///< of each, by itself
};

struct BitChoice {
  model::ModelPlan plan;
  Index bytes = 0;         ///< of the linears and of embedding and head, scales and zero points included
  Index weights = 0;       ///< of the same
  double expected_kl = 0;  ///< the sum that was minimized
  double bits_per_weight() const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::evaluate

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

namespace detail {
inline std::vector<double> errors_of(std::span<const Report* const> reports) {
  const bool measured = std::all_of(reports.begin(), reports.end(), [](const Report* r) { return r->output_error.has_value(); });
  std::vector<double> errors;
  for (const Report* r : reports) errors.push_back(measured ? *r->output_error : r->weight_error);
  return errors;
}
}  // namespace detail

/// The errors of a quantized model's linears in the order of Blueprint::linears: output errors, or all weight errors where a
/// recipe measures no output errors.
inline std::vector<double> linear_errors(const model::QuantizedModel& q) {
  std::vector<const model::QuantizedLayer*> layers;
  for (const model::QuantizedLayer& l : q.layers) layers.push_back(&l);
  std::sort(layers.begin(), layers.end(),
            [](const auto* a, const auto* b) { return a->site != b->site ? a->site < b->site : a->sibling < b->sibling; });
  std::vector<const Report*> reports;
  for (const model::QuantizedLayer* l : layers) reports.push_back(&l->report);
  return detail::errors_of(reports);
}

/// The errors that `recipe` would make of the linears of every `stride`-th block, in the order of Blueprint::linears.
inline Result<std::vector<double>> recipe_errors(const model::Decoder& source, const model::ModelStats& stats,
                                                 const model::ModelRecipe& recipe, Index stride = 1, ExecutorRef executor = {},
                                                 const OnProgress& progress = {}) {
  if (recipe.transforms)
    return Error{ErrorCode::unsupported, "recipe " + recipe.name +
                                             " rewrites siblings together, so that none has an error of its own: give one "
                                             "without transforms"};
  ANYBIT_CHECK(stride >= 1, "recipe_errors: the stride is the distance of two measured blocks, at least 1");
  model::Decoder copy = source;
  std::vector<model::SiblingGroup> groups = model::sibling_groups(copy), measured;
  for (model::SiblingGroup& g : groups)
    if (g.block % stride == 0) measured.push_back(std::move(g));
  std::vector<std::vector<Report>> reports(measured.size());
  std::vector<Status> status(measured.size(), Ok{});
  std::mutex told;
  Index done = 0;
  executor.parallel_for(static_cast<Index>(measured.size()), 1, [&](Index begin, Index end) {
    for (Index item = begin; item < end; ++item) {
      const auto i = static_cast<std::size_t>(item);
      const model::SiblingGroup& g = measured[i];
      std::vector<ConstMatrix> weights;
      for (const model::NamedLinear& l : g.linears) weights.push_back(l.linear->dense()->view());
      auto q = recipe.quantize(model::Upstream::nothing, weights, stats.at(g.id, recipe.needs), {});
      if (q)
        reports[i] = std::move(q->reports);
      else
        status[i] = in_context(q.error(), "recipe " + recipe.name + ": " + g.linears.front().name);
      const std::lock_guard lock(told);
      if (progress) progress(++done, static_cast<Index>(measured.size()));
    }
  });
  for (const Status& s : status) ANYBIT_TRY_STATUS(s);
  std::vector<const Report*> flat;
  for (const auto& some : reports)
    for (const Report& r : some) flat.push_back(&r);
  return detail::errors_of(flat);
}

/// The errors of all linears from those of every `stride`-th block: others are taken to stand to `like`, which are errors of all
/// linears by some recipe, as the same linear of the nearest measured block does.
inline std::vector<double> spread_errors(const model::Blueprint& blueprint, std::span<const double> measured,
                                         std::span<const double> like, Index stride) {
  const Index blocks = static_cast<Index>(blueprint.blocks.size()) - 1, last = (blocks - 1) / stride;
  ANYBIT_CHECK(stride >= 1 && like.size() == blueprint.linears.size(), "spread_errors: errors of all linears");
  const auto local_name = [&](std::size_t linear) {
    const std::string_view name = blueprint[blueprint.linears[linear]].name;
    return name.substr(name.find('.', name.find('.') + 1));
  };
  std::vector<std::vector<std::size_t>> of_block(static_cast<std::size_t>(blocks));  // places in `like`
  std::vector<std::size_t> place_measured(like.size(), 0);
  std::size_t next = 0;
  for (std::size_t i = 0; i < like.size(); ++i) {
    const Index block = blueprint[blueprint.linears[i]].block;
    of_block[static_cast<std::size_t>(block)].push_back(i);
    if (block % stride == 0) place_measured[i] = next++;
  }
  ANYBIT_CHECK(measured.size() == next, "spread_errors: errors of the linears of every stride-th block");
  std::vector<double> errors;
  for (std::size_t i = 0; i < like.size(); ++i) {
    const Index block = blueprint[blueprint.linears[i]].block;
    const Index nearest = std::min((block + stride / 2) / stride, last) * stride;
    const auto& there = of_block[static_cast<std::size_t>(nearest)];
    const auto same = std::find_if(there.begin(), there.end(), [&](std::size_t k) { return local_name(k) == local_name(i); });
    if (same == there.end()) {  // a linear that the measured block has not
      errors.push_back(like[i]);
      continue;
    }
    const double measured_there = measured[place_measured[*same]], near = like[*same];
    errors.push_back(block == nearest || !(near > 0) ? measured_there : measured_there * like[i] / near);
  }
  return errors;
}

/// The weights that a plan covers: linears, embedding and head; a tied one counts once.
inline Index quantized_weights(const model::Decoder& d) {
  Index n = 0;
  model::for_each_linear(d, [&](const std::string&, const nn::Linear& l) { n += l.extents().size(); });
  return n;
}

/// Bytes of embedding and head by `recipe` for the former; the latter is the same tensor, or 8 bits.
inline Index outside_bytes(const model::Decoder& d, const model::ModelRecipe* recipe) {
  const Extents e = d.token_embedding().extents();
  const auto eight =
      static_cast<Index>(std::llround(model::EmbeddingScheme::bits_per_weight(e) * static_cast<double>(e.size()) / 8));
  return (recipe ? model::bytes(*recipe, e) : eight) + (d.has_head() ? eight : 0);
}

/// The plan of least expected KL whose tensors take at most `budget` bytes: that of linear i by recipe r is taken as
/// probe_kl[i] (errors[r][i] / probe_errors[i])^2, and those of different tensors as independent.
inline Result<BitChoice> choose_bits(const model::Decoder& d, const BitCosts& costs, Index budget, std::string name) {
  const std::size_t linears = costs.probe_kl.size();
  if (costs.recipes.empty() || costs.embedding_recipes.empty())
    return Error{ErrorCode::invalid_argument, "choose_bits: no candidates; give at least one recipe for linears and embedding"};
  ANYBIT_CHECK(costs.errors.size() == costs.recipes.size() && costs.probe_errors.size() == linears &&
                   costs.embedding_kl.size() == costs.embedding_recipes.size(),
               "choose_bits: one row of errors a recipe, one KL a recipe of the embedding");
  std::vector<Extents> shapes;
  for (const model::WeightId id : d.blueprint->linears) shapes.push_back((*d.blueprint)[id].shape);
  ANYBIT_CHECK(shapes.size() == linears, "choose_bits: one KL a linear of the model");

  std::vector<std::vector<SizedCost>> items(linears + 1);
  BitChoice out;
  out.weights = quantized_weights(d);
  for (std::size_t i = 0; i < linears; ++i) {
    const double base = costs.probe_errors[i];
    for (std::size_t r = 0; r < costs.recipes.size(); ++r) {
      const double ratio = base > 0 ? costs.errors[r][i] / base : costs.errors[r][i] > 0 ? 1.0 : 0.0;
      items[i].push_back({model::bytes(*costs.recipes[r], shapes[i]), costs.probe_kl[i] * ratio * ratio});
    }
  }
  for (std::size_t r = 0; r < costs.embedding_recipes.size(); ++r)
    items[linears].push_back({outside_bytes(d, costs.embedding_recipes[r]), costs.embedding_kl[r]});

  Index least = 0, most = 0;
  for (const auto& options : items) {
    const auto [low, high] = std::minmax_element(options.begin(), options.end(),
                                                 [](const SizedCost& a, const SizedCost& b) { return a.bytes < b.bytes; });
    least += low->bytes, most += high->bytes;
  }
  const auto bits = [&](Index bytes) { return 8.0 * static_cast<double>(bytes) / static_cast<double>(out.weights); };
  if (budget < least)
    return Error{ErrorCode::invalid_argument,
                 io::detail::text(bits(budget), " bits a weight (", budget, " bytes) cannot be had: the candidates go from ",
                                  bits(least), " (", least, ") to ", bits(most), " (", most, ")")};
  ANYBIT_TRY(const Allocation allocation, allocate(items, budget));
  out.bytes = allocation.bytes, out.expected_kl = allocation.cost;
  out.plan.name = std::move(name);
  for (std::size_t i = 0; i < linears; ++i) out.plan.linears.push_back(costs.recipes[allocation.chosen[i]]);
  out.plan.embedding = costs.embedding_recipes[allocation.chosen[linears]];
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate

#include <anybit/core/macros_end.hpp>
