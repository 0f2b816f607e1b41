#pragma once
// `anybit steer`: reads directions and probes from a model, applies them, and measures what quantization does to them.

namespace tool {

int run_steer(int argc, const char* const* argv);

// Its parts, as commands of their own.
int run_steer_read(int argc, const char* const* argv);
int run_steer_probe(int argc, const char* const* argv);
int run_steer_apply(int argc, const char* const* argv);
int run_steer_compare(int argc, const char* const* argv);
int run_steer_lorra(int argc, const char* const* argv);
int run_steer_truthfulqa(int argc, const char* const* argv);

}  // namespace tool
