// Attention over a long context against llama.cpp's CPU flash attention, in turns in one process: keys and values as they lie in
// llama.cpp's cache, token after token, all heads of a token side by side. Prints a line for every case: medians, of processor
// time for one thread, which other work on the machine changes least, and of the clock for more.
//
//   attention_llama_cpp [SECONDS [THREADS [HEADS [KV_HEADS [HEAD_DIM [CONTEXT [PROMPT]]]]]]]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <time.h>

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/attention.hpp>

namespace {

using namespace anybit;
using namespace anybit::kernel;

struct ContextFree {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
struct BufferFree {
  void operator()(ggml_backend_buffer* b) const { ggml_backend_buffer_free(b); }
};

std::vector<float> normal_floats(unsigned seed, Index n) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = normal(rng);
  return v;
}
std::vector<std::uint16_t> halves(const std::vector<float>& v) {
  std::vector<std::uint16_t> h(v.size());
  for (std::size_t i = 0; i < v.size(); ++i) h[i] = f32_to_f16(v[i]);
  return h;
}

struct Case {
  AttentionShape s;
  Index context, tokens;
  Index first() const { return context - tokens; }
  Index kv_width() const { return s.kv_heads * s.head_dim; }
  Index q_width() const { return s.heads * s.head_dim; }
};

/// llama.cpp's operation; q (tokens, heads, head_dim), keys and values (context, kv_heads, head_dim) as binary16.
class Ggml {
 public:
  Ggml(const Case& c, const std::vector<float>& q, const std::vector<std::uint16_t>& k, const std::vector<std::uint16_t>& v)
      : backend_(ggml_backend_cpu_init()) {
    context_.reset(ggml_init({ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true}));
    ggml_context* const g = context_.get();
    const auto d = c.s.head_dim, heads = c.s.heads, kv_heads = c.s.kv_heads;
    // A mask has its rows padded in some versions.
    const Index rows = (c.tokens + 63) / 64 * 64;
    ggml_tensor* const tq = ggml_new_tensor_3d(g, GGML_TYPE_F32, d, heads, c.tokens);
    ggml_tensor* const tk = ggml_new_tensor_3d(g, GGML_TYPE_F16, d, kv_heads, c.context);
    ggml_tensor* const tv = ggml_new_tensor_3d(g, GGML_TYPE_F16, d, kv_heads, c.context);
    ggml_tensor* const mask = ggml_new_tensor_2d(g, GGML_TYPE_F16, c.context, rows);
    out_ = ggml_flash_attn_ext(g, ggml_permute(g, tq, 0, 2, 1, 3), ggml_permute(g, tk, 0, 2, 1, 3),
                               ggml_permute(g, tv, 0, 2, 1, 3), mask, 1.0f / std::sqrt(static_cast<float>(d)), 0.0f, 0.0f);
    graph_ = ggml_new_graph(g);
    ggml_build_forward_expand(graph_, out_);
    buffer_.reset(ggml_backend_alloc_ctx_tensors(g, backend_));
    ggml_backend_tensor_set(tq, q.data(), 0, q.size() * 4);
    ggml_backend_tensor_set(tk, k.data(), 0, k.size() * 2);
    ggml_backend_tensor_set(tv, v.data(), 0, v.size() * 2);
    std::vector<std::uint16_t> m(static_cast<std::size_t>(rows * c.context));
    for (Index t = 0; t < rows; ++t)
      for (Index p = 0; p < c.context; ++p) m[static_cast<std::size_t>(t * c.context + p)] = p <= c.first() + t ? 0 : 0xFC00;
    ggml_backend_tensor_set(mask, m.data(), 0, m.size() * 2);
  }
  ~Ggml() {
    buffer_.reset();
    ggml_backend_free(backend_);
  }
  Ggml(const Ggml&) = delete;
  Ggml& operator=(const Ggml&) = delete;

  void run(Index threads) {
    ggml_backend_cpu_set_n_threads(backend_, static_cast<int>(threads));
    if (ggml_backend_graph_compute(backend_, graph_) != GGML_STATUS_SUCCESS) std::abort();
  }
  /// (tokens, heads, head_dim)
  std::vector<float> out() const {
    std::vector<float> y(static_cast<std::size_t>(ggml_nelements(out_)));
    ggml_backend_tensor_get(out_, y.data(), 0, y.size() * 4);
    return y;
  }

 private:
  ggml_backend_t backend_;
  std::unique_ptr<ggml_context, ContextFree> context_;
  std::unique_ptr<ggml_backend_buffer, BufferFree> buffer_;
  ggml_tensor* out_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
};

/// anybit's on the same memory, or on 4-bit codes of all but the last positions.
class Ours {
 public:
  Ours(const Case& c, const std::vector<float>& q, const std::vector<std::uint16_t>& k, const std::vector<std::uint16_t>& v,
       int bits)
      : out_(q.size()) {
    a_ = {.shape = c.s,
          .tokens = c.tokens,
          .first = c.first(),
          .length = c.context,
          .q = {q.data(), c.q_width(), c.s.head_dim},
          .out = {out_.data(), c.q_width(), c.s.head_dim},
          .options = {}};
    kv_.keys = {k.data(), FloatType::f16, c.kv_width(), c.s.head_dim};
    kv_.values = {v.data(), FloatType::f16, c.kv_width(), c.s.head_dim};
    if (bits == 0) return;
    const Index bytes = kv_block_bytes(bits, c.s.head_dim), blocks = first_block_of_rows(c.context - 1, kv_.residual);
    codes_.resize(static_cast<std::size_t>(blocks * bytes * c.s.kv_heads + 64));
    std::vector<std::byte> scratch(static_cast<std::size_t>(encode_kv_scratch(c.s.head_dim)));
    Matrix keys(kv_block, c.s.head_dim), values(kv_block, c.s.head_dim);
    for (Index b = 0; b < blocks; ++b)
      for (Index h = 0; h < c.s.kv_heads; ++h) {
        for (Index p = 0; p < kv_block; ++p)
          for (Index j = 0; j < c.s.head_dim; ++j) {
            const auto at = static_cast<std::size_t>((b * kv_block + p) * c.kv_width() + h * c.s.head_dim + j);
            keys(p, j) = f16_to_f32(k[at]), values(p, j) = f16_to_f32(v[at]);
          }
        encode_kv(bits, keys.view(), values.view(), codes_.data() + (b * c.s.kv_heads + h) * bytes, scratch.data());
      }
    kv_.codes = {codes_.data(), bits, c.s.kv_heads * bytes, bytes};
  }
  void run(ThreadPool& pool) {
    const Index units = attention_units(a_), group = a_.shape.heads / a_.shape.kv_heads;
    const auto bytes = static_cast<std::size_t>(attention_workspace(a_, kv_));
    pool.parallel_for(units, group, [&](Index begin, Index end) {
      thread_local std::vector<std::byte> workspace;
      if (workspace.size() < bytes) workspace.resize(bytes);
      attention(a_, kv_, begin, end, workspace.data());
    });
  }
  const std::vector<float>& out() const { return out_; }
  Status state() const { return check(a_, kv_); }

 private:
  std::vector<float> out_;
  std::vector<std::byte> codes_;
  AttentionInputs a_;
  KvInputs kv_;
};

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    error += (x - y) * (x - y), size += y * y;
  }
  return std::sqrt(error / size);
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

void compare(const Case& c, Index threads, double seconds) {
  const auto q = normal_floats(1, c.tokens * c.q_width());
  // Decoding reads memory: several caches in turn, so that no cache level holds them.
  const Index copies = c.tokens > 1 ? 1 : 8;
  std::vector<std::vector<std::uint16_t>> k, v;
  std::vector<std::unique_ptr<Ggml>> ggml;
  std::vector<std::unique_ptr<Ours>> f16, four;
  for (Index i = 0; i < copies; ++i) {
    k.push_back(halves(normal_floats(static_cast<unsigned>(2 + 2 * i), c.context * c.kv_width())));
    v.push_back(halves(normal_floats(static_cast<unsigned>(3 + 2 * i), c.context * c.kv_width())));
  }
  for (Index i = 0; i < copies; ++i) {
    const auto at = static_cast<std::size_t>(i);
    ggml.push_back(std::make_unique<Ggml>(c, q, k[at], v[at]));
    f16.push_back(std::make_unique<Ours>(c, q, k[at], v[at], 0));
    four.push_back(std::make_unique<Ours>(c, q, k[at], v[at], 4));
    if (!f16.back()->state() || !four.back()->state()) std::abort();
  }
  ThreadPool pool(threads);
  std::vector<double> times[3];
  const auto now = [&] {
    timespec t{};
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const auto timed = [&](auto f) {
    const double begin = now();
    f();
    return now() - begin;
  };
  double sum = 0;
  for (std::size_t turn = 0; sum < seconds || turn < 2 * static_cast<std::size_t>(copies) + 3; ++turn) {
    const std::size_t at = turn % static_cast<std::size_t>(copies);
    const double all[3] = {timed([&] { ggml[at]->run(threads); }), timed([&] { f16[at]->run(pool); }),
                           timed([&] { four[at]->run(pool); })};
    if (turn < static_cast<std::size_t>(copies)) continue;  // to warm up
    for (std::size_t i = 0; i < 3; ++i) times[i].push_back(all[i]), sum += all[i];
  }
  const double peer = median(times[0]), ours = median(times[1]), codes = median(times[2]);
  std::printf(
      "%ld heads of %ld over %ld, %ld positions, %ld tokens, %ld threads: llama.cpp f16 %.3f ms, anybit f16 %.3f ms (%.2f x), "
      "4 bits %.3f ms (%.2f x); differences %.1e %.1e; %zu turns\n",
      static_cast<long>(c.s.heads), static_cast<long>(c.s.head_dim), static_cast<long>(c.s.kv_heads),
      static_cast<long>(c.context), static_cast<long>(c.tokens), static_cast<long>(threads), peer * 1e3, ours * 1e3, peer / ours,
      codes * 1e3, peer / codes, relative_error(f16[0]->out(), ggml[0]->out()), relative_error(four[0]->out(), ggml[0]->out()),
      times[0].size());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, Index otherwise) { return argc > i ? Index{std::atol(argv[i])} : otherwise; };
  const double seconds = argc > 1 ? std::atof(argv[1]) : 5;
  const AttentionShape s{number(3, 32), number(4, 32), number(5, 64)};
  const Index context = number(6, 4096), prompt = number(7, 512);
  for (const Index threads : {Index{1}, Index{2}})
    if (number(2, threads) == threads)
      for (const Index tokens : {prompt, Index{1}}) compare({s, context, tokens}, threads, seconds);
  return 0;
}
