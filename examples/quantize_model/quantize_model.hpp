#pragma once
// The tool as a function, so that a program of a few lines can add recipes of its own (examples/custom_format.cpp does):
//
//   tool::RecipeBook book = tool::standard_recipes();
//   book.add(anybit::model::model_recipe("my-format", anybit::Nearest<MyFormat, anybit::PerGroup<64>>{}));
//   return tool::run_quantize_model(book, argc, argv);

#include "recipe_book.hpp"

namespace tool {

/// Exit codes, as --help lists them.
enum ExitCode { success = 0, internal = 1, usage = 2, bad_input = 3, cannot_write = 4, recipe_failed = 5 };

int run_quantize_model(const RecipeBook& book, int argc, const char* const* argv);

}  // namespace tool
