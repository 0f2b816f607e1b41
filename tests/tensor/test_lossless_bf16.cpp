// bfloat16 without loss: every pattern, shape and range of rows comes back, bytes mean what the readable twin says, and damaged
// bytes are refused or decode inside their sections.

#include <anybit/tensor/pack_lossless_bf16.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/reference/lossless_bf16.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace ref = anybit::reference;

namespace {

using Words = std::vector<std::uint16_t>;

/// Patterns like weights': exponents in a bell, some of anything.
Words weight_words(Index n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  Words out;
  for (Index i = 0; i < n; ++i)
    out.push_back(i % 97 == 13 ? static_cast<std::uint16_t>(random() & 0xFFFF) : f32_to_bf16(normal(random)));
  return out;
}

PackedTensor<LosslessBf16> packed(const Words& words, Extents e) {
  return pack_lossless_bf16({words.data(), e.rows, e.cols}, "by hand");
}

/// Rows begin .. end - 1 are the words, as floats.
bool rows_are(const PackedTensor<LosslessBf16>& t, const Words& words, Index begin, Index end) {
  Matrix out(end - begin, t.cols());
  dequantize_rows(t, begin, end, out.view());
  for (Index i = 0; i < out.rows() * out.cols(); ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, out.data() + i, 4);
    if (bits != std::uint32_t{words[static_cast<std::size_t>(begin * t.cols() + i)]} << 16) return false;
  }
  return true;
}

ref::Row<std::uint8_t> section_of(const PackedTensor<LosslessBf16>& t, SectionTag tag) {
  ref::Row<std::uint8_t> out;
  for (const std::byte b : t.bytes().section(tag)) out.values.push_back(std::to_integer<std::uint8_t>(b));
  return out;
}
ref::Table<std::uint16_t> by_the_twin(const PackedTensor<LosslessBf16>& t) {
  return ref::lossless_bf16_words({section_of(t, section_tags::code_lengths), section_of(t, section_tags::offsets),
                                   section_of(t, section_tags::signs_mantissas), section_of(t, section_tags::exponents)},
                                  t.rows(), t.cols());
}

std::string error_of(const PackedBytes& b) {
  const Status s = PackedTensor<LosslessBf16>::check(b);
  return s ? "" : s.error().message;
}

}  // namespace

TEST_CASE("lossless bf16: every one of the 65536 patterns comes back, NaN's payloads and -0 among them") {
  Words all;
  for (std::uint32_t w = 0; w < 65536; ++w) all.push_back(static_cast<std::uint16_t>(w));
  for (const Extents e : {Extents{64, 1024}, Extents{1, 65536}, Extents{65536, 1}}) {
    const auto t = packed(all, e);
    CHECK(error_of(t.bytes()) == "");
    CHECK(rows_are(t, all, 0, e.rows));
  }
  // As floats too: no value goes through arithmetic.
  Matrix w(256, 256);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const std::uint32_t bits = i << 16;
    std::memcpy(w.data() + i, &bits, 4);
  }
  const auto t = pack_lossless_bf16(w.view());
  REQUIRE(t);
  CHECK(rows_are(*t, all, 0, 256));
}

TEST_CASE("lossless bf16: any shape and any range of rows, as the readable twin decodes the bytes") {
  for (const Extents e : {Extents{1, 1}, Extents{3, 1}, Extents{1, 511}, Extents{2, 512}, Extents{5, 513}, Extents{7, 576},
                          Extents{4, 1029}, Extents{130, 3}, Extents{0, 7}, Extents{7, 0}, Extents{0, 0}}) {
    INFO(e.rows << " x " << e.cols);
    const Words words = weight_words(e.size(), 11);
    const auto t = packed(words, e);
    CHECK(error_of(t.bytes()) == "");
    for (Index begin = 0; begin <= e.rows; begin += 1 + e.rows / 7)
      for (Index end = begin; end <= e.rows; end += 1 + e.rows / 5) REQUIRE(rows_are(t, words, begin, end));
    CHECK(rows_are(t, words, 0, e.rows));
    CHECK(by_the_twin(t).values == words);
  }
}

TEST_CASE("lossless bf16: bits are those of the entropy and a little, and never more than a byte for an exponent") {
  const Extents e{256, 768};
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  Words words;
  huffman::Counts counts{};
  for (Index i = 0; i < e.size(); ++i) words.push_back(f32_to_bf16(normal(random))), ++counts[words.back() >> 7 & 0xFF];
  double entropy = 0;
  for (const std::uint64_t n : counts)
    if (n > 0) entropy -= static_cast<double>(n) * std::log2(static_cast<double>(n) / static_cast<double>(e.size()));
  entropy /= static_cast<double>(e.size());
  const double bits = packed(words, e).bits_per_weight();
  CHECK(bits > 8 + entropy);
  CHECK(bits < 8 + entropy + 0.15);
  CHECK(bits < 11);

  // All exponents alike and equally often: as many bits as the scheme says at most, but for the bytes that blocks do not fill.
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i % 256 << 7);
  const auto t = packed(words, e);
  CHECK(rows_are(t, words, 0, e.rows));
  CHECK(static_cast<Index>(t.bytes().section(section_tags::exponents).size()) == e.size() + 8);
  CHECK(static_cast<Index>(t.bytes().section(section_tags::exponents).size()) <= LosslessBf16::sections(e)[3].bytes);
  // One exponent: a bit.
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(0x3F80 | (i & 0x7F));
  const auto one = packed(words, e);
  CHECK(rows_are(one, words, 0, e.rows));
  CHECK(by_the_twin(one).values == words);
  CHECK(static_cast<Index>(one.bytes().section(section_tags::exponents).size()) == e.size() / 8 + 8);
}

TEST_CASE("lossless bf16: long codes, and more blocks than one base serves") {
  // Each exponent half as often as the one before: without a limit the last codes would have 30 bits.
  Words words;
  for (int x = 0; x < 30; ++x)
    words.insert(words.end(), (std::size_t{1} << 17) >> x > 0 ? (std::size_t{1} << 17) >> x : 1,
                 static_cast<std::uint16_t>(x << 7 | x));
  std::mt19937 random(2);
  std::shuffle(words.begin(), words.end(), random);
  const Extents e{static_cast<Index>(words.size()) / 600, 600};  // two blocks a row
  words.resize(static_cast<std::size_t>(e.size()));
  const auto t = packed(words, e);
  CHECK(LosslessBf16::bases(e) > 10);
  CHECK(error_of(t.bytes()) == "");
  CHECK(rows_are(t, words, 0, e.rows));
  CHECK(by_the_twin(t).values == words);
  const auto lengths = section_of(t, section_tags::code_lengths);
  CHECK(std::any_of(lengths.begin(), lengths.end(), [](std::uint8_t two) { return (two & 15) == 12 || two >> 4 == 12; }));
}

TEST_CASE("lossless bf16: a float that is no bfloat16 is named, and rounding is the nearest") {
  Matrix w(3, 40);
  w(2, 17) = 0.1f, w(2, 18) = 0.3f;
  const auto t = pack_lossless_bf16(w.view());
  REQUIRE(!t);
  CHECK(t.error().code == ErrorCode::invalid_argument);
  CHECK(
      t.error().message ==
      "lossless_bf16: the value of row 2, column 17 is 0.100000001 (0x3DCCCCCD), which bfloat16 does not have; ask for rounding "
      "to nearest, or take a scheme that holds it");
  CHECK(lossless::nearest_bf16(0.1f) == 0.10009765625f);
  CHECK(lossless::nearest_bf16(1 + 0x1p-8f) == 1.0f);             // half way: to even
  CHECK(lossless::nearest_bf16(1 + 3 * 0x1p-8f) == 1 + 0x1p-6f);  // likewise
  CHECK(lossless::nearest_bf16(-std::numeric_limits<float>::max()) == -0x1.FEp127f);
  CHECK(std::signbit(lossless::nearest_bf16(-0.0f)));
  w(2, 17) = lossless::nearest_bf16(0.1f), w(2, 18) = lossless::nearest_bf16(0.3f);
  CHECK(pack_lossless_bf16(w.view()));
}

TEST_CASE("lossless bf16: what bytes cannot be is said") {
  const Extents e{5, 700};
  const auto good = packed(weight_words(e.size(), 3), e);
  const auto with = [&](auto change) {
    PackedBytes b = *PackedBytes::copy(good.bytes().bytes());
    change(b, [&b](SectionTag tag) { return b.mutable_section(b.section(tag)); });
    return error_of(b);
  };
  const auto says = [](const std::string& text, const char* part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  CHECK(error_of(good.bytes()) == "");
  says(with([](auto&, auto at) { at(section_tags::code_lengths)[127] |= std::byte{0xD0}; }),
       "the code of exponent 255 has 13 bits");
  says(with([](auto&, auto at) { std::memset(at(section_tags::code_lengths).data(), 0, 128); }),
       "not complete: 2^-length of all exponents is 0/4096");
  says(with([](auto&, auto at) { std::memset(at(section_tags::code_lengths).data(), 0x11, 128); }), "is 524288/4096");
  says(with([](auto&, auto at) { at(section_tags::offsets)[8 + 2 * 3] ^= std::byte{1}; }),
       "block of row 1, column 512 starts at byte");
  says(with([](auto&, auto at) { at(section_tags::offsets)[7] = std::byte{0x80}; }),
       "block of row 0, column 0 starts at byte 922");
  says(with([](auto&, auto at) {
         auto to = at(section_tags::exponents);
         std::memset(to.data(), 0xFF, to.size());  // the longest codes throughout
       }),
       "; the file is damaged, fetch it again");

  // A section of another size: by allocating for it.
  const auto resized = [&](Index by) {
    auto sizes = LosslessBf16::sections(e);
    const auto from = good.bytes().section(section_tags::exponents);
    sizes[3].bytes = static_cast<Index>(from.size()) + by;
    PackedBytes b = PackedBytes::allocate(LosslessBf16::name, "", e, sizes, 0);
    for (const SectionSize& s : sizes) {
      const auto source = good.bytes().section(s.tag);
      const auto to = b.mutable_section(b.section(s.tag));
      if (!to.empty()) std::memcpy(to.data(), source.data(), std::min(to.size(), source.size()));
    }
    // Memory that ends with the bytes, so that the address sanitizer sees what reads past them.
    const std::unique_ptr<std::byte[]> own(new std::byte[b.bytes().size()]);
    std::memcpy(own.get(), b.bytes().data(), b.bytes().size());
    return error_of(*PackedBytes::view({own.get(), b.bytes().size()}));
  };
  CHECK(resized(0) == "");
  says(resized(1), "the exponents have");
  says(resized(-1), "runs past the end of the exponents");
  const auto all = static_cast<Index>(good.bytes().section(section_tags::exponents).size());
  says(resized(8 - all), "block of row 0, column 0 runs past the end");
  says(resized(9 - all), "block of row 0, column 0 runs past the end");
  says(resized(-all), "the exponents have no end");
  says(resized(LosslessBf16::sections(e)[3].bytes), "the scheme needs at most");
}

TEST_CASE("lossless bf16: flipped bytes are refused or decode inside their sections") {
  const Extents e{6, 530};
  const auto whole = packed(weight_words(e.size(), 9), e);
  const auto good = whole.bytes().bytes();
  std::mt19937 random(20);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    // Memory that ends with the bytes, so that the address sanitizer sees what reads past them.
    const std::unique_ptr<std::byte[]> own(new std::byte[good.size()]);
    std::memcpy(own.get(), good.data(), good.size());
    // The last bytes are the exponents': hit all sections alike.
    const std::size_t at = round % 3 == 0 ? random() % 1024 : random() % good.size();
    own[at] ^= round % 2 == 0 ? std::byte(1 << random() % 8) : std::byte(1 + random() % 255);
    auto view = PackedBytes::view({own.get(), good.size()});
    if (!view) continue;
    auto t = PackedTensor<LosslessBf16>::from(*std::move(view));
    if (!t) {
      ++refused;
      continue;
    }
    if (t->extents() != e) continue;
    ++accepted;
    Matrix out(e.rows, e.cols);
    dequantize_rows(*t, 0, e.rows, out.view());
  }
  CHECK(accepted > 500);  // signs and mantissas may be anything
  CHECK(refused > 300);
}

TEST_CASE("lossless bf16: blank bytes, which forecasts use, decode to zeros") {
  const auto t = PackedTensor<LosslessBf16>::allocate({3, 1200}, false, "");
  CHECK(rows_are(t, Words(3600, 0), 0, 3));
  CHECK(error_of(t.bytes()) != "");
}
