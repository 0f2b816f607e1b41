#include "drawing/picture.hpp"

#include <cstdio>
#include <cstdlib>
#include <span>
#include <utility>
#include <vector>

#include <anybit/evaluate/svg_shapes.hpp>
#include <anybit/model/load.hpp>

#include "shared/outputs.hpp"
#include "shared/text.hpp"

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

Result<Calibrated> calibrated(const std::string& model, const std::string& text, Index block, const Calibration& how,
                              ExecutorRef executor) {
  constexpr Index window = 512;
  ANYBIT_TRY(model::Model m, model::load_model(model));
  ANYBIT_TRY_STATUS(check_block(m.decoder, block));
  ANYBIT_TRY(std::string words, read_text(text));
  if (how.second_half) words = cut_in_two(words).evaluate;
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(words));
  if (static_cast<Index>(ids.size()) < how.tokens)
    return Error{ErrorCode::insufficient_data, text + (how.second_half ? ": half of it" : "") + " has " +
                                                   std::to_string(ids.size()) + " tokens, " + std::to_string(how.tokens) +
                                                   " are needed"};
  model::ModelStats stats(m.decoder, how.needs);
  for (Index t = 0; t < how.tokens; t += window) {
    const auto some = std::span(ids).subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(window));
    ANYBIT_TRY(const Matrix hidden, stats.accumulate(m.decoder, some, executor));
  }
  return Calibrated{std::move(m), std::move(stats)};
}

Status write_svg(const std::string& path, int width, int height, const std::string& body) {
  return write_text(path, evaluate::svg_page({static_cast<double>(width), static_cast<double>(height)}, body));
}

}  // namespace tool
