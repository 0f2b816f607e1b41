// The operations of a model in reference/: small cases by hand, and laws.

#include <cmath>

#include <anybit/reference/decoder_block.hpp>
#include <anybit/reference/kl.hpp>
#include <anybit/reference/perplexity.hpp>
#include <anybit/reference/quarot.hpp>

#include "reference/vectors.hpp"

using namespace anybit;
using namespace reference_tests;

namespace {

ref::DecoderBlock some_block(Index dim, Index heads, Index kv_heads, Index head_dim, Index hidden) {
  return {.attn_norm = some_matrix(1, dim, 1).row(0),
          .ffn_norm = some_matrix(1, dim, 2).row(0),
          .q = some_matrix(heads * head_dim, dim, 3),
          .k = some_matrix(kv_heads * head_dim, dim, 4),
          .v = some_matrix(kv_heads * head_dim, dim, 5),
          .o = some_matrix(dim, heads * head_dim, 6),
          .gate = some_matrix(hidden, dim, 7),
          .up = some_matrix(hidden, dim, 8),
          .down = some_matrix(dim, hidden, 9)};
}

}  // namespace

TEST_CASE("reference: norms, by hand") {
  ref::Matrix x(1, 2);
  x.values = {3, -4};
  const ref::Matrix r = ref::rms_norm(x, {1, 2}, 0), l = ref::layer_norm(x, {1, 2}, {0, 5}, 0);
  CHECK(r(0, 0) == Approx(3 / std::sqrt(12.5)));
  CHECK(r(0, 1) == Approx(-8 / std::sqrt(12.5)));
  CHECK((l(0, 0) == Approx(1) && l(0, 1) == Approx(3)));
}

TEST_CASE("reference: activations, by hand") {
  CHECK((ref::relu(-1) == 0 && ref::relu(2) == 2));
  CHECK(ref::silu(1) == Approx(0.7310585786));
  CHECK(ref::gelu(1) == Approx(0.8413447461));
  CHECK(ref::gelu_tanh(1) == Approx(0.8411919906));
  const ref::Vector p = ref::softmax({1000, 1000 + std::log(3)});
  CHECK((p[0] == Approx(0.25) && p[1] == Approx(0.75)));
}

TEST_CASE("reference: rope turns pairs or halves, and products depend on distances alone") {
  ref::Matrix x(2, 4);
  x.values = {1, 0, 1, 0, 1, 0, 1, 0};
  const ref::Matrix pairs = ref::rope(x, {.head_dim = 4, .rotated = 4});
  for (Index j = 0; j < 4; ++j) CHECK(pairs(0, j) == x(0, j));  // position 0
  CHECK((pairs(1, 0) == Approx(std::cos(1)) && pairs(1, 1) == Approx(std::sin(1))));
  CHECK((pairs(1, 2) == Approx(std::cos(0.01)) && pairs(1, 3) == Approx(std::sin(0.01))));
  const ref::Matrix halves = ref::rope(x, {.head_dim = 4, .rotated = 4, .layout = ref::RopeLayout::halves});
  CHECK((halves(1, 0) == Approx(std::cos(1) - std::sin(1)) && halves(1, 2) == Approx(std::cos(1) + std::sin(1))));
  const ref::Matrix some = ref::rope(x, {.head_dim = 4, .rotated = 2, .scale = 2, .factors = {4}});
  CHECK((some(1, 0) == Approx(std::cos(0.125)) && some(1, 2) == 1));
  for (const auto layout : {ref::RopeLayout::pairs, ref::RopeLayout::halves}) {
    const ref::Rope o{.head_dim = 6, .rotated = 6, .layout = layout};
    const ref::Matrix q = some_matrix(1, 6, 1), k = some_matrix(1, 6, 2);
    const auto product = [&](Index a, Index b) { return ref::times_transposed(ref::rope(q, o, a), ref::rope(k, o, b))(0, 0); };
    CHECK(product(9, 5) == Approx(product(104, 100)));
  }
}

TEST_CASE("reference: attention, by hand") {
  // One head of one value; two queries share a head of keys and values.
  ref::Matrix q(2, 2), k(2, 1), v(2, 1);
  q.values = {1, 2, std::log(3), 0}, k.values = {0, 1}, v.values = {10, 20};
  const ref::Matrix y = ref::attention(q, k, v, 1);
  CHECK((y(0, 0) == 10 && y(0, 1) == 10));  // the first token sees itself alone
  CHECK(y(1, 0) == Approx(0.25 * 10 + 0.75 * 20));
  CHECK(y(1, 1) == Approx(15));
}

TEST_CASE("reference: a block of zero weights passes its input on; causality") {
  const ref::Rope r{.head_dim = 4, .rotated = 4};
  ref::DecoderBlock b = some_block(8, 4, 2, 4, 12);
  const ref::Matrix x = some_matrix(5, 8, 20);
  const ref::Matrix y = ref::decoder_block(b, x, r, 1e-5);
  ref::Matrix changed = x;
  changed(4, 3) += 1;
  const ref::Matrix z = ref::decoder_block(b, changed, r, 1e-5);
  for (Index t = 0; t < 4; ++t) CHECK(y.row(t) == z.row(t));
  CHECK(!(y.row(4) == z.row(4)));
  ref::BlockInputs in;
  ref::decoder_block(b, x, r, 1e-5, &in);
  CHECK((in.attn.cols == 8 && in.mixed.cols == 16 && in.ffn.cols == 8 && in.product.cols == 12));
  b.o = ref::Matrix(8, 16), b.down = ref::Matrix(8, 12);
  CHECK(ref::decoder_block(b, x, r, 1e-5) == x);
}

TEST_CASE("reference: Hadamard matrices") {
  for (const ref::Matrix& h : {ref::sylvester(8), ref::paley(11), ref::kronecker(ref::paley(3), ref::sylvester(2))}) {
    const ref::Matrix unit = ref::times_transposed(h, h);
    for (Index i = 0; i < h.rows; ++i)
      for (Index j = 0; j < h.rows; ++j) CHECK(unit(i, j) == (i == j ? static_cast<double>(h.rows) : 0));
    for (const double v : h.values) CHECK(std::abs(v) == 1);
  }
  const auto turned = [](std::vector<double> x) {
    ref::Matrix row(1, 4);
    row.values = std::move(x);
    return ref::rotated_rows(row, ref::normalized(ref::sylvester(4))).values;
  };
  CHECK(turned({4, 0, 0, 0}) == std::vector<double>{2, 2, 2, 2});
  CHECK(turned({8, 1, -1, 0.5}) == std::vector<double>{4.25, 2.75, 4.75, 4.25});
}

TEST_CASE("reference: QuaRot leaves logits as they are") {
  ref::Decoder d{some_matrix(11, 8, 30), some_matrix(11, 8, 31), {}, some_matrix(1, 8, 32).row(0), {}, 1e-5};
  d.rope = {.head_dim = 4, .rotated = 4};
  for (int i = 0; i < 2; ++i) d.blocks.push_back(some_block(8, 4, 2, 4, 12));
  const std::vector<int> ids{3, 1, 4, 1, 5, 9};
  const ref::Matrix before = ref::decoder_logits(d, ids);
  const ref::Matrix q = ref::random_signs(ref::normalized(ref::sylvester(8)), {1, -1, -1, 1, 1, 1, -1, 1}),
                    h = ref::normalized(ref::sylvester(4));
  const ref::Vector ones(8, 1.0);
  d.embedding = ref::rotated_rows(d.embedding, q);
  for (ref::DecoderBlock& b : d.blocks) {
    b.q = ref::rotated_reader(b.q, b.attn_norm, q), b.k = ref::rotated_reader(b.k, b.attn_norm, q);
    b.v = ref::transposed(ref::rotated_heads(ref::transposed(ref::rotated_reader(b.v, b.attn_norm, q)), h));
    b.o = ref::rotated_heads(ref::rotated_writer(b.o, q), h);
    b.gate = ref::rotated_reader(b.gate, b.ffn_norm, q), b.up = ref::rotated_reader(b.up, b.ffn_norm, q);
    b.down = ref::rotated_writer(b.down, q);
    b.attn_norm = b.ffn_norm = ones;
  }
  d.head = ref::rotated_reader(d.head, d.output_norm, q), d.output_norm = ones;
  const ref::Matrix after = ref::decoder_logits(d, ids);
  for (std::size_t i = 0; i < before.values.size(); ++i) CHECK(after.values[i] == Approx(before.values[i]).margin(1e-10));
}

TEST_CASE("reference: KL and perplexity, by hand") {
  const ref::Vector p{std::log(0.5), std::log(0.25), std::log(0.25)}, q{p[1], p[2], p[0]};
  CHECK(ref::kl_divergence(p, q) == Approx(0.25 * std::log(2)));
  CHECK(ref::kl_divergence({0, -17}, {0, 5}) == Approx(std::log(1 + std::exp(5))).margin(1e-6));  // below e^-16: not counted
  CHECK(ref::negative_log_likelihood({1000, 1000}, 1) == Approx(std::log(2)));
  // A model that gives the token after next to the last one 3 times the weight of each of the other two.
  const auto forward = [](const ref::Row<Index>& ids) {
    ref::Matrix logits(ids.size(), 3);
    for (Index t = 0; t < ids.size(); ++t) logits(t, (ids[t] + 1) % 3) = std::log(2);
    return logits;
  };
  const ref::Row<Index> text{0, 1, 2, 0, 0, 0, 1, 1, 9};  // the last token fills no window
  const double right = std::log(2.0), wrong = std::log(4.0);
  CHECK(ref::perplexity(text, 4, ref::Protocol::gptq, forward) == Approx(std::exp((4 * right + 2 * wrong) / 6)));
  CHECK(ref::perplexity(text, 4, ref::Protocol::llama_cpp, forward) == Approx(std::exp((right + wrong) / 2)));
  CHECK(ref::perplexity(text, 2, ref::Protocol::gptq, forward, 1) ==
        Approx(std::exp((2 * right + 2 * wrong) / 4)));  // BOS is llama.cpp's alone
}
