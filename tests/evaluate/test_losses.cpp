// Losses and KL without all logits in memory: the same figures, and the largest amount of memory held at once.

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "support/sanitizers.hpp"

#if defined(__linux__) && !defined(TEST_SANITIZED)
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#define MEMORY_CAN_BE_LIMITED
#endif

#include <anybit/evaluate/base_file.hpp>
#include <anybit/evaluate/model.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/arch/architectures.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using namespace anybit::model;
using test_support::ids;
using test_support::random_decoder;

TEST_CASE("losses: those of all logits, in both protocols, for any number of threads") {
  const Decoder d = random_decoder(2);
  const auto text = ids(320, 5);
  for (const bool gptq : {true, false}) {
    // Windows of 150 tokens: 149 and 74 scored positions, no multiples of 64.
    const evaluate::Windows windows =
        gptq ? evaluate::gptq_windows(text, 150).value() : evaluate::llama_cpp_windows(text, 150, 1).value();
    const std::vector<double> nll = evaluate::losses(d, windows).value();
    REQUIRE(static_cast<Index>(nll.size()) == windows.scored());
    std::size_t at = 0;
    for (Index w = 0; w < windows.count(); ++w) {
      const auto window = windows.window(w);
      const Matrix logits = test_support::logits_of(d, {window.begin(), window.end()});
      for (Index p = windows.first_scored; p + 1 < windows.length; ++p, ++at)
        CHECK(nll[at] == Approx(evaluate::negative_log_likelihood(logits.view().row(p), window[static_cast<std::size_t>(p + 1)]))
                             .epsilon(1e-5));
    }
    ThreadPool pool(3);
    CHECK(evaluate::losses(d, windows, pool).value() == nll);
  }
}

TEST_CASE("a base in a file compares as the base in memory does; damaged files are refused") {
  const Decoder d = random_decoder(2);
  Decoder other = d;
  other.linear(1, "ffn_up") = other.linear(0, "ffn_up");
  const evaluate::Windows windows = evaluate::llama_cpp_windows(ids(320, 5), 150, 1).value();
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "base";
  REQUIRE(evaluate::write_base(path, d, windows));
  const auto base = evaluate::BaseFile::open(path);
  REQUIRE(base);
  CHECK(base->windows().tokens == windows.tokens);
  CHECK(base->vocabulary() == 61);
  const auto reference = evaluate::reference_logits(d, windows, {}, nullptr, {}, evaluate::ReferenceStorage::uint16).value();
  const auto mine = evaluate::compare(reference, other, windows, {}).value(), stored = base->compare(other).value();
  REQUIRE(mine.size() == stored.size());
  double kl = 0;
  for (std::size_t i = 0; i < mine.size(); ++i) {
    CHECK(stored[i].kl == mine[i].kl);
    CHECK(stored[i].nll == mine[i].nll);
    CHECK(stored[i].nll_reference == mine[i].nll_reference);
    CHECK(stored[i].same_top == mine[i].same_top);
    kl += mine[i].kl;
  }
  CHECK(kl > 0.1);

  std::vector<char> bytes;
  {
    std::ifstream file(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  const auto message = [&](std::vector<char> changed) {
    std::ofstream(folder / "bad", std::ios::binary).write(changed.data(), static_cast<std::streamsize>(changed.size()));
    const auto opened = evaluate::BaseFile::open(folder / "bad");
    return opened ? std::string() : opened.error().message;
  };
  CHECK(message(bytes).empty());
  auto cut = bytes;
  cut.pop_back();
  CHECK(message(cut).find("its sizes need " + std::to_string(bytes.size())) != std::string::npos);
  auto named = bytes;
  named[0] = 'x';
  CHECK(message(named).find("it is no base of predictions") != std::string::npos);
  auto token = bytes;
  token[20] = 99;
  CHECK(message(token).find("has the token 99 outside its vocabulary of 61") != std::string::npos);
  CHECK(evaluate::write_base(path, d, evaluate::gptq_windows(ids(320, 5), 150).value())
            .error()
            .message.find("position 0 of windows of 150") != std::string::npos);
}

#if defined(MEMORY_CAN_BE_LIMITED)
namespace {

/// Whether f runs in a process that may have no more than `bytes` of memory beyond what it has now.
template <class F>
bool runs_within(std::size_t bytes, F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGABRT, SIG_DFL);
    std::size_t now = 0;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
      if (line.rfind("VmData:", 0) == 0) now = 1024 * std::strtoul(line.c_str() + 7, nullptr, 10);
    const ::rlimit limit{now + bytes, now + bytes};
    if (now == 0 || ::setrlimit(RLIMIT_DATA, &limit) != 0) ::_exit(2);
    f();
    ::_exit(0);
  }
  int result = 0;
  ::waitpid(child, &result, 0);
  return WIFEXITED(result) && WEXITSTATUS(result) == 0;
}

/// One block under a vocabulary of 150,000.
Decoder wide_decoder() {
  DecoderConfig c;
  c.vocabulary = 150000, c.dim = 4, c.hidden = 4, c.blocks = 1, c.heads = 1, c.kv_heads = 1, c.head_dim = c.rotary_dim = 4;
  c.context = 4096;
  Decoder d = make_decoder(llama_architecture, c);
  unsigned state = 1;
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const WeightSpec& spec = d.blueprint->weights[i];
    if (spec.optional) continue;
    Matrix m(spec.shape.rows, spec.shape.cols);
    for (Index k = 0; k < m.extents().size(); ++k)
      m.data()[k] = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
    if (spec.multiplies())
      d.weights[i].linear = nn::Linear(std::move(m));
    else
      d.weights[i].values.assign(m.data(), m.data() + spec.shape.cols);
  }
  return d;
}

}  // namespace

TEST_CASE("2000 positions of a vocabulary of 150,000 need less than 100 MB") {
  constexpr std::size_t limit = 100'000'000;
  if (runs_within(limit, [] { std::memset(std::malloc(200'000'000), 1, 200'000'000); })) {
    WARN("skipped: this system does not limit the memory of a process");
    return;
  }
  const Decoder d = wide_decoder();
  const evaluate::Windows long_text = evaluate::gptq_windows(ids(2001, 3, 150000), 2001).value();
  REQUIRE(long_text.scored() == 2000);
  CHECK(runs_within(limit, [&] {
    if (!evaluate::losses(d, long_text)) ::_exit(1);
  }));
  CHECK_FALSE(runs_within(10'000'000, [&] { ::_exit(evaluate::losses(d, long_text) ? 0 : 1); }));
  // A base of fewer positions, because a file of 2000 would take 600 MB of the disk.
  const evaluate::Windows text = evaluate::llama_cpp_windows(ids(302, 3, 150000), 151).value();
  const test_support::TemporaryFolder folder;
  CHECK(runs_within(limit, [&] {
    if (!evaluate::write_base(folder / "base", d, text)) ::_exit(1);
  }));
  CHECK(runs_within(limit, [&] {
    const auto base = evaluate::BaseFile::open(folder / "base");
    if (!base || !base->compare(d)) ::_exit(1);
  }));
}
#endif
