// What NeUQI's search leaves of the error of real layers, beside the other searches: every linear of three blocks of a model,
// uniform grids with a zero point. Errors are sqrt(sum h (w - q)^2 / sum h w^2), h the mean squares of the inputs on 8192 tokens
// of the text: the diagonal of the Hessian; geometric means over the linears, and processor seconds.
// ctest: skip
// uses: anybit_study

#include <cmath>
#include <cstdio>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/model_stats.hpp>
#include <anybit/quantize/sites.hpp>

#include "shared/text.hpp"

using namespace anybit;

namespace {

constexpr Index window = 512, windows = 16;

struct Layer {
  ConstMatrix weights;
  const Stats* stats;
};

double error_of(const Layer& l, ConstMatrix q) {
  const std::vector<float> mean_square = l.stats->mean_square();
  double off = 0, all = 0;
  for (Index r = 0; r < q.rows; ++r)
    for (Index c = 0; c < q.cols; ++c) {
      const double h = static_cast<double>(mean_square[static_cast<std::size_t>(c)]), w = static_cast<double>(l.weights(r, c)),
                   d = static_cast<double>(q(r, c)) - w;
      off += h * d * d, all += h * w * w;
    }
  return std::sqrt(off / all);
}

template <AnyScheme S>
Status compare(const std::vector<Layer>& layers, ExecutorRef executor) {
  std::printf("%s\n", std::string(std::string_view(S::name)).c_str());
  const struct {
    const char* name;
    Nearest<S> method;
  } rows[] = {{"none", {}},
              {"mse", {.search = Search::mse, .shrink = {.norm = 2}}},
              {"least squares", {.search = Search::least_squares}},
              {"half-quadratic", {.search = Search::half_quadratic}},
              {"neuqi", {.search = Search::neuqi}},
              {"weighted mse", {.search = Search::mse, .shrink = {.norm = 2}, .weighted = true}},
              {"weighted least squares", {.search = Search::least_squares, .weighted = true}},
              {"weighted neuqi", {.search = Search::neuqi, .weighted = true}}};
  for (const auto& row : rows) {
    double sum = 0, taken = 0;
    for (const Layer& l : layers) {
      QuantizeOptions options;
      options.executor = executor, options.verify = false;
      const std::clock_t start = std::clock();
      ANYBIT_TRY(const auto q, row.method.quantize(l.weights, *l.stats, options));
      taken += static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      sum += std::log(error_of(l, dequantize(q.matrix).view()));
    }
    std::printf("  %-24s %.4f  %6.1f s\n", row.name, std::exp(sum / static_cast<double>(layers.size())), taken);
    std::fflush(stdout);
  }
  return Ok{};
}

Status work(const std::string& model_file, const std::string& text_file) {
  ThreadPool pool(2);
  ANYBIT_TRY(model::Model m, model::load_model(model_file));
  ANYBIT_TRY(const std::string text, tool::read_text(text_file));
  ANYBIT_TRY(const std::vector<model::TokenId> ids, m.tokenizer.encode(text));
  if (static_cast<Index>(ids.size()) < windows * window)
    return Error{ErrorCode::insufficient_data, "the text has fewer than 8192 tokens; give a longer one"};
  model::ModelStats stats(m.decoder, Needs::mean_square);
  for (Index i = 0; i < windows; ++i) {
    ANYBIT_TRY(
        const Matrix hidden,
        stats.accumulate(m.decoder,
                         std::span(ids).subspan(static_cast<std::size_t>(i * window), static_cast<std::size_t>(window)), pool));
  }
  const Index count = m.decoder.config.blocks;
  std::vector<Layer> layers;
  for (const model::SiblingGroup& group : model::sibling_groups(m.decoder))
    if (group.block == 0 || group.block == count * 3 / 8 || group.block == count - 1)
      for (const model::NamedLinear& linear : group.linears)
        layers.push_back({linear.linear->dense()->view(), &stats.at(group.id, Needs::mean_square)});
  std::printf("%zu layers\n", layers.size());
  ANYBIT_TRY_STATUS((compare<Scheme<UInt<2>, PerGroup<64>>>(layers, pool)));
  ANYBIT_TRY_STATUS((compare<Scheme<UInt<2>, PerGroup<128>>>(layers, pool)));
  ANYBIT_TRY_STATUS((compare<Scheme<UInt<3>, PerGroup<64>>>(layers, pool)));
  ANYBIT_TRY_STATUS((compare<Scheme<UInt<3>, PerGroup<128>>>(layers, pool)));
  return Ok{};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "neuqi MODEL.gguf TEXT\n"), 2;
  const Status done = work(argv[1], argv[2]);
  if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  return 0;
}
