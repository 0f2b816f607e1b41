#pragma once
// What the programs that draw one block of a model share.

#include <string>

#include <anybit/exec/executor.hpp>
#include <anybit/model/model.hpp>
#include <anybit/quantize/model_stats.hpp>

namespace tool {

/// main() of a program that is called as NAME MODEL.gguf TEXT OUT.svg [BLOCK]; its exit code.
int draw_block(int argc, char** argv, const char* name, anybit::Index block,
               anybit::Status (*work)(const std::string& model, const std::string& text, const std::string& picture,
                                      anybit::Index block));

/// An error where the model has no such block.
anybit::Status check_block(const anybit::model::Decoder& d, anybit::Index block);

/// A model and what enters its linears.
struct Calibrated {
  anybit::model::Model model;
  anybit::model::ModelStats stats;
};

struct Calibration {
  anybit::Index tokens = 0;  ///< the first of the text, in windows of 512
  anybit::Needs needs{};
  bool second_half = false;  ///< of the text
};

/// Loads a model that has `block` and runs the text through it.
anybit::Result<Calibrated> calibrated(const std::string& model, const std::string& text, anybit::Index block,
                                      const Calibration& how, anybit::ExecutorRef executor);

/// `body` on white, as a file.
anybit::Status write_svg(const std::string& path, int width, int height, const std::string& body);

}  // namespace tool
