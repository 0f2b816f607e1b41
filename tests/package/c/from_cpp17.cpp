// The C interface from C++17, with an executor of std::thread: the same bits for any number of slices.

#include <anybit/c/anybit.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

namespace {

void check(anybit_status status, const anybit_error& error) {
  if (status == ANYBIT_OK) return;
  std::fprintf(stderr, "%s\n", error.message);
  std::exit(1);
}

struct Free {
  void operator()(anybit_tensor* t) const { anybit_free(t); }
  void operator()(anybit_workspace* w) const { anybit_workspace_free(w); }
};

void on_threads(void* context, std::int64_t n, std::int64_t, anybit_body body, void* body_context) {
  const std::int64_t slices = *static_cast<const std::int64_t*>(context);
  std::vector<std::thread> threads;
  for (std::int64_t i = 0; i < slices; ++i)
    if (const std::int64_t begin = n * i / slices, end = n * (i + 1) / slices; begin < end)
      threads.emplace_back(body, body_context, begin, end);
  for (std::thread& t : threads) t.join();
}

}  // namespace

int main() {
  constexpr std::int64_t rows = 301, cols = 129, tokens = 9;
  std::vector<float> w(rows * cols), x(tokens * cols);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 50;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 53 % 97) - 48) / 48;

  anybit_error error;
  anybit_tensor* made = nullptr;
  check(anybit_quantize("superfloat4/g128/f16/bits", w.data(), rows, cols, cols, &made, &error), error);
  const std::unique_ptr<anybit_tensor, Free> tensor(made);
  const std::unique_ptr<anybit_workspace, Free> workspace(anybit_workspace_new());

  for (const anybit_compute compute :
       {ANYBIT_F32, ANYBIT_INT8_PER_TOKEN, ANYBIT_INT8_PER_BLOCK, ANYBIT_BF16, ANYBIT_INT8_FOLDED}) {
    std::vector<float> expected;
    for (const bool prepared : {false, true}) {
      if (compute == ANYBIT_INT8_FOLDED) expected.clear();  // folding moves results
      if (prepared) check(anybit_prepare(tensor.get(), compute, 0, ANYBIT_DEFAULT_FOLD_ERROR, nullptr, nullptr, &error), error);
      for (std::int64_t slices = 1; slices < 6; ++slices) {
        const anybit_executor executor{&slices, slices, on_threads};
        std::vector<float> y(rows * tokens);
        check(
            anybit_multiply(tensor.get(), x.data(), tokens, cols, y.data(), rows, compute, 0, &executor, workspace.get(), &error),
            error);
        if (expected.empty()) expected = y;
        if (y == expected) continue;
        std::fprintf(stderr, "compute %d in %d slices gives other results\n", static_cast<int>(compute),
                     static_cast<int>(slices));
        return 1;
      }
    }
  }
  std::printf("anybit %s from C++17 on %s\n", anybit_version(), anybit_isa());
}
