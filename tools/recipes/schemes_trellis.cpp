#include <anybit/algorithm/ldlq.hpp>

#include "catalog.hpp"

namespace tool {

namespace {

template <anybit::TrellisScheme S>
anybit::model::ModelRecipe make_trellis(const RecipeText& r) {
  if (const auto* const o = std::get_if<anybit::ldlq::Options>(&r.algorithm)) {
    anybit::Ldlq<S> a;
    a.damp = o->damp, a.gain = o->gain, a.exact = o->exact, a.weighted = o->weighted, a.refine_scales = o->refine_scales;
    return anybit::model::model_recipe(r.text, a, r.compute);
  }
  const anybit::ldlq::Options& o = std::get<NearestOptions>(r.algorithm).trellis;
  return anybit::model::model_recipe(r.text, anybit::NearestTrellis<S>{.gain = o.gain, .exact = o.exact}, r.compute);
}

}  // namespace

template <anybit::TrellisScheme S>
void Catalog::add_trellis() {
  registry_.add<S>();
  schemes_.push_back({std::string(S::name.view()), with_ldlq, &make_trellis<S>});
}

void add_trellises(Catalog& to) {
  using namespace anybit;
  to.add_trellis<Trellis<12, 1, Quantiles>>();
  to.add_trellis<Trellis<12, 3, BytePairs>>();  // 1.5 bits
  to.add_trellis<Trellis<12, 2, Quantiles>>();
  to.add_trellis<Trellis<12, 5, BytePairs>>();  // 2.5 bits
  to.add_trellis<Trellis<12, 3, Quantiles>>();
  to.add_trellis<Trellis<12, 4, Quantiles>>();
  to.add_trellis<Trellis<16, 2, Quantiles>>();
  to.add_trellis<Trellis<16, 3, Quantiles>>();
  to.add_trellis<Trellis<16, 4, Quantiles>>();
  to.add_trellis<Trellis<12, 2, ByteSum>>();
  to.add_trellis<Trellis<12, 3, ByteSum>>();
}

}  // namespace tool
