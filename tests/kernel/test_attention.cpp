// Attention on raw memory against reference/attention.hpp: every type of rows, codes, strides, slices, pieces, and bad input.

#include <anybit/kernel/attention.hpp>

#include <anybit/reference/kv_quantization.hpp>

#include "kernel/raw_attention.hpp"

using namespace raw_attention;

TEST_CASE("attention on raw rows agrees with the reference: types and strides and options and slices") {
  for (const AttentionShape& s :
       {AttentionShape{4, 2, 64}, AttentionShape{9, 3, 17}, AttentionShape{2, 2, 1}, AttentionShape{5, 1, 40}})
    for (const FloatType type : {FloatType::f32, FloatType::f16, FloatType::bf16})
      for (const Index first : {0, 5, 290})
        for (const Index tokens : {1, 45}) {
          const Engine e(s, first + tokens, type, s.head_dim % 3);
          for (const int which : {0, 1, 2, 3}) {
            AttentionOptions o;
            if (which & 1) o.window = 37, o.soft_cap = 2;
            if (which & 2)
              o.causal = false, o.slopes = std::span(some_slopes).first(static_cast<std::size_t>(s.heads)), o.scale = 0.3f;
            CAPTURE(s.heads, s.head_dim, static_cast<int>(type), first, tokens, which);
            Queries q(s, tokens);
            const AttentionInputs a = q.inputs(first, e.length, o);
            run_slices(a, e.kv());
            CHECK(difference(a, e.matrix(e.keys), e.matrix(e.values)) < 1e-5);
            const std::vector<float> whole = q.out;
            for (const Index slice : {1, 2, 5}) {
              std::fill(q.out.begin(), q.out.end(), -1.0f);
              run_slices(a, e.kv(), slice);
              CHECK(std::memcmp(q.out.data(), whole.data(), whole.size() * sizeof(float)) == 0);
            }
          }
        }
}

TEST_CASE("attention without causality reads keys and values of another length than the queries") {
  const AttentionShape s{4, 2, 24};
  for (const Index length : {1, 40, 300}) {
    const Engine e(s, length, FloatType::f16, 0);
    Queries q(s, 70);
    AttentionOptions o;
    o.causal = false;
    const AttentionInputs a = q.inputs(0, length, o);
    run_slices(a, e.kv());
    CHECK(difference(a, e.matrix(e.keys), e.matrix(e.values)) < 1e-5);
  }
}

TEST_CASE("attention: a prompt gives the same bits in pieces and at once, results may replace queries") {
  const AttentionShape s{6, 2, 33};
  const Index length = 333;
  for (const FloatType type : {FloatType::f32, FloatType::f16}) {
    const Engine e(s, length, type, 1);
    Queries whole(s, length);
    run_slices(whole.inputs(0, length), e.kv());
    for (const Index piece : {1, 31, 64}) {
      CAPTURE(piece);
      std::vector<float> out = whole.q;
      for (Index at = 0; at < length; at += piece) {
        AttentionInputs a = whole.inputs(at, std::min(at + piece, length));
        a.tokens = a.length - at;
        a.out.data = out.data() + at * s.head_dim;
        a.q.data = a.out.data;
        run_slices(a, e.kv());
      }
      CHECK(std::memcmp(out.data(), whole.out.data(), out.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("attention from codes agrees with the reference over rounded keys and values") {
  const AttentionShape s{6, 3, 40};
  const Index length = 200, first = 90, tokens = length - first;
  const Engine e(s, length, FloatType::f32, 0);
  const auto to_half = [](float x) { return f16_to_f32(f32_to_f16(x)); };
  for (const int bits : {16, 8, 4, 3, 2})
    for (const Index residual : {0, 32}) {
      CAPTURE(bits, residual);
      const Index bytes = kv_block_bytes(bits, s.head_dim), blocks = first_block_of_rows(length - 1, residual);
      std::vector<std::byte> codes(static_cast<std::size_t>(blocks * s.kv_heads * bytes + 64)),
          scratch(static_cast<std::size_t>(encode_kv_scratch(s.head_dim)));
      for (Index b = 0; b < blocks; ++b)
        for (Index h = 0; h < s.kv_heads; ++h) {
          const Index at = b * kv_block * e.token_stride() + h * e.head_stride();
          const float* const rows = reinterpret_cast<const float*>(e.memory.data()) + at;
          encode_kv(bits, ConstMatrix(rows, kv_block, s.head_dim, e.token_stride()),
                    ConstMatrix(rows + s.kv_heads * e.head_stride(), kv_block, s.head_dim, e.token_stride()),
                    codes.data() + (b * s.kv_heads + h) * bytes, scratch.data());
        }
      KvInputs kv = e.kv();
      kv.codes = {codes.data(), bits, s.kv_heads * bytes, bytes};
      kv.residual = residual;
      kv.rows_from = first_block_of_rows(first, residual) * kv_block;
      kv.keys.data = static_cast<const float*>(kv.keys.data) + kv.rows_from * e.token_stride();
      kv.values.data = static_cast<const float*>(kv.values.data) + kv.rows_from * e.token_stride();

      Queries q(s, tokens);
      const AttentionInputs a = q.inputs(first, length);
      run_slices(a, kv);
      const reference::Matrix k = e.matrix(e.keys), v = e.matrix(e.values);
      reference::Matrix codes_k = k, codes_v = v;
      if (bits == 16) {
        for (double& x : codes_k.values) x = double{to_half(static_cast<float>(x))};
        for (double& x : codes_v.values) x = double{to_half(static_cast<float>(x))};
      } else {
        codes_k = reference::kv_rounded_keys(k, bits, 32, to_half);
        codes_v = reference::kv_rounded_values(v, bits, 32, s.head_dim, to_half);
      }
      // Each token on its own: what it sees as rows depends on its position.
      double most = 0;
      for (Index t = 0; t < tokens; ++t) {
        const Index rows_from = first_block_of_rows(first + t, residual) * kv_block;
        reference::Matrix keys = codes_k, values = codes_v;
        for (Index p = rows_from; p < length; ++p)
          for (Index c = 0; c < k.cols; ++c) keys(p, c) = k(p, c), values(p, c) = v(p, c);
        AttentionInputs one = a;
        one.tokens = 1, one.first = first + t;
        one.q.data = a.q.at(t, 0), one.out.data = a.out.at(t, 0);
        most = std::max(most, difference(one, keys, values));
      }
      CHECK(most < 1e-4);

      const std::vector<float> whole = q.out;
      for (Index at = 0; at < tokens; at += 7) {
        AttentionInputs a_piece = a;
        a_piece.first = first + at, a_piece.tokens = std::min<Index>(7, tokens - at),
        a_piece.length = a_piece.first + a_piece.tokens;
        a_piece.q.data = a.q.at(at, 0), a_piece.out.data = a.out.at(at, 0);
        run_slices(a_piece, kv, 1);
      }
      CHECK(std::memcmp(q.out.data(), whole.data(), whole.size() * sizeof(float)) == 0);
    }
}

TEST_CASE("attention: NaN and infinity in a token reach only the tokens that see it") {
  const AttentionShape s{4, 2, 20};
  for (const float x : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const bool in_keys : {false, true})
      for (const FloatType type : {FloatType::f32, FloatType::bf16}) {
        CAPTURE(x, in_keys);
        Engine e(s, 100, type, 0);
        Queries clean(s, 100), q(s, 100);
        AttentionOptions o;
        o.window = 20;
        run_slices(clean.inputs(0, 100, o), e.kv());
        (in_keys ? e.keys : e.values)[static_cast<std::size_t>(50 * 40 + 3)] = x;  // position 50, head 0
        e.write();
        run_slices(q.inputs(0, 100, o), e.kv());
        for (Index h = 0; h < 4; ++h)
          for (Index t = 0; t < 100; ++t) {
            const std::size_t at = static_cast<std::size_t>((h * 100 + t) * 20 + 3);
            const bool sees = h < 2 && t >= 50 && t < 70;
            CAPTURE(h, t);
            if (!sees) CHECK(std::memcmp(&q.out[at - 3], &clean.out[at - 3], 20 * sizeof(float)) == 0);
            if (sees && (!in_keys || std::isnan(x))) CHECK(!std::isfinite(q.out[at]));
          }
      }
}

TEST_CASE("attention without tokens is no work") {
  const AttentionShape s{4, 2, 16};
  AttentionInputs a;
  a.shape = s;
  const KvInputs kv;
  CHECK(check(a, kv));
  CHECK(attention_units(a) == 0);
  std::vector<std::byte> workspace(static_cast<std::size_t>(attention_workspace(a, kv)));
  attention(a, kv, 0, 0, workspace.data());
}

TEST_CASE("attention: bad input is an error that names the value") {
  const AttentionShape s{4, 2, 16};
  const Engine e(s, 100, FloatType::f32, 0);
  Queries q(s, 10);
  const auto message = [&](auto change) {
    AttentionInputs a = q.inputs(90, 100);
    KvInputs kv = e.kv();
    change(a, kv);
    const Status status = check(a, kv);
    return status ? std::string() : status.error().message;
  };
  using In = AttentionInputs;
  using Kv = KvInputs;
  CHECK(message([](In&, Kv&) {}).empty());
  CHECK(message([](In& a, Kv&) { a.shape.kv_heads = 3; }) == "attention: 4 heads are no multiple of 3 heads of keys and values");
  CHECK(message([](In& a, Kv&) { a.shape.kv_heads = 0; }).find("4 heads and 0 of keys and values") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.shape.head_dim = 0; }).find("heads of length 0") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.tokens = -1; }).find("-1 tokens") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.first = std::numeric_limits<Index>::max(); }).find("above 2^40") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.first = 91; }) ==
        "attention: queries up to position 100, but 100 positions of keys and values: append the tokens' own first");
  CHECK(message([](In& a, Kv&) { a.length = 0, a.options.causal = false; }) == "attention: no positions of keys and values");
  CHECK(message([](In& a, Kv&) { a.first = 120, a.options.causal = false, a.options.window = 30; }) ==
        "attention: the query of position 129 sees none of the 100 positions in a window of 30");
  CHECK(message([](In& a, Kv&) { a.options.window = -1; }).find("a window of -1") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.options.compute = Compute::int8_per_token; }) ==
        "attention: products in int8_per_token: f32 and bf16 are possible");
  CHECK(message([](In& a, Kv&) { a.options.soft_cap = -1; }).find("a soft cap of -1") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.options.soft_cap = std::nanf(""); }).find("a soft cap of nan") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.options.slopes = std::span(some_slopes).first(3); }) == "attention: 3 slopes for 4 heads");
  CHECK(message([](In& a, Kv&) { a.q.data = nullptr; }) == "attention: queries: a null pointer");
  CHECK(message([](In& a, Kv&) { a.out.head_stride = 15; }) ==
        "attention: results: strides of 16 (tokens) and 15 (heads) make 10 x 4 vectors of length 16 overlap");
  CHECK(message([](In& a, Kv&) { a.out.token_stride = 63, a.out.head_stride = 16; }).find("overlap") != std::string::npos);
  CHECK(message([](In& a, Kv&) { a.out.token_stride = 64, a.out.head_stride = 16; }).empty());
  CHECK(message([](In&, Kv& kv) { kv.keys.token_stride = -64; }).find("keys: strides of -64") != std::string::npos);
  CHECK(message([](In&, Kv& kv) { kv.values.head_stride = 0; }).find("values: strides of 64 (tokens) and 0 (heads)") !=
        std::string::npos);
  CHECK(message([](In&, Kv& kv) { kv.rows_from = 32; }).find("no codes of earlier ones") != std::string::npos);
  CHECK(message([](In&, Kv& kv) { kv.codes.bits = 5; }).find("codes of 5 bits") != std::string::npos);
  CHECK(message([](In&, Kv& kv) { kv.codes.bits = 4, kv.residual = 33; }).find("a residual of 33") != std::string::npos);
  CHECK(message([](In&, Kv& kv) { kv.codes.bits = 4, kv.rows_from = 64; }).find("a multiple of 32 up to 32 is needed") !=
        std::string::npos);
  CHECK(message([](In&, Kv& kv) { kv.codes.bits = 4, kv.rows_from = 32; }) == "attention: codes: a null pointer");
  alignas(4) static const std::byte codes[8] = {};
  CHECK(message([](In&, Kv& kv) { kv.codes = {codes + 1, 4, 4096, 1024}; }).find("no multiples of 4 bytes") != std::string::npos);
  CHECK(message([](In&, Kv& kv) { kv.codes = {codes, 4, 4096, 4}; }).find("blocks of 704 bytes overlap") != std::string::npos);
}
