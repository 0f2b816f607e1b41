#include "picture.hpp"

#include <cstdio>
#include <cstdlib>

#include "outputs.hpp"

namespace tool {

using namespace anybit;

int draw_block(int argc, char** argv, const char* name, Index block,
               Status (*work)(const std::string& model, const std::string& text, const std::string& picture, Index block)) {
  if (argc < 4 || argc > 5) return std::fprintf(stderr, "%s MODEL.gguf TEXT OUT.svg [BLOCK]\n", name), 2;
  const Status done = work(argv[1], argv[2], argv[3], argc == 5 ? std::atoll(argv[4]) : block);
  if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  return 0;
}

Status check_block(const model::Decoder& d, Index block) {
  if (block >= 0 && block < d.config.blocks) return Ok{};
  return Error{ErrorCode::invalid_argument,
               "block " + std::to_string(block) + " is none of the model's 0 to " + std::to_string(d.config.blocks - 1)};
}

Status write_svg(const std::string& path, int width, int height, const std::string& body) {
  return write_text(
      path, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + std::to_string(width) + " " + std::to_string(height) +
                "\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n" + body + "</svg>\n");
}

}  // namespace tool
