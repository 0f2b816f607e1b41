#pragma once
// `anybit compare`: quantizes a language model by every recipe, runs each result from its packed form, and reports what it cost.
// A function, so that a program of a few lines can add recipes of its own (examples/custom_format.cpp does):
//
//   tool::RecipeBook book = tool::standard_recipes();
//   book.add(anybit::model::model_recipe("my-format", anybit::Nearest<MyFormat, anybit::PerGroup<64>>{}));
//   return tool::run_compare(book, argc, argv);

#include "recipes/recipe_book.hpp"

namespace tool {

/// The exit code, as --help lists them.
int run_compare(const RecipeBook& book, int argc, const char* const* argv);

}  // namespace tool
