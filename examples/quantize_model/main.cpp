// quantize_model: quantizes a language model by every recipe, runs each result from its packed form, and reports what it cost.

#include "quantize_model.hpp"

int main(int argc, char** argv) { return tool::run_quantize_model(tool::standard_recipes(), argc, argv); }
