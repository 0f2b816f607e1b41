// Text to token ids on one thread: MB/s of a whole text in one call, and of the same text in documents of about 4 KB.
//   bench_tokenizer VOCABULARY TEXT
// bench/tokenizer_speed.py runs it in turns with Hugging Face's tokenizers.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>

#include <anybit/model/tokenizer/files.hpp>

namespace {

using namespace anybit;

/// Parts of at least `bytes`, each to the end of its line.
std::vector<std::string_view> documents(std::string_view text, std::size_t bytes) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t line = text.find('\n', std::min(bytes, text.size()));
    out.push_back(text.substr(0, line == std::string_view::npos ? line : line + 1));
    text.remove_prefix(out.back().size());
  }
  return out;
}

void encode(benchmark::State& state, const model::Tokenizer& t, const std::vector<std::string_view>& documents) {
  std::size_t tokens = 0, bytes = 0;
  for (auto _ : state) {
    tokens = bytes = 0;
    for (const std::string_view d : documents) {
      const auto ids = t.encode(d);
      if (!ids) return state.SkipWithError(ids.error().message.c_str());
      tokens += ids->size(), bytes += d.size();
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
  state.counters["tokens"] = static_cast<double>(tokens);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc != 3) return std::fprintf(stderr, "usage: bench_tokenizer VOCABULARY TEXT\n"), 2;
  const auto t = model::open_tokenizer(argv[1]);
  if (!t) return std::fprintf(stderr, "bench_tokenizer: %s\n", t.error().message.c_str()), 3;
  std::ifstream file(argv[2], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto whole = documents(text, text.size()), parts = documents(text, 4000);
  for (const auto& [name, d] : {std::pair{"whole", &whole}, {"documents", &parts}})
    benchmark::RegisterBenchmark(name, [&t, d = d](benchmark::State& s) { encode(s, *t, *d); })->Unit(benchmark::kMillisecond);
  benchmark::RunSpecifiedBenchmarks();
}
