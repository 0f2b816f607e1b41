#pragma once
// anybit wasq: saved models side by side, by the protocols of the WASQ evaluation.

namespace tool {

int run_wasq(int argc, const char* const* argv);

}  // namespace tool
