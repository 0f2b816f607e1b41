#pragma once
// `anybit tokenize`: texts to token ids and back.

namespace tool {

int run_tokenize(int argc, const char* const* argv);

}  // namespace tool
