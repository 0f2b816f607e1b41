#pragma once
// The text of a recipe, as files record it, into its parts:
//
//   recipe    = { transform "|" } algorithm scheme [ activations ]
//   transform = blocks_learned(...) | rotated(...) | smooth_quant(...) | awq(...)
//   algorithm = exact | nearest(...) | gptq(...) | learned(...) | ldlq(...) | sparsegptq(...) | pruner "then" nearest(...)
//   pruner    = magnitude(50%) | wanda(50%) | sparsegpt(2:4, ...)
//
// "awq | gptq(damp=0.01) uint4/g128/f16": options and their parentheses may be left out, and so may the layout of the scheme if
// it is "bits". Every describe() of the library reads back as the same options.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/ldlq_options.hpp>
#include <anybit/algorithm/learned_method.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/model/rotation.hpp>
#include <anybit/prune/sparse_gpt.hpp>
#include <anybit/prune/wanda.hpp>
#include <anybit/train/learned_blocks_options.hpp>
#include <anybit/transform/awq.hpp>
#include <anybit/transform/smooth_quant.hpp>

namespace tool {

/// The options of Nearest<S>, SparseGptq<S> and PrunedNearest<P, S> for any scheme; gptq::Options are those of Gptq<S>,
/// learned::Options those of Learned<S>, ldlq::Options those of Ldlq<S>.
struct NearestOptions {
  anybit::GridFit fit{};
  bool weighted = false;
  bool grids = false;               ///< fit and weighted are the text's
  anybit::ldlq::Options trellis{};  ///< gain and exact of NearestTrellis<S>
  bool of_trellis = false;          ///< trellis is the text's
};
/// Exact has none.
struct ExactOptions {};
struct SparseGptqOptions {
  anybit::SparseGpt pruner{};
  anybit::GridFit fit{};
  bool pruned_grids = false;
};
struct PrunedNearestOptions {
  std::variant<anybit::Magnitude, anybit::Wanda, anybit::SparseGpt> pruner{};
  anybit::GridFit fit{};
};

/// A recipe but for its scheme's type. Places are offsets in the text.
struct RecipeText {
  std::string text;
  std::optional<anybit::train::LearnedBlocks> blocks{};
  std::optional<anybit::model::RotationOptions> rotation{};
  std::variant<std::monostate, anybit::SmoothQuant, anybit::SmoothQuantSearch, anybit::Awq> transform{};
  std::variant<NearestOptions, anybit::gptq::Options, anybit::learned::Options, anybit::ldlq::Options, ExactOptions,
               SparseGptqOptions, PrunedNearestOptions>
      algorithm{};
  std::string scheme;
  anybit::Compute compute = anybit::Compute::f32;
  std::size_t blocks_at = 0, transform_at = 0, algorithm_at = 0, scheme_at = 0;
};

/// Whether a text is a recipe rather than the name of one: it has a blank, a bar, a slash or a parenthesis.
bool is_recipe_text(std::string_view text);

/// The error shows the place in the text and lists what could stand there.
anybit::Result<RecipeText> parse_recipe(std::string_view text);

/// An error at a place of a recipe's text: the message, the text, and a mark below the place.
anybit::Error recipe_error(std::string_view text, std::size_t at, std::string message);

}  // namespace tool
