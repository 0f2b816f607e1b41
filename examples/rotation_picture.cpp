// Draws what rotation does to the inputs of a model's linears: the largest magnitude of every channel over the tokens of a text,
// before and after, where a norm feeds the feed-forward part and where down reads.
//   rotation_picture MODEL TEXT OUT.svg [BLOCK]
// ctest: skip

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <anybit/evaluate/svg_channels.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>
#include <anybit/model/rotate.hpp>

using namespace anybit;

namespace {

/// What enters `site` of a block, (tokens, channels).
Result<Matrix> inputs(const model::Decoder& d, std::span<const model::TokenId> ids, Index block, model::Site site,
                      ExecutorRef executor) {
  Matrix found;
  model::KvCache cache(d.config, static_cast<Index>(ids.size()));
  model::ForwardOptions options;
  options.executor = executor;
  options.capture = [&](Index i, model::Site at, ConstMatrix x) {
    if (i == block && at == site) found = Matrix(x);
  };
  ANYBIT_TRY(const Matrix hidden, model::hidden_states(d, ids, cache, options));
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

std::string panel(const std::vector<double>& peaks, double left, double top, double width, double height, double highest,
                  const std::string& title) {
  const double most = *std::max_element(peaks.begin(), peaks.end());
  return evaluate::svg_channels(peaks, {left, top, width, height}, highest, title,
                                "largest: " + evaluate::detail::fixed(most, 1) + " times the rms");
}

int fail(const Error& e) {
  std::fprintf(stderr, "rotation_picture: %s\n", e.message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "rotation_picture MODEL TEXT OUT.svg [BLOCK]\n");
    return 2;
  }
  const auto loaded = model::load_model(argv[1]);
  if (!loaded) return fail(loaded.error());
  const model::Decoder& before = loaded->decoder;
  const Index block = argc > 4 ? std::atoll(argv[4]) : before.config.blocks / 2;
  std::ifstream in(argv[2], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  auto ids = loaded->tokenizer.encode(std::string_view(text).substr(0, 4000));
  if (!ids) return fail(ids.error());
  if (ids->size() > 512) ids->resize(512);
  ThreadPool pool;
  const auto after = model::rotate(before, {}, pool);
  if (!after) return fail(after.error());

  const double width = 480, height = 180, left = 60, gap = 70;
  std::string body;
  double top = 90;
  for (const auto& [site, name] :
       {std::pair{model::Site::ffn_gate_up, "input of gate and up"}, {model::Site::ffn_down, "input of down"}}) {
    const auto x = inputs(before, *ids, block, site, pool), y = inputs(*after, *ids, block, site, pool);
    if (!x) return fail(x.error());
    if (!y) return fail(y.error());
    const std::vector<double> trained = peaks(*x), rotated = peaks(*y);
    const double highest = *std::max_element(trained.begin(), trained.end());
    body += panel(trained, left, top, width, height, highest, std::string(name) + ", as trained") +
            panel(rotated, left + width + gap, top, width, height, highest, std::string(name) + ", rotated");
    top += height + 80;
  }
  std::ofstream out(argv[3], std::ios::binary);
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << evaluate::detail::fixed(2 * width + gap + left + 20, 0)
      << " " << evaluate::detail::fixed(top - 30, 0)
      << "\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
      << evaluate::detail::svg_text(left, 30, "start", 16,
                                    loaded->name + ", block " + std::to_string(block) +
                                        ": largest magnitude of each channel / rms, over " + std::to_string(ids->size()) +
                                        " tokens")
      << body << "</svg>\n";
  return out.good() ? 0 : 1;
}
