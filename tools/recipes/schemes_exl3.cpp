#include <anybit/algorithm/exl3.hpp>

#include "catalog.hpp"

namespace tool {

namespace {

template <int K, anybit::TrellisCodebook Book>
anybit::model::ModelRecipe make_exl3(const RecipeText& r) {
  if (const auto* const o = std::get_if<anybit::ldlq::Options>(&r.algorithm)) {
    const anybit::LdlqExl3<K, Book> a{.damp = o->damp, .gain = o->gain, .exact = o->exact};
    return anybit::model::model_recipe(r.text, a, r.compute);
  }
  const anybit::ldlq::Options& o = std::get<NearestOptions>(r.algorithm).trellis;
  return anybit::model::model_recipe(r.text, anybit::NearestExl3<K, Book>{.gain = o.gain, .exact = o.exact}, r.compute);
}

template <int K, class Book>
CompiledScheme compiled_exl3(anybit::Exl3<K, Book> scheme) {
  return {std::string(std::string_view(scheme.name)), with_ldlq | scales_as_found, &make_exl3<K, Book>};
}

}  // namespace

void add_exl3(Catalog& to) {
  anybit::for_each_exl3([&]<class S>(S scheme) { to.add_compiled<S>(compiled_exl3(scheme)); });
}

}  // namespace tool
