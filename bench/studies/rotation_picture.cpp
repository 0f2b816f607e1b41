// Draws what rotation does to the inputs of a model's linears: the largest magnitude of every channel over the tokens of a text,
// before and after, where a norm feeds the feed-forward part and where down reads.
//   rotation_picture MODEL.gguf TEXT OUT.svg [BLOCK]
// ctest: skip
// uses: anybit_study

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <anybit/evaluate/svg_channels.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/rotate.hpp>

#include "drawing/picture.hpp"
#include "shared/text.hpp"

using namespace anybit;

namespace {

/// The activation at `point` of a block, (tokens, channels).
Result<Matrix> inputs(const model::Decoder& d, std::span<const model::TokenId> ids, Index block, model::Point point,
                      ExecutorRef executor) {
  Matrix found;
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  const model::Tap tap{block, point, [&](MutableMatrix x, model::TokenRange) { found = Matrix(x); }};
  ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, ids, cache, {executor, {&tap, 1}}));
  return found;
}

double rms(const Matrix& x) {
  double squares = 0;
  for (Index i = 0; i < x.extents().size(); ++i) squares += static_cast<double>(x.data()[i]) * static_cast<double>(x.data()[i]);
  return std::sqrt(squares / static_cast<double>(x.extents().size()));
}

/// The largest magnitude of every channel, in units of the root mean square of all.
std::vector<double> peaks(const Matrix& x) {
  std::vector<double> largest(static_cast<std::size_t>(x.cols()));
  const double unit = rms(x);
  for (Index t = 0; t < x.rows(); ++t)
    for (std::size_t j = 0; j < largest.size(); ++j)
      largest[j] = std::max(largest[j], std::abs(static_cast<double>(x(t, static_cast<Index>(j)))) / unit);
  return largest;
}

std::string panel(const std::vector<double>& peaks, double left, double top, double highest, const std::string& title) {
  const double most = *std::max_element(peaks.begin(), peaks.end());
  return evaluate::svg_channels(peaks, {left, top, 480, 180}, highest, title,
                                "largest: " + evaluate::detail::fixed(most, 1) + " times the rms");
}

Status work(const std::string& model_file, const std::string& text_file, const std::string& picture, Index block) {
  ThreadPool pool;
  ANYBIT_TRY(const model::Model m, model::load_model(model_file));
  ANYBIT_TRY(const std::string text, tool::read_text(text_file));
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(std::string_view(text).substr(0, 4000)));
  if (ids.size() > 512) ids.resize(512);
  ANYBIT_TRY_STATUS(tool::check_block(m.decoder, block));
  ANYBIT_TRY(const model::Decoder rotated, model::rotate(m.decoder, {}, pool));

  std::string body =
      evaluate::detail::svg_text(60, 30, "start", 16,
                                 m.name + ", block " + std::to_string(block) +
                                     ": largest magnitude of each channel / rms, over " + std::to_string(ids.size()) + " tokens");
  double top = 90;
  for (const auto& [point, name] :
       {std::pair{model::Point::mlp_in, std::string("input of gate and up")}, {model::Point::mlp_hidden, "input of down"}}) {
    ANYBIT_TRY(const Matrix x, inputs(m.decoder, ids, block, point, pool));
    ANYBIT_TRY(const Matrix y, inputs(rotated, ids, block, point, pool));
    const std::vector<double> before = peaks(x), after = peaks(y);
    const double highest = *std::max_element(before.begin(), before.end());
    body += panel(before, 60, top, highest, name + ", as trained") + panel(after, 610, top, highest, name + ", rotated");
    top += 260;
  }
  return tool::write_svg(picture, 1110, 580, body);
}

}  // namespace

int main(int argc, char** argv) { return tool::draw_block(argc, argv, "rotation_picture", 15, work); }
