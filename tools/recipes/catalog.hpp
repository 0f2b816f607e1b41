#pragma once
// The schemes that this program has code for, and the methods compiled for each. Every scheme takes a compiler seconds, so each
// is named in exactly one of the files schemes_*.cpp.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/quantize/any_recipe.hpp>

#include "recipe_text.hpp"

namespace tool {

/// The methods compiled for a scheme besides nearest; bits of one number.
enum Methods : unsigned {
  nearest_only = 0,
  with_gptq = 1,          ///< and learned
  with_awq = 2,           ///< in front of nearest, and of gptq and learned if they are there
  with_smooth_quant = 4,  ///< likewise
  with_pruning = 8,       ///< sparsegptq, and each pruner then nearest
  with_ldlq = 16,         ///< trellis codes: nearest of whole tiles, and ldlq
  scales_as_found = 32,   ///< ldlq has no options for the metric inside tiles and for scales: EXL3
  with_exact = 64,        ///< weights stay what they are: exact, and nearest without options
};

struct CompiledScheme {
  std::string name;
  unsigned methods = nearest_only;
  /// The recipe of a text that check_compiled() accepts.
  anybit::model::ModelRecipe (*make)(const RecipeText&) = nullptr;
};

class Catalog {
 public:
  const std::vector<CompiledScheme>& schemes() const { return schemes_; }
  /// For opening files.
  const anybit::SchemeRegistry& registry() const { return registry_; }
  /// The recipe, named by its text. Errors list the schemes that are compiled, for the method if it is the reason.
  anybit::Result<anybit::model::ModelRecipe> make(const RecipeText& recipe) const;

  template <anybit::AnyScheme S, unsigned methods>
  void add();  // compile.hpp
  /// A trellis scheme.
  template <anybit::TrellisScheme S>
  void add_trellis();  // schemes_trellis.cpp
  /// Its files are opened and run, but no recipe makes it.
  template <anybit::PackedScheme S>
  void add_readable() {
    registry_.add<S>();
  }
  /// A scheme whose recipes are made elsewhere.
  template <anybit::PackedScheme S>
  void add_compiled(CompiledScheme scheme) {
    registry_.add<S>();
    schemes_.push_back(std::move(scheme));
  }

 private:
  std::vector<CompiledScheme> schemes_;
  anybit::SchemeRegistry registry_;
};

/// The program's, made at the first call.
const Catalog& catalog();

void add_integers(Catalog& to);
void add_asymmetric_integers(Catalog& to);
void add_byte_scaled_integers(Catalog& to);
void add_superfloats(Catalog& to);
void add_other_formats(Catalog& to);
void add_trellises(Catalog& to);
void add_checkpoint_schemes(Catalog& to);
void add_exl3(Catalog& to);
void add_lossless(Catalog& to);

}  // namespace tool
