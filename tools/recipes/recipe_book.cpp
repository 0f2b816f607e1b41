#include "recipe_book.hpp"

#include <algorithm>
#include <cctype>
#include <utility>

#include <anybit/core/edit_distance.hpp>

#include "catalog.hpp"

namespace tool {

using namespace anybit;

namespace {

struct Preset {
  std::string_view name, text;
};

// At 2 bits the range is searched, by nearest and GPTQ alike: four levels from the least weight of a group to the largest serve
// nearly none of its weights. Squared error, every twentieth of the range.
constexpr Preset standard[] = {
    {"published-superfloat8", "nearest superfloat_published8/tensor/noscale"},
    {"nearest-sf8-g128", "nearest superfloat8/g128/f16"},
    {"nearest-sf6-g128", "nearest superfloat6/g128/f16"},
    {"nearest-sf5-g128", "nearest superfloat5/g128/f16"},
    {"nearest-sf4-g128", "nearest superfloat4/g128/f16"},
    {"nearest-sf3-g128", "nearest superfloat3/g128/f16"},
    {"nearest-int8-g128", "nearest int8/g128/f16"},
    {"nearest-int4-g128", "nearest uint4/g128/f16"},
    {"nearest-int3-g128", "nearest uint3/g128/f16"},
    {"nearest-int2-g128", "nearest(search(steps=20, norm=2)) uint2/g128/f16"},
    {"nearest-nf4-g64-dq", "nearest nf4/g64/dq256"},
    {"nearest-mxfp4", "nearest e2m1/g32/e8m0"},
    {"nearest-ternary-g128", "nearest ternary/g128/f16/base3"},
    {"gptq-int4-g128", "gptq uint4/g128/f16"},
    {"gptq-best-int4-g128", "gptq(best) uint4/g128/f16"},
    {"gptq-sf4-g128", "gptq superfloat4/g128/f16"},
    {"gptq-best-sf4-g128", "gptq(best) superfloat4/g128/f16"},
    {"gptq-int3-g128", "gptq uint3/g128/f16"},
    {"gptq-best-int3-g128", "gptq(best) uint3/g128/f16"},
    {"gptq-int2-g128", "gptq(search(steps=20, norm=2)) uint2/g128/f16"},
    {"gptq-best-int2-g128", "gptq(best) uint2/g128/f16"},
    {"gptq-best-int4-g64-e5m3", "gptq(best) uint4/g64/e5m3"},
    {"gptq-best-int3-g64-e5m3", "gptq(best) uint3/g64/e5m3"},
    {"ldlq-trellis3", "ldlq trellis12k3/quantiles/row/f16"},
    {"ldlq-trellis2", "ldlq trellis12k2/quantiles/row/f16"},
    {"awq-int4-g128", "awq | nearest uint4/g128/f16"},
    {"awq-gptq-sf4-g128", "awq(duo or not) | gptq superfloat4/g128/f16"},
    {"naive-w8a8", "nearest int8/row/f32 int8_per_token"},
    {"smoothquant-w8a8", "smooth_quant | nearest int8/row/f32 int8_per_token"},
    {"smoothquant-search-w8a8", "smooth_quant(searched) | nearest int8/row/f32 int8_per_token"},
};

constexpr Preset variants[] = {
    {"lossless-bf16", "exact lossless_bf16"},
    {"awq-block-int4-g128", "awq(block output) | nearest uint4/g128/f16"},
    {"awq-int3-g128", "awq | nearest uint3/g128/f16"},
    {"awq-block-int3-g128", "awq(block output) | nearest uint3/g128/f16"},
    // alpha: what its authors use for Llama 2 and 3
    {"smoothquant-85-w8a8", "smooth_quant(alpha=0.85) | nearest int8/row/f32 int8_per_token"},
    {"naive-w8a8-static", "nearest int8/row/f32 int8_static"},
    {"smoothquant-85-w8a8-static", "smooth_quant(alpha=0.85) | nearest int8/row/f32 int8_static"},
    {"smoothquant-search-w8a8-static", "smooth_quant(searched, static) | nearest int8/row/f32 int8_static"},
};

constexpr Preset widths[] = {
    {"gptq-best-int2-g32-e5m3", "gptq(best) uint2/g32/e5m3"}, {"gptq-best-int3-g64-e5m3", "gptq(best) uint3/g64/e5m3"},
    {"gptq-best-int3-g32-e5m3", "gptq(best) uint3/g32/e5m3"}, {"gptq-best-int4-g64-e5m3", "gptq(best) uint4/g64/e5m3"},
    {"gptq-best-int4-g32-e5m3", "gptq(best) uint4/g32/e5m3"}, {"gptq-best-int5-g64-e5m3", "gptq(best) uint5/g64/e5m3"},
    {"gptq-best-int5-g128", "gptq(best) uint5/g128/f16"},     {"gptq-best-int6-g128", "gptq(best) uint6/g128/f16"},
    {"gptq-best-int8-g128", "gptq(best) uint8/g128/f16"},
};

Result<model::ModelRecipe> recipe_of(std::string_view text) {
  ANYBIT_TRY(const RecipeText parsed, parse_recipe(text));
  return catalog().make(parsed);
}

template <std::size_t count>
void add_presets(RecipeBook& book, const Preset (&presets)[count]) {
  for (const Preset& p : presets) {
    Result<model::ModelRecipe> r = recipe_of(p.text);
    ANYBIT_CHECK(r.ok(), "a preset's text is not a recipe of this program");
    r->name = std::string(p.name);
    book.add(*std::move(r));
  }
}

}  // namespace

void RecipeBook::add(model::ModelRecipe recipe) {
  for (model::ModelRecipe& known : recipes_)
    if (known.name == recipe.name) {
      known = std::move(recipe);
      return;
    }
  recipes_.push_back(std::move(recipe));
}

bool RecipeBook::has(std::string_view name) const {
  return std::any_of(recipes_.begin(), recipes_.end(), [&](const model::ModelRecipe& r) { return r.name == name; });
}

void RecipeBook::round_activations() {
  for (model::ModelRecipe& r : recipes_)
    if (!rounds_to_int8(r.compute)) r.compute = Compute::int8_per_token;
}

void RecipeBook::rotate() {
  for (model::ModelRecipe& r : recipes_)
    if (!r.rotation) r = rotated(r.name, r);
}

std::string file_name(std::string_view recipe) {
  std::string out;
  for (const char c : recipe) {
    const bool kept = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '%' || c == '_';
    if (kept)
      out += c;
    else if (!out.empty() && out.back() != '-')
      out += '-';
  }
  while (out.ends_with('-')) out.pop_back();
  return out;
}

Result<const model::ModelRecipe*> RecipeBook::find(std::string_view name) {
  std::vector<std::pair<std::size_t, std::string_view>> near;
  for (const model::ModelRecipe& r : recipes_) {
    if (r.name == name) return &r;
    const bool part = !name.empty() && (r.name.find(name) != std::string::npos);
    near.emplace_back(part ? 0 : edit_distance(name, r.name), r.name);
  }
  if (is_recipe_text(name)) {
    ANYBIT_TRY(model::ModelRecipe made, recipe_of(name));
    recipes_.push_back(std::move(made));
    return &recipes_.back();
  }
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string message = "there is no recipe '" + std::string(name) + "'; near it:";
  for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 3); ++i)
    message += (i ? ", " : " ") + std::string(near[i].second);
  return Error{ErrorCode::invalid_argument,
               message + " (anybit compare --list shows all). Or write it out: gptq(damp=0.01) uint4/g128/f16"};
}

RecipeBook standard_recipes() {
  RecipeBook book;
  add_presets(book, standard);
  return book;
}

RecipeBook named_recipes() {
  RecipeBook book = standard_recipes();
  add_presets(book, variants);
  add_presets(book, widths);
  return book;
}

RecipeBook width_recipes() {
  RecipeBook book;
  add_presets(book, widths);
  return book;
}

}  // namespace tool
