#pragma once
// `anybit logits`: logits, hidden states and inputs of linears, for comparison with other implementations.

namespace tool {

int run_logits(int argc, const char* const* argv);

}  // namespace tool
