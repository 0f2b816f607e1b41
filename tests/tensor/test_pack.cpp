#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "examples.hpp"
#include "support/catch.hpp"

using namespace anybit;

namespace {

template <AnyScheme S>
QuantizedMatrix<S> example(Extents e, std::uint32_t seed) {
  return quantize_nearest<S>(examples::weights(e, seed).view()).value();
}

/// Every other column first, then the rest.
std::vector<std::uint32_t> evens_then_odds(Index cols) {
  std::vector<std::uint32_t> order;
  for (Index start : {0, 1})
    for (Index c = start; c < cols; c += 2) order.push_back(static_cast<std::uint32_t>(c));
  return order;
}

/// The definition, weight by weight.
template <AnyScheme S>
Matrix defined_weights(const QuantizedMatrix<S>& q) {
  Matrix m(q.extents.rows, q.extents.cols);
  for (Index r = 0; r < q.extents.rows; ++r)
    for (Index c = 0; c < q.extents.cols; ++c) {
      const Index original = q.column_order.empty() ? c : static_cast<Index>(q.column_order[static_cast<std::size_t>(c)]);
      m(r, original) = dequantize_value<typename S::format>(q.row(r)[static_cast<std::size_t>(c)],
                                                            q.affine(r, c / S::granularity::group_cols(q.extents.cols)));
    }
  return m;
}

bool same(const Matrix& a, const Matrix& b) {
  bool equal = a.extents() == b.extents();
  for (Index i = 0; equal && i < a.extents().size(); ++i) equal = a.data()[i] == b.data()[i];
  return equal;
}

template <AnyScheme S>
void check_round_trips() {
  for (const Extents e : examples::shapes)
    for (const bool ordered : {false, true}) {
      INFO(S::name.view() << ", " << e.rows << " x " << e.cols << (ordered ? ", columns reordered" : ""));
      auto q = example<S>(e, 7);
      if (ordered) q.column_order = evens_then_odds(e.cols);
      q.provenance = "by hand";
      const PackedTensor<S> t = pack(q);
      CHECK(t.extents() == e);
      CHECK(t.provenance() == "by hand");
      const auto back = unpack(t);
      CHECK(back == q);
      CHECK(back.provenance == "by hand");
      CHECK(pack(back) == t);

      const Matrix expected = defined_weights(q);
      CHECK(same(dequantize(q), expected));
      CHECK(same(dequantize(t), expected));

      // The same bytes, found at an odd address, in a block that ends where they end.
      const auto bytes = t.bytes().bytes();
      const std::unique_ptr<std::byte[]> moved(new std::byte[bytes.size() + 1]);
      std::memcpy(moved.get() + 1, bytes.data(), bytes.size());
      auto view = PackedBytes::view({moved.get() + 1, bytes.size()});
      REQUIRE(view);
      auto typed = PackedTensor<S>::from(*std::move(view));
      REQUIRE(typed);
      CHECK(*typed == t);
      CHECK(unpack(*typed) == q);
      CHECK(same(dequantize(*typed), expected));
      CHECK(typed->bits_per_weight() == t.bits_per_weight());

      const Extents other{e.rows, e.cols + 1};
      CHECK_FALSE(pack(QuantizedMatrix<S>(other)) == t);
    }
}

}  // namespace

TEST_CASE("pack: round trips through bytes, floats and unaligned views for every scheme and shape") {
  for_each_type(examples::Schemes{}, []<class S>() { check_round_trips<S>(); });
}

TEST_CASE("pack: one changed code, scale or zero point makes tensors unequal") {
  using S = Scheme<UInt<4>, PerGroup<8>, ScaleF32>;
  const auto q = example<S>({3, 20}, 1);
  const auto t = pack(q);
  auto code = q, scale = q, zero = q, order = q;
  code.codes[59] ^= 1;
  scale.affines[8].scale *= 2;
  zero.affines[8].zero = zero.affines[8].zero == 0 ? 1.0f : 0.0f;
  order.column_order = evens_then_odds(20);
  CHECK_FALSE(pack(code) == t);
  CHECK_FALSE(pack(scale) == t);
  CHECK_FALSE(pack(zero) == t);
  CHECK_FALSE(pack(order) == t);
  CHECK(pack(q) == t);
}

TEST_CASE("pack: the bytes of a row stand where the scheme says") {
  using S = Scheme<Superfloat<5>, PerRow, ScaleF32>;
  QuantizedMatrix<S> q({2, 3});
  q.codes = {1, 2, 3, 31, 0, 16};
  q.affines = {{0.5f, 0}, {2.0f, 0}};
  const auto t = pack(q);
  REQUIRE(t.bytes().codes().size() == 4);
  const auto byte = [&](Index r, Index i) { return std::to_integer<int>(t.row_codes(r)[i]); };
  CHECK(byte(0, 0) == (1 | 2 << 5));
  CHECK(byte(0, 1) == (2 >> 3 | 3 << 2));
  CHECK(byte(1, 0) == 31);
  CHECK(byte(1, 1) == 16 << 2);
  CHECK(t.affine(1, 0) == Affine{2.0f, 0});
  CHECK(t.bits_per_weight() == Approx((4 + 8) * 8 / 6.0));
  const Matrix w = dequantize(t);
  CHECK(w(0, 1) == 0.5f * 2 / 16);
  CHECK(w(1, 0) == -2.0f * 15 / 16);
}

TEST_CASE("pack: a scheme's own decode, granule by granule, is what dequantize gives") {
  for_each_type(examples::Schemes{}, []<class S>() {
    INFO(S::name.view());
    static_assert(PackedScheme<S>);
    const Extents e{3, 77};
    const auto t = pack(example<S>(e, 4));
    const Matrix w = dequantize(t);
    const typename PackedTensor<S>::SectionsOf sections(t.bytes());
    for (Index r = 0; r < e.rows; ++r)
      for (Index c = 0; c < e.cols; c += S::granule_cols) {
        float some[static_cast<std::size_t>(S::granule_cols)];
        S::decode(sections, e, r, c, some);
        for (Index i = 0; i < std::min(S::granule_cols, e.cols - c); ++i) REQUIRE(some[i] == w(r, c + i));
      }
  });
}

TEST_CASE("pack: dequantize_row gives a row in stored order, for rows longer than a chunk and layouts with odd granules") {
  using S = Scheme<Ternary, PerGroup<100>, ScaleF32, Base3>;
  auto q = example<S>({2, 1733}, 4);
  q.column_order = evens_then_odds(1733);
  const auto t = pack(q);
  std::vector<float> row(1733);
  dequantize_row(t, 1, row);
  for (std::size_t c = 0; c < row.size(); ++c)
    REQUIRE(row[c] == dequantize_value<Ternary>(q.row(1)[c], q.affine(1, static_cast<Index>(c) / 100)));
}

namespace {

using Int4Group32 = Scheme<UInt<4>, PerGroup<32>, ScaleF16>;

/// A good tensor's bytes with one header field or byte changed.
struct Damaged {
  std::vector<std::byte> bytes;
  PackedHeader header;
  Damaged() {
    auto q = example<Int4Group32>({4, 40}, 9);
    q.column_order = evens_then_odds(40);
    const auto t = pack(q);
    bytes.assign(t.bytes().bytes().begin(), t.bytes().bytes().end());
    std::memcpy(&header, bytes.data(), sizeof header);
  }
  std::string error() {
    std::memcpy(bytes.data(), &header, sizeof header);
    return error_of_bytes();
  }
  std::string error_of_bytes() const {
    auto view = PackedBytes::view(bytes);
    if (!view) return view.error().message;
    auto t = PackedTensor<Int4Group32>::from(*std::move(view));
    return t ? "" : t.error().message;
  }
  std::size_t section(int which) const {
    const auto up = [](std::uint64_t x) { return (x + 63) / 64 * 64; };
    std::uint64_t at = header.header_bytes;
    if (which > 0) at = up(at + header.codes_bytes);
    if (which > 1) at = up(at + header.scales_bytes);
    if (which > 2) at = up(at + header.zeros_bytes);
    return static_cast<std::size_t>(at);
  }
};

bool says(const std::string& message, const char* part) {
  INFO(message);
  CHECK(message.find(part) != std::string::npos);
  return message.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("packed tensor: undamaged bytes open") { CHECK(Damaged().error() == ""); }

TEST_CASE("packed tensor: every wrong header field is named") {
  const auto with = [](auto change) {
    Damaged d;
    change(d.header);
    return d.error();
  };
  says(with([](PackedHeader& h) { h.magic[0] = 'a'; }), "does not start with ANYB");
  says(with([](PackedHeader& h) { h.version = 3; }), "layout version 3");
  says(with([](PackedHeader& h) { h.name_bytes = 0xFFFF; }), "does not hold its names");
  says(with([](PackedHeader& h) { h.provenance_bytes = 0xFFFFFFFF; }), "does not hold its names");
  says(with([](PackedHeader& h) { h.header_bytes = 64; }), "does not hold its names");
  says(with([](PackedHeader& h) { h.header_bytes += 1; }), "header size");
  says(with([](PackedHeader& h) { h.header_bytes = 0xFFFFFFC0; }), "truncated");
  says(with([](PackedHeader& h) { h.name_bytes -= 1; }), "holds scheme 'uint4/g32/f16/bit'");
  says(with([](PackedHeader& h) { h.rows = 0xFFFFFFFFFFFFFFFF; }), "overflow");
  says(with([](PackedHeader& h) { h.rows = 1ull << 62, h.cols = 4; }), "overflow");
  says(with([](PackedHeader& h) { h.rows = 0xFFFFFFFFFFFFFFFF, h.cols = 0, h.order_bytes = 0; }), "overflow");
  says(with([](PackedHeader& h) { h.rows = 0, h.cols = 0xFFFFFFFFFFFFFFFF, h.order_bytes = 0; }), "overflow");
  says(with([](PackedHeader& h) { h.rows = 1ull << 58, h.order_bytes = 0, h.cols = 1; }), "too many");
  says(with([](PackedHeader& h) { h.rows = 5; }), "codes take 80 bytes, the scheme needs 100");
  says(with([](PackedHeader& h) { h.rows = 3; }), "codes take 80 bytes, the scheme needs 60");
  says(with([](PackedHeader& h) { h.codes_bytes = 0xFFFFFFFFFFFFFFFF; }), "overflow");
  says(with([](PackedHeader& h) { h.codes_bytes = 81; }), "codes take 81");
  says(with([](PackedHeader& h) { h.scales_bytes = 14; }), "scales take 14 bytes, the scheme needs 16");
  says(with([](PackedHeader& h) { h.scales_bytes = 1ull << 63; }), "overflow");
  says(with([](PackedHeader& h) { h.zeros_bytes = 0; }), "zero points take 0 bytes, the scheme needs 4");
  says(with([](PackedHeader& h) { h.zeros_bytes = 1 << 30; }), "truncated");
  says(with([](PackedHeader& h) { h.order_bytes = 156; }), "column order has 156 bytes for 40 columns");
  says(with([](PackedHeader& h) { h.order_bytes = 0xFFFFFFFFFFFFFFF0; }), "overflow");
}

TEST_CASE("packed tensor: bytes that the first builds wrote open") {
  // Codes {1, 7, 2; 0, 5, 3} of 3 bits, affines {0.5, 1} {2, 7}; {1, 0} {0.25, 4}, columns stored in the order 2, 0, 1.
  constexpr std::string_view names = "uint3/g2/f16/bitsby hand";
  std::vector<std::byte> bytes(64 * 5 + 12);
  const auto put = [&](std::size_t at, std::initializer_list<int> some) {
    for (const int b : some) bytes[at++] = static_cast<std::byte>(b);
  };
  put(0, {0x41, 0x4E, 0x59, 0x42, 1, 0, 0x11, 0, 7, 0, 0, 0, 0x80, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3});
  put(32, {4, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 12});
  std::memcpy(bytes.data() + 64, names.data(), names.size());
  put(128, {0xB9, 0, 0xE8, 0});
  put(192, {0, 0x38, 0, 0x40, 0, 0x3C, 0, 0x34});
  put(256, {0x39, 0x08});
  put(320, {2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0});
  using Old = Scheme<UInt<3>, PerGroup<2>, ScaleF16>;
  auto view = PackedBytes::view(bytes);
  REQUIRE(view);
  CHECK(view->sections().size() == 4);
  CHECK(view->provenance() == "by hand");
  const auto t = PackedTensor<Old>::from(*std::move(view));
  REQUIRE(t);
  const Matrix w = dequantize(*t);
  const float expected[] = {3, -10, 0, 5, -0.25f, 0};
  for (Index i = 0; i < 6; ++i) CHECK(w.data()[i] == expected[i]);
  // Today's build writes the same.
  const auto again = pack(unpack(*t));
  const auto now = again.bytes().bytes();
  CHECK(std::equal(now.begin(), now.end(), bytes.begin(), bytes.end()));
}

TEST_CASE("packed tensor: every truncation is an error") {
  const Damaged whole;
  for (std::size_t n = 0; n < whole.bytes.size(); ++n) {
    // A block of the exact size: a sanitizer sees a look beyond it.
    const std::unique_ptr<std::byte[]> part(new std::byte[n]);
    std::memcpy(part.get(), whole.bytes.data(), n);
    const auto view = PackedBytes::view({part.get(), n});
    REQUIRE_FALSE(view);
    CHECK(view.error().message.find("truncated") != std::string::npos);
  }
}

TEST_CASE("packed tensor: impossible scales and column orders are named") {
  Damaged scale;
  const std::uint16_t infinity = 0x7C00, negative = 0xBC00;
  std::memcpy(scale.bytes.data() + scale.section(1) + 6, &infinity, 2);
  says(scale.error_of_bytes(), "scale 3 is inf");
  std::memcpy(scale.bytes.data() + scale.section(1) + 6, &negative, 2);
  says(scale.error_of_bytes(), "scale 3 is -1");

  Damaged order;
  const std::uint32_t beyond = 40, twice = 2;
  std::memcpy(order.bytes.data() + order.section(3) + 4 * 5, &beyond, 4);
  says(order.error_of_bytes(), "column order entry 5 is 40 of 40 columns");
  std::memcpy(order.bytes.data() + order.section(3) + 4 * 5, &twice, 4);
  says(order.error_of_bytes(), "column order entry 5 is 2, which stands there twice");
}

TEST_CASE("packed tensor: bytes of another scheme are refused by name") {
  const auto t = pack(example<Scheme<Superfloat<5>>>({2, 10}, 1));
  auto copy = PackedBytes::copy(t.bytes().bytes());
  REQUIRE(copy);
  const auto wrong = PackedTensor<Int4Group32>::from(*std::move(copy));
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().message ==
        "packed tensor: holds scheme 'superfloat5/g128/f16/bits', not 'uint4/g32/f16/bits'; open it with that scheme");
}

TEST_CASE("packed tensor: an owned copy outlives the bytes it was made from") {
  const auto q = example<Int4Group32>({3, 33}, 2);
  PackedTensor<Int4Group32> kept;
  {
    const auto t = pack(q);
    const std::vector<std::byte> bytes(t.bytes().bytes().begin(), t.bytes().bytes().end());
    auto copy = PackedBytes::copy(bytes);
    REQUIRE(copy);
    kept = *PackedTensor<Int4Group32>::from(*std::move(copy));
  }
  CHECK(unpack(kept) == q);
  const PackedTensor<Int4Group32> again = kept;
  CHECK(again == kept);
}

namespace {

/// Every code under many scales, and stretches that begin and end anywhere, in blocks of the exact size.
template <AnyScheme S>
void check_dequantize() {
  using F = typename S::format;
  for (const Index cols : {Index{1}, Index{16}, Index{31}, Index{64}, Index{300}, Index{1030}}) {
    QuantizedMatrix<S> q(Extents{3, cols});
    std::uint32_t state = 1;
    const auto random = [&state] { return (state = state * 1664525u + 1013904223u) >> 8; };
    for (auto& c : q.codes) c = static_cast<typename S::code>(random() % static_cast<unsigned>(code_count_v<F>));
    const float scales[] = {1.0f, 0.01f, 0x1p-120f, 0x1p-130f, 0x1p-149f, 0.0f, 0x1p14f};
    for (auto& a : q.affines)
      a = {scales[random() % 7], has_zero_point_v<F> ? static_cast<float>(random() % (1u << F::bits)) : 0.0f};
    std::vector<float> stored(q.affines.size());
    for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = q.affines[i].scale;
    S::scale_store::round_trip(stored);
    for (std::size_t i = 0; i < stored.size(); ++i) q.affines[i].scale = stored[i];
    const Matrix expected = defined_weights(q);
    const PackedTensor<S> t = pack(q);
    const auto equal = [](float a, float b) { return a == b || (a != a && b != b); };
    const Matrix whole = dequantize(t), plain = dequantize(q);
    for (Index i = 0; i < expected.extents().size(); ++i) {
      INFO(S::name.view() << ", " << cols << " columns, at " << i << ", code " << q.codes[static_cast<std::size_t>(i)]);
      REQUIRE(equal(whole.data()[i], expected.data()[i]));
      REQUIRE(equal(plain.data()[i], expected.data()[i]));
    }
    for (const Index first : {Index{0}, Index{5}, Index{16}, Index{48}, Index{512}})
      for (const Index n : {Index{1}, Index{15}, Index{64}, Index{100}, Index{519}}) {
        if (first + n > cols) continue;
        const std::unique_ptr<float[]> out(new float[static_cast<std::size_t>(n)]);
        decoding::dequantize_columns(t, 1, first, n, out.get());
        for (Index i = 0; i < n; ++i) REQUIRE(equal(out[static_cast<std::size_t>(i)], expected(1, first + i)));
      }
  }
}

}  // namespace

TEST_CASE("dequantize: every body gives the weights of dequantize_value, tiny scales and stretches of rows too") {
  for_each_type(examples::Schemes{}, []<class S>() { check_dequantize<S>(); });
  for_each_type(
      TypeList<Scheme<Superfloat<8>, PerGroup<32>, ScaleF32>, Scheme<UInt<7>, PerGroup<16>>, Scheme<SInt<7>, PerGroup<48>>,
               Scheme<SInt<5>, PerRow, ScaleBF16>, Scheme<SInt<8>, PerGroup<16>, ScaleF32>, Scheme<Nf4, PerRow, ScaleF32>,
               Scheme<Minifloat<2, 3>, PerGroup<32>>, Scheme<Minifloat<3, 3>, PerGroup<32>>>(),
      []<class S>() { check_dequantize<S>(); });
}
