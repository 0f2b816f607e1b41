// Blueprints and taps: what a model is made of, and what can be read and changed while it runs.

#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/run.hpp>

#include "model/random_decoder.hpp"
#include "model/random_ids.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace anybit;
using namespace anybit::model;
using namespace anybit::nn;
using test_support::ids;
using test_support::random_decoder;
using test_support::same_bits;

namespace {

Result<Matrix> tapped(const Decoder& d, std::span<const Tap> taps) {
  KvCache cache(cache_shape(d.config), 20);
  return forward(d, ids(20, 1), cache, {.taps = taps});
}

}  // namespace

TEST_CASE("a blueprint: weights by name, sites in the order of the pass, those that fold into linears before their readers") {
  const Decoder d = random_decoder(2);
  const Blueprint& b = *d.blueprint;
  CHECK(b[b.embedding].name == "token_embd.weight");
  CHECK(b[b.head].optional);
  CHECK((b[d.weight(1, "attn_k")].shape == Extents{16, 32}));
  CHECK(b.sites.size() == 8);
  CHECK(b.linears.size() == 14);
  const std::vector<SiteId> sites = b.sites_of(1);
  REQUIRE(sites.size() == 4);
  CHECK(b[sites[1]].producer.weight == d.weight(1, "attn_v"));
  CHECK(b[sites[1]].producer.fan_out == 2);
  CHECK(b[sites[2]].first_reader == 11);
  const auto order = b.quantization_order(1);
  REQUIRE(order.size() == 2);
  CHECK((order[0] == std::vector<SiteId>{d.site(1, "attn_output"), d.site(1, "attn_q")}));
  CHECK((order[1] == std::vector<SiteId>{d.site(1, "ffn_down"), d.site(1, "ffn_gate")}));
  CHECK(find_architecture("qwen2") == &qwen2_architecture);
  CHECK(find_architecture("gpt5") == nullptr);
  CHECK(architecture_names().starts_with("'llama', "));
  CHECK(architecture_names().find("'opt'") == std::string::npos);  // not in GGUF
  CHECK(find_model_type("mistral") == &llama_architecture);
  CHECK(find_model_type("gpt5") == nullptr);
  CHECK(hugging_face_name(llama_architecture, d.config, "blk.12.ffn_norm.weight") ==
        "model.layers.12.post_attention_layernorm.weight");
  CHECK(hugging_face_name(llama_architecture, d.config, "blk.12.no_such").empty());
}

TEST_CASE("a chain of linears is quantized from its end") {
  Blueprint b;
  b.weights.resize(3);
  const auto site = [&](const char* name, unsigned reader, Producer producer) {
    b.sites.push_back({.block = 0, .name = name, .readers = {static_cast<WeightId>(reader)}, .producer = producer});
  };
  site("first", 0, {});
  site("second", 1, {Producer::Kind::linear, static_cast<WeightId>(0)});
  site("third", 2, {Producer::Kind::linear, static_cast<WeightId>(1)});
  const auto order = b.finish(1).quantization_order(0);
  REQUIRE(order.size() == 1);
  CHECK((order[0] == std::vector<SiteId>{static_cast<SiteId>(2), static_cast<SiteId>(1), static_cast<SiteId>(0)}));
}

TEST_CASE("taps are called at every point in the order of the pass, and change nothing that they only read") {
  const Decoder d = random_decoder(2);
  std::vector<std::string> seen;
  std::vector<Tap> taps;
  std::vector<std::string> expected;
  for (const Point p : llama_architecture.points) {
    if (p == Point::router || is_of_expert(p)) continue;  // of blocks with experts
    expected.emplace_back(name(p));
    taps.push_back({1, p, [&seen, p](MutableMatrix x, TokenRange positions) {
                      seen.emplace_back(name(p));
                      CHECK(x.rows == 20);
                      CHECK((positions.begin == 0 && positions.end == 20));
                    }});
  }
  const Matrix logits = tapped(d, taps).value();
  CHECK(expected.size() == 13);
  CHECK(seen == expected);
  CHECK(same_bits(logits, tapped(d, {}).value()));
}

TEST_CASE("a tap that writes changes what comes after it") {
  const Decoder d = random_decoder(2);
  const auto zero = [](MutableMatrix x, TokenRange) {
    for (Index t = 0; t < x.rows; ++t) std::fill(x.row(t).begin(), x.row(t).end(), 0.0f);
  };
  // No attention and no MLP in any block: the residual stream stays the embedding.
  Matrix first, last;
  const Tap taps[] = {{Tap::every_block, Point::attn_out, zero},
                      {Tap::every_block, Point::mlp_out, zero},
                      {0, Point::embedding, [&](MutableMatrix x, TokenRange) { first = Matrix(x); }},
                      {1, Point::residual, [&](MutableMatrix x, TokenRange) { last = Matrix(x); }}};
  REQUIRE(tapped(d, taps));
  CHECK(same_bits(first, last));
  // The same by weights.
  Decoder without = d;
  for (Index i = 0; i < 2; ++i)
    without.linear(i, "attn_output") = Linear(Matrix(32, 32)), without.linear(i, "ffn_down") = Linear(Matrix(32, 56));
  CHECK(same_bits(tapped(d, std::span(taps).first(2)).value(), tapped(without, {}).value()));
  // Positions continue behind what the cache holds.
  KvCache cache(cache_shape(d.config), 20);
  REQUIRE(forward(d, ids(12, 1), cache));
  Index begin = 0;
  const Tap tap{0, Point::q, [&](MutableMatrix, TokenRange positions) { begin = positions.begin; }};
  REQUIRE(forward(d, ids(3, 1), cache, {.taps = {&tap, 1}}));
  CHECK(begin == 12);
}

TEST_CASE("a pass in pieces gives the bits of the whole one") {
  const Decoder d = random_decoder(2);
  const auto tokens = ids(20, 1);
  KvCache cache(cache_shape(d.config), 20);
  Pass pass(d, 20);
  Matrix x(20, 32), normed(20, 32);
  pass.embed(tokens, x.view(), {});
  Matrix before(x.view());
  for (Index i = 0; i < 2; ++i) pass.block(d.block(i), i, i, cache, x.view(), {});
  pass.finish(x.view(), normed.view(), {});
  KvCache other(cache_shape(d.config), 20);
  CHECK(same_bits(normed, hidden_states(d, tokens, other).value()));
  CHECK(same_bits(before, [&] {
    Matrix again(20, 32);
    pass.embed(tokens, again.view(), {});
    return again;
  }()));
  // It ends behind the taps at a point, and may begin at the feed-forward part.
  bool down = false;
  const Tap tap{0, Point::mlp_hidden, [&](MutableMatrix, TokenRange) { down = true; }};
  pass.block(d.block(0), 0, 0, cache, before.view(), {.taps = {&tap, 1}}, Point::attn_in, Point::mlp_in);
  CHECK_FALSE(down);
  pass.block(d.block(0), 0, 0, cache, before.view(), {.taps = {&tap, 1}}, Point::mlp_in, Point::mlp_hidden);
  CHECK(down);
}

TEST_CASE("taps that cannot be are errors that say what can") {
  const Decoder d = random_decoder(2);
  const Tap far{2, Point::attn_in, [](MutableMatrix, TokenRange) {}};
  CHECK(tapped(d, {&far, 1}).error().message == "forward: a tap is in block 2, the model has 2, counted from 0");
  const Tap routed{1, Point::router, [](MutableMatrix, TokenRange) {}};
  CHECK(tapped(d, {&routed, 1}).error().message ==
        "forward: a tap is at router in block 1, where no pass comes by: the model has no experts");
  Architecture small = llama_architecture;
  constexpr std::array points{Point::embedding, Point::residual};
  small.points = points;
  Decoder other = make_decoder(small, d.config);
  other.weights = d.weights;
  const Tap nowhere{0, Point::attn_in, [](MutableMatrix, TokenRange) {}};
  CHECK(tapped(other, {&nowhere, 1}).error().message ==
        "forward: a tap is at attn_in, which the llama architecture has not: it has embedding, residual");
}
