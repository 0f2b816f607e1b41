#pragma once
// Catalog::add: compiles the methods of one scheme. Only schemes_*.cpp include this.

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/learned.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/prune/pruned_nearest.hpp>
#include <anybit/prune/sparse_gptq.hpp>

#include "catalog.hpp"

namespace tool {

namespace compile {

template <anybit::AnyScheme S>
anybit::Nearest<S> algorithm(const NearestOptions& o) {
  anybit::Nearest<S> a;
  a.range = o.fit.range, a.search = o.fit.search, a.shrink = o.fit.shrink, a.half_quadratic = o.fit.half_quadratic;
  a.weighted = o.weighted;
  return a;
}

template <anybit::AnyScheme S>
anybit::Gptq<S> algorithm(const anybit::gptq::Options& o) {
  anybit::Gptq<S> a;
  a.damp = o.damp, a.block = o.block, a.dead_diagonal = o.dead_diagonal;
  a.act_order = o.act_order, a.static_groups = o.static_groups, a.group_aware = o.group_aware, a.fresh_grids = o.fresh_grids;
  a.range = o.fit.range, a.search = o.fit.search, a.shrink = o.fit.shrink, a.weighted = o.weighted;
  a.refine = o.refine, a.drift = o.drift, a.whole_drift = o.whole_drift;
  return a;
}

template <anybit::AnyScheme S>
anybit::Learned<S> algorithm(const anybit::learned::Options& o) {
  anybit::Learned<S> a;
  a.iterations = o.iterations, a.rate = o.rate, a.ends_rate = o.ends_rate, a.learn_ends = o.learn_ends;
  a.from_gptq = o.from_gptq, a.drift = o.drift;
  a.range = o.fit.range, a.search = o.fit.search, a.shrink = o.fit.shrink, a.half_quadratic = o.fit.half_quadratic;
  return a;
}

template <anybit::AnyScheme S>
anybit::SparseGptq<S> algorithm(const SparseGptqOptions& o) {
  anybit::SparseGptq<S> a;
  a.pruner = o.pruner, a.pruned_grids = o.pruned_grids;
  a.range = o.fit.range, a.search = o.fit.search, a.shrink = o.fit.shrink;
  return a;
}

template <anybit::AnyScheme S, class Pruner>
anybit::PrunedNearest<Pruner, S> algorithm(const Pruner& pruner, const anybit::GridFit& fit) {
  anybit::PrunedNearest<Pruner, S> a;
  a.pruner = pruner, a.range = fit.range, a.search = fit.search, a.shrink = fit.shrink;
  return a;
}

template <unsigned methods, class Algorithm>
anybit::model::ModelRecipe transformed(const RecipeText& r, const Algorithm& algorithm) {
  if constexpr (methods & with_awq)
    if (const auto* const t = std::get_if<anybit::Awq>(&r.transform))
      return anybit::model::model_recipe(r.text, *t | algorithm, r.compute);
  if constexpr (methods & with_smooth_quant) {
    if (const auto* const t = std::get_if<anybit::SmoothQuant>(&r.transform))
      return anybit::model::model_recipe(r.text, *t | algorithm, r.compute);
    if (const auto* const t = std::get_if<anybit::SmoothQuantSearch>(&r.transform))
      return anybit::model::model_recipe(r.text, *t | algorithm, r.compute);
  }
  return anybit::model::model_recipe(r.text, algorithm, r.compute);
}

template <anybit::AnyScheme S, unsigned methods>
anybit::model::ModelRecipe make(const RecipeText& r) {
  if constexpr (methods & with_gptq) {
    if (const auto* const o = std::get_if<anybit::gptq::Options>(&r.algorithm)) return transformed<methods>(r, algorithm<S>(*o));
    if (const auto* const o = std::get_if<anybit::learned::Options>(&r.algorithm))
      return transformed<methods>(r, algorithm<S>(*o));
  }
  if constexpr (methods & with_pruning) {
    if (const auto* const o = std::get_if<SparseGptqOptions>(&r.algorithm))
      return anybit::model::model_recipe(r.text, algorithm<S>(*o), r.compute);
    if (const auto* const o = std::get_if<PrunedNearestOptions>(&r.algorithm))
      return std::visit(
          [&](const auto& pruner) { return anybit::model::model_recipe(r.text, algorithm<S>(pruner, o->fit), r.compute); },
          o->pruner);
  }
  return transformed<methods>(r, algorithm<S>(std::get<NearestOptions>(r.algorithm)));
}

}  // namespace compile

template <anybit::AnyScheme S, unsigned methods>
void Catalog::add() {
  registry_.add<S>();
  schemes_.push_back({std::string(S::name.view()), methods, &compile::make<S, methods>});
}

}  // namespace tool
