// KL divergence of models whose uniform grids come from NeUQI's search and from the others: all linears of the blocks, the
// embedding in 8 bits. The first 8192 tokens of the text calibrate; of the next 4096 the second halves of 8 windows of 512 are
// scored. Seconds are the processor's, of quantizing alone.
// ctest: skip
// uses: anybit_study

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/algorithm/gptq.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/evaluate/model.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/model/load.hpp>
#include <anybit/quantize/one_shot.hpp>

#include "shared/text.hpp"

using namespace anybit;

namespace {

constexpr Index window = 512, calibration = 16, evaluation = 8;

struct Study {
  const model::Decoder& d;
  const model::ModelStats& stats;
  const model::PackedEmbedding& embedding;
  const evaluate::Windows& text;
  const evaluate::ReferenceLogits& reference;
  ExecutorRef executor;

  template <class A>
  Status row(const char* name, const A& algorithm) const {
    const std::clock_t start = std::clock();
    ANYBIT_TRY(const model::QuantizedModel q,
               quantize_model(d, stats, model::model_recipe(name, algorithm), embedding, {.executor = executor}));
    const double taken = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    ANYBIT_TRY(const auto tokens, evaluate::compare(reference, q.decoder, text, executor));
    const evaluate::Estimate kl = evaluate::kl_statistics(tokens).kl;
    std::printf("  %-32s KL %.4f +- %.4f  %6.1f s\n", name, kl.value, kl.plus_minus, taken);
    std::fflush(stdout);
    return Ok{};
  }
};

template <AnyScheme S>
Status compare(const Study& study) {
  std::printf("%s\n", std::string(std::string_view(S::name)).c_str());
  constexpr ShrinkSearch squares{.norm = 2};
  ANYBIT_TRY_STATUS(study.row("gptq(weighted mse)", Gptq<S>{.search = Search::mse, .shrink = squares, .weighted = true}));
  ANYBIT_TRY_STATUS(study.row("gptq(weighted neuqi)", Gptq<S>{.search = Search::neuqi, .weighted = true}));
  ANYBIT_TRY_STATUS(study.row("nearest(weighted least squares)", Nearest<S>{.search = Search::least_squares, .weighted = true}));
  ANYBIT_TRY_STATUS(study.row("nearest(weighted neuqi)", Nearest<S>{.search = Search::neuqi, .weighted = true}));
  return study.row("nearest(mse)", Nearest<S>{.search = Search::mse, .shrink = squares});
}

Status work(const std::string& model_file, const std::string& text_file, std::string_view bits) {
  ThreadPool pool(2);
  ANYBIT_TRY(const model::Model m, model::load_model(model_file));
  ANYBIT_TRY(const std::string text, tool::read_text(text_file));
  ANYBIT_TRY(const std::vector<model::TokenId> ids, m.tokenizer.encode(text));
  if (static_cast<Index>(ids.size()) < (calibration + evaluation) * window)
    return Error{ErrorCode::insufficient_data, "the text has fewer than 12288 tokens; give a longer one"};
  const auto part = [&](Index first, Index count) {
    return std::span(ids).subspan(static_cast<std::size_t>(first * window), static_cast<std::size_t>(count * window));
  };
  model::ModelStats stats(m.decoder, Needs::hessian);
  for (Index i = 0; i < calibration; ++i) {
    ANYBIT_TRY(const Matrix hidden, stats.accumulate(m.decoder, part(i, 1), pool));
  }
  ANYBIT_TRY(const evaluate::Windows windows, evaluate::llama_cpp_windows(part(calibration, evaluation), window));
  ANYBIT_TRY(const evaluate::ReferenceLogits reference, evaluate::reference_logits(m.decoder, windows, pool));
  ANYBIT_TRY(const model::PackedEmbedding embedding, pack_embedding(m.decoder));
  const Study study{m.decoder, stats, embedding, windows, reference, pool};
  if (bits == "2") {
    ANYBIT_TRY_STATUS((compare<Scheme<UInt<2>, PerGroup<64>>>(study)));
    return compare<Scheme<UInt<2>, PerGroup<128>>>(study);
  }
  ANYBIT_TRY_STATUS((compare<Scheme<UInt<3>, PerGroup<128>>>(study)));
  return compare<Scheme<UInt<3>, PerGroup<64>>>(study);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "neuqi_kl MODEL.gguf TEXT 2|3\n"), 2;
  const Status done = work(argv[1], argv[2], argv[3]);
  if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  return 0;
}
