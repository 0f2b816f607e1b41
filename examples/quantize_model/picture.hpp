#pragma once
// What the programs that draw one block of a model share.

#include <string>

#include <anybit/core/result.hpp>
#include <anybit/model/decoder.hpp>

namespace tool {

/// main() of a program that is called as NAME MODEL.gguf TEXT OUT.svg [BLOCK]; its exit code.
int draw_block(int argc, char** argv, const char* name, anybit::Index block,
               anybit::Status (*work)(const std::string& model, const std::string& text, const std::string& picture,
                                      anybit::Index block));

/// An error where the model has no such block.
anybit::Status check_block(const anybit::model::Decoder& d, anybit::Index block);

/// `body` on white, as a file.
anybit::Status write_svg(const std::string& path, int width, int height, const std::string& body);

}  // namespace tool
