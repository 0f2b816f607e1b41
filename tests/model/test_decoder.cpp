#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/nearest.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/format/superfloat.hpp>
#include <anybit/model/run.hpp>
#include <anybit/quantize/sites.hpp>

#include "model/naive_decoder.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::naive_forward;
using test_support::NaiveInputs;
using test_support::same_bits;

namespace {

Matrix random_matrix(std::mt19937& rng, Index rows, Index cols, float scale) {
  Matrix m(rows, cols);
  std::normal_distribution<float> normal(0, scale);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = normal(rng);
  return m;
}

Decoder random_decoder(DecoderConfig c, bool tied, unsigned seed) {
  std::mt19937 rng(seed);
  const auto linear = [&](Index rows, Index cols) {
    return Linear(random_matrix(rng, rows, cols, 1.5f / std::sqrt(static_cast<float>(cols))));
  };
  const auto gains = [&] {
    std::vector<float> g;
    for (Index j = 0; j < c.dim; ++j) g.push_back(0.5f + static_cast<float>(rng() % 1000) / 1000);
    return g;
  };
  Decoder d = make_decoder(llama_architecture, c);
  d.token_embedding() = Linear(random_matrix(rng, c.vocabulary, c.dim, 1));
  for (Index i = 0; i < c.blocks; ++i)
    test_support::set_llama_block(
        d, i,
        {gains(), gains(), linear(c.query_width(), c.dim), linear(c.kv_width(), c.dim), linear(c.kv_width(), c.dim),
         linear(c.dim, c.query_width()), linear(c.hidden, c.dim), linear(c.hidden, c.dim), linear(c.dim, c.hidden)});
  d.output_norm() = gains();
  if (!tied) d.head() = linear(c.vocabulary, c.dim);
  return d;
}

DecoderConfig shape(Index vocabulary, Index dim, Index hidden, Index blocks, Index heads, Index kv_heads, Index head_dim) {
  DecoderConfig c;
  c.vocabulary = vocabulary, c.dim = dim, c.hidden = hidden, c.blocks = blocks, c.heads = heads, c.kv_heads = kv_heads;
  c.head_dim = c.rotary_dim = head_dim, c.context = 128;
  return c;
}

std::vector<TokenId> some_ids(Index count, Index vocabulary) {
  std::vector<TokenId> ids;
  for (Index i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>((i * i * 7 + 3 * i + 1) % vocabulary));
  return ids;
}

double worst_difference(ConstMatrix logits, const std::vector<std::vector<double>>& truth, std::size_t first = 0) {
  double worst = 0;
  for (Index t = 0; t < logits.rows; ++t)
    for (Index j = 0; j < logits.cols; ++j)
      worst = std::max(worst, std::abs(static_cast<double>(logits(t, j)) -
                                       truth[first + static_cast<std::size_t>(t)][static_cast<std::size_t>(j)]));
  return worst;
}

}  // namespace

TEST_CASE("the forward pass agrees with a naive one in double precision") {
  struct Case {
    DecoderConfig config;
    bool tied;
    Index tokens;
  };
  auto scaled = shape(31, 24, 40, 2, 4, 2, 10);  // heads wider than dim / heads, partly rotated, scaled positions
  scaled.rotary_dim = 6;
  scaled.rope_scale = 4;
  scaled.rope_factors = {1, 2.5f, 8};
  scaled.rope_base = 500;
  for (const auto& [config, tied, tokens] :
       {Case{shape(37, 24, 44, 3, 6, 2, 4), true, 11}, Case{shape(5, 9, 7, 2, 3, 3, 6), false, 1},
        Case{shape(300, 96, 160, 2, 4, 2, 24), false, 70}, Case{shape(12, 1, 1, 1, 1, 1, 2), true, 5}, Case{scaled, false, 9}}) {
    CAPTURE(config.dim, tokens);
    const Decoder d = random_decoder(config, tied, 7);
    REQUIRE(check(d));
    const auto ids = some_ids(tokens, config.vocabulary);
    KvCache cache(cache_shape(d.config), tokens);
    const auto logits = forward(d, ids, cache);
    REQUIRE(logits);
    CHECK(logits->extents() == Extents{tokens, config.vocabulary});
    CHECK(worst_difference(logits->view(), naive_forward(d, ids)) < 1e-4);
    CHECK(cache.length() == tokens);
  }
}

TEST_CASE("tokens one by one, in pieces or all at once give the same logits") {
  const Decoder d = random_decoder(shape(61, 32, 48, 3, 4, 2, 8), true, 3);
  const auto ids = some_ids(75, 61);
  KvCache cache(cache_shape(d.config), 80);
  const auto whole = forward(d, ids, cache);
  REQUIRE(whole);
  for (const Index piece : {1, 7, 33, 74}) {
    CAPTURE(piece);
    cache.clear();
    for (Index at = 0; at < 75; at += piece) {
      const Index end = std::min<Index>(at + piece, 75);
      const auto logits =
          forward(d, std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(end - at)), cache);
      REQUIRE(logits);
      for (Index t = at; t < end; ++t)
        for (Index j = 0; j < 61; ++j) CHECK(std::abs((*logits)(t - at, j) - (*whole)(t, j)) < 1e-4f);
    }
  }
  cache.truncate(40);
  const auto again = forward(d, std::span(ids).subspan(40), cache, {.last_only = true});
  REQUIRE(again);
  CHECK(again->rows() == 1);
  for (Index j = 0; j < 61; ++j) CHECK(std::abs((*again)(0, j) - (*whole)(74, j)) < 1e-4f);
}

TEST_CASE("a decoder with a quantized KV cache: close to floats, the same bits in any pieces") {
  Decoder d = random_decoder(shape(61, 32, 48, 3, 4, 2, 8), true, 3);
  for_each_linear(d, [](const std::string&, Linear& l) {  // packed: their products do not depend on how many tokens come at once
    l = Linear(pack(quantize_nearest<Scheme<SInt<8>, PerGroup<16>, ScaleF32>>(l.dense()->view()).value()));
  });
  const auto ids = some_ids(150, 61);
  KvCache floats(cache_shape(d.config), 150);
  const auto exact = forward(d, ids, floats);
  REQUIRE(exact);
  double before = 0;
  for (const int bits : {8, 4, 2}) {
    CAPTURE(bits);
    KvCache cache(cache_shape(d.config), 150, {bits, 32, bits == 4});
    const auto whole = forward(d, ids, cache);
    REQUIRE(whole);
    double difference = 0, size = 0;
    for (Index i = 0; i < whole->extents().size(); ++i) {
      difference += std::pow(static_cast<double>(whole->data()[i]) - static_cast<double>(exact->data()[i]), 2);
      size += std::pow(static_cast<double>(exact->data()[i]), 2);
    }
    const double error = std::sqrt(difference / size);
    CHECK(error > before);
    if (bits == 8) CHECK(error < 0.02);
    before = error;
    cache.clear();
    for (const Index piece : {40, 1, 33, 76}) {
      const auto some =
          forward(d, std::span(ids).subspan(static_cast<std::size_t>(cache.length()), static_cast<std::size_t>(piece)), cache);
      REQUIRE(some);
      CHECK(same_bits(*some, Matrix(whole->view().row_range(cache.length() - piece, cache.length()))));
    }
  }
}

TEST_CASE("a decoder's attention multiplies in bfloat16 where a run says so and the processor does") {
  const Decoder d = random_decoder(shape(61, 32, 48, 3, 4, 2, 8), true, 3);
  const auto ids = some_ids(75, 61);
  KvCache cache(cache_shape(d.config), 75);
  const auto exact = forward(d, ids, cache);
  cache.clear();
  const auto rounded = forward(d, ids, cache, {.attention = Compute::bf16});
  REQUIRE(exact);
  REQUIRE(rounded);
  CHECK(kernel::detail::attends_in_bf16<kernel::native_arch>({.compute = Compute::bf16}) != same_bits(*exact, *rounded));
  double difference = 0, size = 0;
  for (Index i = 0; i < exact->extents().size(); ++i) {
    difference += std::pow(static_cast<double>(rounded->data()[i]) - static_cast<double>(exact->data()[i]), 2);
    size += std::pow(static_cast<double>(exact->data()[i]), 2);
  }
  CHECK(std::sqrt(difference / size) < 0.02);
}

TEST_CASE("the same bits for any number of threads") {
  const Decoder d = random_decoder(shape(301, 96, 164, 2, 6, 3, 16), false, 5);
  const auto ids = some_ids(300, 301);
  KvCache cache(cache_shape(d.config), 301);
  const auto prompt = forward(d, ids, cache);
  const TokenId next[] = {17};
  const auto step = forward(d, next, cache);
  REQUIRE(prompt);
  REQUIRE(step);
  for (const Index threads : {1, 2, 3, 8}) {
    CAPTURE(threads);
    ThreadPool pool(threads);
    cache.clear();
    CHECK(same_bits(*forward(d, ids, cache, {.executor = pool}), *prompt));
    CHECK(same_bits(*forward(d, next, cache, {.executor = pool}), *step));
  }
}

TEST_CASE("captured inputs are those of the linears") {
  const Decoder d = random_decoder(shape(23, 16, 20, 2, 4, 2, 4), true, 11);
  const auto ids = some_ids(6, 23);
  NaiveInputs truth;
  truth.block = 1;
  naive_forward(d, ids, &truth);
  KvCache cache(cache_shape(d.config), 6);
  std::vector<SiteId> order;
  const std::vector<Tap> taps = site_taps(*d.blueprint, [&](SiteId site, ConstMatrix x) {
    order.push_back(site);
    const SiteSpec& spec = (*d.blueprint)[site];
    if (spec.block != 1) return;
    const auto& expected = spec.name == "attn_q"        ? truth.attn
                           : spec.name == "attn_output" ? truth.mixed
                           : spec.name == "ffn_gate"    ? truth.ffn
                                                        : truth.product;
    CHECK(x.rows == 6);
    CHECK(x.cols == spec.inputs);
    CHECK(worst_difference(x, expected) < 1e-4);
  });
  REQUIRE(forward(d, ids, cache, {.taps = taps}));

  Decoder copy = d;
  std::vector<SiteId> groups;
  for (const SiblingGroup& g : sibling_groups(copy)) groups.push_back(g.id);
  CHECK(order == groups);
}

TEST_CASE("sibling groups name the linears and what feeds them") {
  Decoder d = random_decoder(shape(23, 16, 20, 2, 4, 2, 4), true, 11);
  const auto groups = sibling_groups(d);
  REQUIRE(groups.size() == 8);
  CHECK(groups[4].linears.size() == 3);
  CHECK(groups[4].linears[1].name == "blk.1.attn_k.weight");
  CHECK(groups[4].linears[1].linear == &d.linear(1, "attn_k"));
  CHECK(groups[4].norm_gain == &d.values(1, "attn_norm"));
  CHECK(groups[5].upstream == &d.linear(1, "attn_v"));
  CHECK(groups[5].producer.fan_out == 2);
  CHECK(groups[7].upstream == &d.linear(1, "ffn_up"));
  std::vector<std::string> names;
  for_each_linear(d, [&](const std::string& name, const Linear&) { names.push_back(name); });
  CHECK(names.size() == 1 + 2 * 7);
  CHECK(names.front() == "token_embd.weight");
  CHECK(names.back() == "blk.1.ffn_down.weight");
}

TEST_CASE("scales fold into norm gains and upstream rows without changing the model") {
  const Index kv_heads = GENERATE(4, 2, 1);
  const Decoder d = random_decoder(shape(23, 16, 20, 2, 4, kv_heads, 4), true, 13);
  Decoder folded = d;
  std::mt19937 rng(1);
  for (const SiblingGroup& g : sibling_groups(folded)) {
    const Index inputs = g.linears[0].linear->extents().cols;
    std::vector<float> s;
    for (Index j = 0; j < inputs; ++j) s.push_back(0.5f + static_cast<float>(rng() % 100) / 50);
    const std::vector<Index> tied = tied_inputs(g);
    CHECK(tied.empty() == (g.norm_gain || g.producer.fan_out == 1));
    for (std::size_t j = 0; j < tied.size(); ++j) s[j] = s[static_cast<std::size_t>(tied[j])];
    for (const auto& [name, linear, clippable] : g.linears) {
      Matrix w = *linear->dense();
      for (Index r = 0; r < w.rows(); ++r)
        for (Index j = 0; j < inputs; ++j) w(r, j) *= s[static_cast<std::size_t>(j)];
      *linear = Linear(std::move(w));
    }
    if (g.norm_gain) {
      for (std::size_t j = 0; j < s.size(); ++j) (*g.norm_gain)[j] /= s[j];
    } else {
      Matrix w = *g.upstream->dense();
      const std::vector<float> divisor = upstream_divisor(g, s);
      for (Index r = 0; r < w.rows(); ++r)
        for (Index j = 0; j < w.cols(); ++j) w(r, j) /= divisor[static_cast<std::size_t>(r)];
      *g.upstream = Linear(std::move(w));
    }
  }
  const auto ids = some_ids(9, 23);
  KvCache a(cache_shape(d.config), 9), b(cache_shape(d.config), 9);
  const auto before = forward(d, ids, a), after = forward(folded, ids, b);
  for (Index i = 0; i < 9 * 23; ++i) CHECK(std::abs(before->data()[i] - after->data()[i]) < 1e-3f);
}

TEST_CASE("wrong input to the forward pass is an error") {
  const Decoder d = random_decoder(shape(23, 16, 20, 1, 4, 2, 4), true, 11);
  KvCache cache(cache_shape(d.config), 4);
  const auto message = [&](std::vector<TokenId> ids) { return forward(d, ids, cache).error().message; };
  CHECK(message({}).find("no tokens") != std::string::npos);
  CHECK(message({1, 23}).find("token 1 has the id 23, outside the vocabulary of 23") != std::string::npos);
  CHECK(message({-1}).find("id -1") != std::string::npos);
  CHECK(message({1, 2, 3, 4, 5}).find("5 tokens after 0 exceed the KV cache of 4 positions") != std::string::npos);
  CHECK(cache.length() == 0);
}

TEST_CASE("contradictory configurations and shapes are errors") {
  const auto good = shape(23, 16, 20, 1, 4, 2, 4);
  CHECK(check(good));
  const auto message = [&](auto change) {
    DecoderConfig c = good;
    change(c);
    const auto status = check(c);
    return status ? std::string() : status.error().message;
  };
  CHECK(message([](auto& c) { c.kv_heads = 3; }).find("head count 4 is no multiple of the key-value head count 3") !=
        std::string::npos);
  CHECK(message([](auto& c) { c.kv_heads = 0; }).find("key-value head count is 0") != std::string::npos);
  CHECK(message([](auto& c) { c.dim = -1; }).find("embedding length is -1") != std::string::npos);
  CHECK(message([](auto& c) { c.rotary_dim = 3; }).find("rotary length 3") != std::string::npos);
  CHECK(message([](auto& c) { c.rotary_dim = 6; }).find("rotary length 6") != std::string::npos);
  CHECK(message([](auto& c) { c.norm_epsilon = 0; }).find("epsilon") != std::string::npos);
  CHECK(message([](auto& c) { c.rope_base = std::nanf(""); }).find("rope base") != std::string::npos);
  CHECK(message([](auto& c) { c.rope_factors = {1}; }).find("1 rope factors for 2") != std::string::npos);
  CHECK(message([](auto& c) { c.heads = c.kv_heads = 1 << 30, c.head_dim = 64; }).find("too wide") != std::string::npos);
  CHECK(message([](auto& c) { c.head_dim = 1 << 30; }).find("head length is 1073741824, more than") != std::string::npos);

  Decoder d = random_decoder(good, true, 1);
  CHECK(check(d));
  d.linear(0, "ffn_up") = Linear(Matrix(20, 15));
  CHECK(check(d).error().message.find("tensor blk.0.ffn_up.weight is 20 x 15, the configuration needs 20 x 16") !=
        std::string::npos);
  d = random_decoder(good, true, 1);
  d.output_norm().pop_back();
  CHECK(check(d).error().message.find("output_norm.weight") != std::string::npos);
}

TEST_CASE("packed linears compute what their dequantized weights compute") {
  using Scheme4 = Scheme<Superfloat<4>, PerGroup<7>, ScaleF16, BitStream>;
  using Scheme8 = Scheme<Superfloat<8>, PerGroup<32>, ScaleF32, BitStream>;
  Decoder floats = random_decoder(shape(41, 24, 37, 2, 6, 2, 4), true, 17);
  Decoder packed = floats;
  const auto quantized = [](const Linear& from, auto scheme) {
    using S = decltype(scheme);
    const auto q = Nearest<S>{}.quantize(from.dense()->view(), Stats(from.extents().cols, Needs::none), {});
    REQUIRE(q);
    return pack(q->matrix);
  };
  std::vector<Linear*> replaced;  // in `floats`, in the order of for_each_linear
  for_each_linear(floats, [&](const std::string&, Linear& l) { replaced.push_back(&l); });
  std::size_t i = 0;
  for_each_linear(packed, [&](const std::string& name, Linear& l) {
    Linear& twin = *replaced[i++];
    if (name.find("ffn_up") != std::string::npos) return;  // one kind stays in floats
    l = i % 2 ? Linear(quantized(twin, Scheme4{})) : Linear(quantized(twin, Scheme8{}));
    Matrix w(l.extents().rows, l.extents().cols);
    for (Index r = 0; r < w.rows(); ++r) l.read_row(r, w.view().row(r));
    twin = Linear(std::move(w));
  });
  REQUIRE(check(packed));
  CHECK(packed.token_embedding().dense() == nullptr);
  CHECK(packed.linear(0, "ffn_up").packed() == nullptr);
  CHECK(packed.linear(0, "ffn_up").bits_per_weight() == 32);
  CHECK(packed.linear(0, "attn_q").packed()->scheme_name() != packed.linear(0, "attn_k").packed()->scheme_name());

  const auto ids = some_ids(13, 41);
  const auto truth = naive_forward(floats, ids);
  KvCache cache(cache_shape(packed.config), 14);
  const auto prompt = forward(packed, ids, cache);
  REQUIRE(prompt);
  CHECK(worst_difference(prompt->view(), truth) < 1e-3);
  cache.clear();
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const auto one = forward(packed, std::span(ids).subspan(t, 1), cache);
    REQUIRE(one);
    CHECK(worst_difference(one->view(), truth, t) < 1e-3);
  }
  for (const Index threads : {2, 3}) {
    ThreadPool pool(threads);
    cache.clear();
    CHECK(same_bits(*forward(packed, ids, cache, {.executor = pool}), *prompt));
  }
}
