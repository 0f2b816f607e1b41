// A whole decoder in the shape of SmolLM2-135M with random weights: a prompt of 512 tokens, then 128 tokens one by one.
// `linears` is the share of the time that the products with weights take, from calling them alone, in turns with the whole.

#include <array>
#include <functional>

#include <anybit/kernel/any_packed.hpp>
#include <anybit/model/arch/llama.hpp>
#include <anybit/model/run.hpp>
#include <anybit/quantize/one_shot.hpp>

#include "product_setup.hpp"

namespace {

using namespace bench;
using namespace anybit::model;
using namespace anybit::nn;

constexpr Index prompt_tokens = 512, decode_tokens = 128;

DecoderConfig smollm2_135m() {
  DecoderConfig c;
  c.vocabulary = 49152, c.dim = 576, c.hidden = 1536, c.blocks = 30, c.heads = 9, c.kv_heads = 3;
  c.head_dim = c.rotary_dim = 64, c.context = 2048, c.rope_base = 100000;
  return c;
}

/// Weights of a linear, made the same way every time. Uniform: the values matter to no speed.
Matrix random_weights(Index outputs, Index inputs, unsigned seed) {
  Matrix m(outputs, inputs);
  std::uint32_t state = 2654435761u * (seed + 1);
  const float scale = 1.5f / std::sqrt(static_cast<float>(inputs));
  for (Index i = 0; i < m.extents().size(); ++i) {
    state = state * 1664525u + 1013904223u;
    m.data()[i] = scale * (static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1);
  }
  return m;
}

using MakeLinear = std::function<Linear(Matrix, bool outside_blocks)>;

Decoder random_decoder(const MakeLinear& make) {
  Decoder d = make_decoder(llama_architecture, smollm2_135m());
  const DecoderConfig& c = d.config;
  const std::vector<float> gains(static_cast<std::size_t>(c.dim), 1.0f);
  unsigned seed = 0;
  const auto linear = [&](Index outputs, Index inputs) { return make(random_weights(outputs, inputs, ++seed), false); };
  d.token_embedding() = make(random_weights(c.vocabulary, c.dim, ++seed), true);
  for (std::size_t i = 0; i < d.weights.size(); ++i) {
    const WeightSpec& spec = d.blueprint->weights[i];
    if (spec.block == no_block) continue;
    if (spec.multiplies())
      d.weights[i].linear = linear(spec.shape.rows, spec.shape.cols);
    else
      d.weights[i].values = gains;
  }
  d.output_norm() = gains;
  return d;
}

/// What is benchmarked under one name; the head is tied to the embedding and runs like the other linears.
struct Variant {
  std::string scheme, compute;
  MakeLinear make;
  KvCacheConfig kv{};
};
template <AnyScheme S>
Variant packed(Compute compute) {
  return {std::string(S::name.view()),
          std::string(name(compute)),
          [compute](Matrix w, bool outside_blocks) {
            if (outside_blocks) return Linear(AnyPacked(pack(quantize_nearest<EmbeddingScheme>(w.view()).value())), compute);
            return Linear(AnyPacked(pack(quantize_nearest<S>(w.view()).value())), compute);
          },
          {}};
}
/// The same with a quantized KV cache.
Variant with_cache(Variant v, int bits) {
  v.kv.bits = bits;
  return v;
}

/// The decoder of a variant; the one before goes, because each takes some hundred megabytes.
const Decoder& decoder_of(const Variant& v) {
  static std::string which;
  static Decoder d;
  if (const std::string title = v.scheme + "/" + v.compute; which != title) {
    d = Decoder();
    d = random_decoder(v.make);
    which = title;
  }
  return d;
}

/// Every product of one forward pass of `tokens` tokens of which the last gets logits, and nothing else.
class LinearsAlone {
 public:
  LinearsAlone(const DecoderConfig& c, Index tokens)
      : x_(normal(tokens, std::max(c.hidden, c.dim), 3, 1)), y_(tokens, std::max(c.hidden, c.dim)), logits_(1, c.vocabulary) {}

  void operator()(const Decoder& d, ExecutorRef executor) {
    const auto apply = [&](const Linear& l) {
      l.apply({x_.data(), x_.rows(), l.extents().cols}, {y_.data(), y_.rows(), l.extents().rows}, executor, workspace_);
    };
    for (const WeightId id : d.blueprint->linears) apply(d[id].linear);
    d.output_head().apply({x_.data(), 1, d.config.dim}, logits_.view(), executor, workspace_);
  }

 private:
  Matrix x_, y_, logits_;
  Workspace workspace_;
};

void run(benchmark::State& state, const Variant& v, bool decode, Index threads) {
  const Decoder& d = decoder_of(v);
  ThreadPool pool(threads);
  KvCache cache(cache_shape(d.config), prompt_tokens + decode_tokens, v.kv);
  std::vector<TokenId> ids;
  for (Index i = 0; i < prompt_tokens + decode_tokens; ++i) ids.push_back(static_cast<TokenId>(i * 7919 % d.config.vocabulary));
  const Run options{.executor = pool, .last_only = true};
  const auto step = [&](Index begin, Index end) {
    const auto part = std::span(ids).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    const auto logits = forward(d, part, cache, options);
    ANYBIT_CHECK(logits && std::isfinite((*logits)(0, 0)), "bench_model: the forward pass failed");
  };
  LinearsAlone linears(d.config, decode ? 1 : prompt_tokens);
  if (decode) step(0, prompt_tokens);
  Samples whole, products;
  for (auto _ : state) {
    cache.truncate(decode ? prompt_tokens : 0);
    whole.time([&] {
      if (!decode) return step(0, prompt_tokens);
      for (Index t = prompt_tokens; t < prompt_tokens + decode_tokens; ++t) step(t, t + 1);
    });
    state.PauseTiming();
    products.time([&] {
      for (Index i = 0; i < (decode ? decode_tokens : 1); ++i) linears(d, pool);
    });
    state.ResumeTiming();
  }
  double bits = 0, weights = 0;
  for_each_linear(d, [&](const std::string&, const Linear& l) {
    bits += 8 * static_cast<double>(l.payload_bytes());
    weights += static_cast<double>(l.extents().size());
  });
  const double t = median(whole.wall), tokens = static_cast<double>(decode ? decode_tokens : prompt_tokens);
  state.counters["tokens/s"] = tokens / t;
  state.counters["linears"] = median(products.wall) / t;
  state.counters["bits"] = bits / weights;
  state.counters["kv_bits"] = cache.bits_per_value();
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const Variant variants[] = {
      {"float", "f32", [](Matrix w, bool) { return Linear(std::move(w)); }, {}},
      packed<presets::ScaledSuperfloat<4>>(Compute::f32),
      packed<presets::ScaledSuperfloat<4>>(Compute::int8_per_token),
      with_cache(packed<presets::ScaledSuperfloat<4>>(Compute::int8_per_token), 16),
      with_cache(packed<presets::ScaledSuperfloat<4>>(Compute::int8_per_token), 8),
      with_cache(packed<presets::ScaledSuperfloat<4>>(Compute::int8_per_token), 4),
      with_cache(packed<presets::ScaledSuperfloat<4>>(Compute::int8_per_token), 3),
      with_cache(packed<presets::ScaledSuperfloat<4>>(Compute::int8_per_token), 2),
      packed<presets::ScaledSuperfloat<8>>(Compute::int8_per_token),
      packed<presets::Int8PerRow>(Compute::int8_per_token),
  };
  for (const Variant& v : variants)
    for (const bool decode : {false, true})
      for (const Index threads : {1, 2}) {
        const std::string title = std::string(decode ? "decode" : "prompt") + "/" + v.scheme + "/" + v.compute +
                                  (v.kv.quantized() ? "/kv:" + std::to_string(v.kv.bits) : "") +
                                  "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(title.c_str(), [=, &v](benchmark::State& state) { run(state, v, decode, threads); })
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
  benchmark::RunSpecifiedBenchmarks();
}
