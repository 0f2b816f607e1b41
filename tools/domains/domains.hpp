#pragma once
// `anybit domains`: what calibration by one kind of text costs on another.

namespace tool {

int run_domains(int argc, const char* const* argv);

}  // namespace tool
