#pragma once
// A small engine over a llama2.c checkpoint with anybit's kernels under it. Its own are the memory, the cache of keys and values,
// the threads and the pass; anybit reads the file, quantizes, rounds activations once for q, k, v and for gate, up, and
// multiplies.

#include <anybit/io/llama2c.hpp>
#include <anybit/kernel/attention.hpp>
#include <anybit/kernel/gated_rows.hpp>
#include <anybit/tensor/quantize.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

using namespace anybit;
using Int8 = Scheme<SInt<8>, PerGroup<32>, ScaleF16>;

struct Layer {
  std::span<const float> attn_norm, ffn_norm;
  AnyPacked q, k, v, o, gate, up, down;
};

struct Engine {
  io::Llama2cConfig c;
  Matrix embedding;
  std::vector<float> norms;
  std::vector<Layer> layers;
  AnyPacked head;
  Compute compute;
  AlignedBuffer arena;       // all prepared weights
  std::vector<float> cache;  // per layer: positions x (keys, values)
  Index position = 0;
  Workspace workspace;

  Engine(const io::Llama2cFile& file, Compute how) : c(file.config()), compute(how) {
    const auto floats = [&](const std::string& name) {
      const std::span<const std::byte> b = file.find(name)->bytes;
      return std::span(reinterpret_cast<const float*>(b.data()), b.size() / sizeof(float));
    };
    const auto packed = [&](const std::string& name, Index rows, Index cols) {
      return AnyPacked(pack(quantize_nearest<Int8>(ConstMatrix(floats(name).data(), rows, cols)).value()));
    };
    embedding = Matrix(ConstMatrix(floats("token_embd.weight").data(), c.vocab_size, c.dim));
    head = packed(c.shared_classifier ? "token_embd.weight" : "output.weight", c.vocab_size, c.dim);
    const auto norm = floats("output_norm.weight");
    norms.assign(norm.begin(), norm.end());
    for (Index l = 0; l < c.n_layers; ++l) {
      const std::string at = "blk." + std::to_string(l) + ".";
      layers.push_back({floats(at + "attn_norm.weight"), floats(at + "ffn_norm.weight"),
                        packed(at + "attn_q.weight", c.dim, c.dim), packed(at + "attn_k.weight", c.kv_dim(), c.dim),
                        packed(at + "attn_v.weight", c.kv_dim(), c.dim), packed(at + "attn_output.weight", c.dim, c.dim),
                        packed(at + "ffn_gate.weight", c.hidden_dim, c.dim), packed(at + "ffn_up.weight", c.hidden_dim, c.dim),
                        packed(at + "ffn_down.weight", c.dim, c.hidden_dim)});
    }
    // One arena for the order of weights that products read fastest: sizes first.
    std::vector<AnyPacked*> all{&head};
    for (Layer& l : layers) all.insert(all.end(), {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down});
    std::size_t size = 0;
    for (AnyPacked* w : all) size += static_cast<std::size_t>(w->prepared_bytes(compute));
    arena = AlignedBuffer(size);
    auto left = arena.bytes();
    for (AnyPacked* w : all) {
      const auto bytes = static_cast<std::size_t>(w->prepared_bytes(compute));
      if (bytes > 0) w->prepare_into(left.first(bytes), compute).value();
      left = left.subspan(bytes);
    }
    cache.resize(static_cast<std::size_t>(c.n_layers * c.seq_len * 2 * c.kv_dim()));
  }

  /// work(begin, end) on two threads; the border is a multiple of 64 rows.
  template <class Work>
  static void on_two_threads(Index rows, Work&& work) {
    const Index half = rows / 2 / 64 * 64;
    if (half == 0) return work(Index{0}, rows);
    std::thread other([&] { work(Index{0}, half); });
    work(half, rows);
    other.join();
  }
  Matrix normalized(const Matrix& x, std::span<const float> gain) const {
    Matrix out(x.rows(), x.cols());
    for (Index t = 0; t < x.rows(); ++t) {
      float squares = 0;
      for (const float v : x.view().row(t)) squares += v * v;
      const float scale = 1 / std::sqrt(squares / static_cast<float>(x.cols()) + 1e-5f);
      for (Index j = 0; j < x.cols(); ++j) out(t, j) = x(t, j) * scale * gain[static_cast<std::size_t>(j)];
    }
    return out;
  }
  void rotate(MutableMatrix x) const {
    for (Index t = 0; t < x.rows; ++t)
      for (Index j = 0; j < x.cols; j += 2) {
        const auto exponent = static_cast<float>(j % c.head_dim()) / static_cast<float>(c.head_dim());
        const float angle = static_cast<float>(position + t) * std::pow(10000.0f, -exponent);
        const float a = x(t, j), b = x(t, j + 1);
        x(t, j) = a * std::cos(angle) - b * std::sin(angle), x(t, j + 1) = a * std::sin(angle) + b * std::cos(angle);
      }
  }
  /// Rounds x once and multiplies with each of these; where `add`, results are added to y.
  void products(const Matrix& x, std::initializer_list<std::pair<const AnyPacked*, MutableMatrix>> all, bool add = false) {
    ActivationPlan plan = all.begin()->first->plan(compute);
    for (const auto& [w, y] : all)
      if (!plan.join(w->plan(compute))) std::abort();
    const Activations a = round_activations(x.view(), plan, workspace);
    for (const auto& [w, y] : all) {
      const OutputTokens to = add ? OutputTokens(y).added() : OutputTokens(y);
      on_two_threads(y.cols, [&, w = w](Index begin, Index end) { w->matmul_rows(a, to, begin, end); });
    }
  }

  /// Logits behind the last of these tokens.
  std::vector<float> forward(std::span<const int> tokens) {
    const Index n = static_cast<Index>(tokens.size()), kv = c.kv_dim(), length = position + n;
    Matrix x(n, c.dim), q(n, c.dim), mixed(n, c.dim), hidden(n, c.hidden_dim), logits(1, c.vocab_size);
    for (Index t = 0; t < n; ++t)
      std::ranges::copy(embedding.view().row(tokens[static_cast<std::size_t>(t)]), x.view().row(t).begin());
    float* rows = cache.data();
    for (const Layer& l : layers) {
      const MutableMatrix k(rows + position * 2 * kv, n, kv, 2 * kv), v(k.data + kv, n, kv, 2 * kv);
      products(normalized(x, l.attn_norm), {{&l.q, q.view()}, {&l.k, k}, {&l.v, v}});
      rotate(q.view()), rotate(k);
      kernel::AttentionInputs a{.shape = {.heads = c.n_heads, .kv_heads = c.n_kv_heads, .head_dim = c.head_dim()},
                                .tokens = n,
                                .first = position,
                                .length = length,
                                .q = {q.data(), c.dim, c.head_dim()},
                                .out = {mixed.data(), c.dim, c.head_dim()},
                                .options = {}};
      kernel::KvInputs in;
      in.keys = {rows, FloatType::f32, 2 * kv, c.head_dim()}, in.values = {rows + kv, FloatType::f32, 2 * kv, c.head_dim()};
      AlignedBuffer scratch(static_cast<std::size_t>(kernel::attention_workspace(a, in)));
      kernel::attention(a, in, 0, kernel::attention_units(a), scratch.data());
      products(mixed, {{&l.o, x.view()}}, true);
      ActivationPlan plan = l.gate.plan(compute);
      if (!plan.join(l.up.plan(compute))) std::abort();
      const Matrix normed = normalized(x, l.ffn_norm);
      const Activations both = round_activations(normed.view(), plan, workspace);
      on_two_threads(c.hidden_dim, [&](Index begin, Index end) { gated_rows(l.gate, l.up, both, hidden.view(), begin, end); });
      products(hidden, {{&l.down, x.view()}}, true);
      rows += c.seq_len * 2 * kv;
    }
    position = length;
    products(normalized(Matrix(x.view().row_range(n - 1, n)), norms), {{&head, logits.view()}});
    return {logits.data(), logits.data() + c.vocab_size};
  }
};
