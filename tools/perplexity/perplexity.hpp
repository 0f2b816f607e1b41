#pragma once
// `anybit perplexity`: how well a model predicts a text.

namespace tool {

int run_perplexity(int argc, const char* const* argv);

}  // namespace tool
