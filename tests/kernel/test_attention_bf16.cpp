// Attention in bfloat16, by vectors where there are instructions and on emulated tiles, against the reference over rounded
// numbers.

#include <anybit/kernel/attention.hpp>

#include "kernel/raw_attention.hpp"
#include "support/emulated_tiles.hpp"

using namespace raw_attention;

namespace {

using WithTiles = emulated::WithTiles<native_arch>;

float to_bf16(float v) { return bf16_to_f32(f32_to_bf16(v)); }

AttentionOptions in_bf16(AttentionOptions o = {}) {
  o.compute = Compute::bf16;
  return o;
}

template <class Arch>
bool attends() {
  return kernel::detail::attends_in_bf16<Arch>(in_bf16());
}

/// check(std::type_identity<Arch>()) with each that multiplies bfloat16.
template <class Check>
void for_each_arch(Check check) {
  if (attends<native_arch>()) check(std::type_identity<native_arch>());
  check(std::type_identity<WithTiles>());
}

/// Keys, values and queries that are bfloat16 already, with a scale of a power of two.
struct Rounded {
  Engine engine;
  Queries queries;
  Rounded(AttentionShape s, Index length, Index tokens, FloatType type = FloatType::f32)
      : engine(s, length, type, s.head_dim % 3), queries(s, tokens) {
    for (auto* all : {&engine.keys, &engine.values, &queries.q})
      for (float& v : *all) v = to_bf16(v);
    engine.write();
  }
};

}  // namespace

TEST_CASE("attention in bfloat16: only the weights of softmax lose digits where all else is bfloat16 already") {
  for (const AttentionShape& s :
       {AttentionShape{4, 2, 64}, AttentionShape{9, 3, 17}, AttentionShape{2, 2, 1}, AttentionShape{5, 1, 40}})
    for (const Index first : {0, 5, 290})
      for (const Index tokens : {1, 45}) {
        Rounded r(s, first + tokens, tokens, first == 5 ? FloatType::bf16 : FloatType::f32);
        for (const int which : {0, 1, 2, 3}) {
          AttentionOptions o = in_bf16({.scale = 0.25f});
          if (which & 1) o.window = 37, o.soft_cap = 2;
          if (which & 2) o.causal = false, o.slopes = std::span(some_slopes).first(static_cast<std::size_t>(s.heads));
          const AttentionInputs a = r.queries.inputs(first, r.engine.length, o);
          for_each_arch([&]<class Arch>(std::type_identity<Arch>) {
            CAPTURE(s.heads, s.head_dim, first, tokens, which, (std::is_same_v<Arch, WithTiles>));
            run_slices<Arch>(a, r.engine.kv());
            // A weight is off by 2^-9 of itself at most, so a mean of values by as much of the largest value, which is below 5.
            const double off = difference(a, r.engine.matrix(r.engine.keys), r.engine.matrix(r.engine.values));
            CHECK(off < 5 * 0x1p-9);
            if (first > 0 && s.head_dim > 1) CHECK(off > 1e-6);
            const std::vector<float> whole = r.queries.out;
            for (const Index slice : {1, 2, 5}) {
              std::fill(r.queries.out.begin(), r.queries.out.end(), -1.0f);
              run_slices<Arch>(a, r.engine.kv(), slice);
              CHECK(std::memcmp(r.queries.out.data(), whole.data(), whole.size() * sizeof(float)) == 0);
            }
          });
        }
      }
}

TEST_CASE("attention in bfloat16 rounds queries and keys and values, and nothing twice") {
  const AttentionShape s{4, 2, 24};
  const Engine e(s, 100, FloatType::f32, 0);
  // A window of one position: its weight is 1, and the result its value.
  Queries own(s, 100);
  const AttentionInputs of_own = own.inputs(0, 100, in_bf16({.window = 1}));
  // Two positions with the values 0 and 1 of one channel: the result is the second weight, which tells the scores' difference.
  Rounded two(s, 2, 1);
  for (std::size_t i = 0; i < two.engine.values.size(); ++i)
    two.engine.values[i] = i < two.engine.values.size() / 2 ? 0.0f : 1.0f;
  for (std::size_t i = 0; i < two.engine.keys.size(); ++i) two.engine.keys[i] *= 1.0f + 0x1p-10f * static_cast<float>(i % 3);
  for (std::size_t i = 0; i < two.queries.q.size(); ++i) two.queries.q[i] *= 1.0f + 0x1p-10f * static_cast<float>(i % 5);
  two.engine.write();
  const AttentionInputs of_two = two.queries.inputs(1, 2, in_bf16({.scale = 0.25f}));
  for_each_arch([&]<class Arch>(std::type_identity<Arch>) {
    run_slices<Arch>(of_own, e.kv());
    for (Index t = 0; t < 100; ++t)
      for (Index h = 0; h < 4; ++h)
        for (Index j = 0; j < 24; ++j)
          REQUIRE(of_own.out.at(t, h)[j] == to_bf16(e.values[static_cast<std::size_t>((t * 2 + h / 2) * 24 + j)]));
    run_slices<Arch>(of_two, two.engine.kv());
    for (Index h = 0; h < 4; ++h) {
      double difference = 0;
      for (Index j = 0; j < 24; ++j) {
        const auto key = [&](Index p) { return to_bf16(two.engine.keys[static_cast<std::size_t>((p * 2 + h / 2) * 24 + j)]); };
        difference += double{to_bf16(of_two.q.at(0, h)[j] * 0.25f)} * (double{key(1)} - double{key(0)});
      }
      // The larger weight is 1, the other one rounded; the sum of both is not.
      const double other = std::exp(-std::abs(difference)), kept = double{to_bf16(static_cast<float>(other))};
      CHECK(std::abs(double{of_two.out.at(0, h)[0]} - (difference > 0 ? 1 : kept) / (1 + other)) < 3e-6);
    }
  });
}

TEST_CASE("attention in bfloat16: pieces and codes and NaN as in floats") {
  const AttentionShape s{6, 2, 33};
  const Index length = 333;
  for_each_arch([&]<class Arch>(std::type_identity<Arch>) {
    for (const bool spoiled : {false, true}) {
      Engine e(s, length, FloatType::f16, 1);
      if (spoiled) e.values[static_cast<std::size_t>((200 * 2 + 1) * 33 + 5)] = std::numeric_limits<float>::quiet_NaN();
      if (spoiled) e.keys[static_cast<std::size_t>(150 * 2 * 33)] = std::numeric_limits<float>::infinity();
      e.write();
      Queries whole(s, length);
      const AttentionOptions o = in_bf16({.window = spoiled ? 40 : 0});
      run_slices<Arch>(whole.inputs(0, length, o), e.kv());
      for (const Index piece : {1, 31, 64}) {
        Queries some(s, length);
        for (Index at = 0; at < length; at += piece) {
          AttentionInputs a = some.inputs(at, std::min(at + piece, length), o);
          a.tokens = a.length - at;
          a.q.data += at * s.head_dim, a.out.data += at * s.head_dim;
          run_slices<Arch>(a, e.kv());
        }
        CHECK(std::memcmp(some.out.data(), whole.out.data(), whole.out.size() * sizeof(float)) == 0);
      }
      Index off = 0;
      for (const float x : whole.out) off += std::isfinite(x) ? 0 : 1;
      CHECK((off > 0) == spoiled);
      for (Index t = 0; t < length; ++t)
        for (Index h = 0; h < 6 && (t < 150 || t >= 240); ++h)  // that see neither
          REQUIRE(std::isfinite(whole.out[static_cast<std::size_t>((h * length + t) * 33 + 5)]));
    }
    const Index bytes = kv_block_bytes(4, s.head_dim);
    const Engine e(s, length, FloatType::f32, 0);
    std::vector<std::byte> codes(static_cast<std::size_t>(9 * 2 * bytes + 64)),
        scratch(static_cast<std::size_t>(encode_kv_scratch(s.head_dim)));
    KvInputs kv = e.kv();
    const auto* const floats = reinterpret_cast<const float*>(e.memory.data());
    for (Index b = 0; b < 9; ++b)
      for (Index h = 0; h < 2; ++h) {
        const float* const rows = floats + b * kv_block * e.token_stride() + h * e.head_stride();
        encode_kv(4, ConstMatrix(rows, kv_block, s.head_dim, e.token_stride()),
                  ConstMatrix(rows + 2 * e.head_stride(), kv_block, s.head_dim, e.token_stride()),
                  codes.data() + (b * 2 + h) * bytes, scratch.data());
      }
    kv.codes = {codes.data(), 4, 2 * bytes, bytes};
    Queries f32(s, length), bf16(s, length);
    run_slices(f32.inputs(0, length), kv);
    run_slices<Arch>(bf16.inputs(0, length, in_bf16()), kv, 7);
    double most = 0;
    for (std::size_t i = 0; i < f32.out.size(); ++i) most = std::max(most, std::abs(double{f32.out[i]} - double{bf16.out[i]}));
    CHECK(most < 0.05);
    CHECK(most > 1e-5);
  });
}

TEST_CASE("attention in bfloat16 is attention in floats where no instruction multiplies it, and without permission for tiles") {
  const AttentionShape s{4, 2, 20};
  const Engine e(s, 90, FloatType::f32, 0);
  Queries f32(s, 90), bf16(s, 90);
  run_slices(f32.inputs(0, 90), e.kv());
  if (!attends<native_arch>()) {
    run_slices(bf16.inputs(0, 90, in_bf16()), e.kv());
    CHECK(bf16.out == f32.out);
  }
  using OnlyTiles = emulated::WithTiles<Generic>;
  emulated::Tiles::permitted = false;
  run_slices<OnlyTiles>(bf16.inputs(0, 90, in_bf16()), e.kv());
  emulated::Tiles::permitted = true;
  CHECK(bf16.out == f32.out);
  run_slices<OnlyTiles>(bf16.inputs(0, 90, in_bf16()), e.kv());
  CHECK(bf16.out != f32.out);
  CHECK(!emulated::Tiles::configured());
}
