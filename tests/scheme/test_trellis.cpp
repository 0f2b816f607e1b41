// Trellis schemes against the readable twin, and against a bit-level reading of their bytes.

#include <anybit/scheme/trellis.hpp>

#include <cmath>
#include <random>
#include <span>
#include <vector>

#include <anybit/reference/hadamard.hpp>
#include <anybit/reference/trellis.hpp>
#include <anybit/scheme/trellis_exl3.hpp>
#include <anybit/tensor/packed_tensor.hpp>

#include "support/catch.hpp"

using namespace anybit;
namespace ref = anybit::reference;

namespace {

/// A third party's: one function.
struct Square {
  static constexpr std::string_view name = "square";
  static constexpr int value(std::uint32_t state) { return static_cast<int>(state * state >> 3 & 127) - 64; }
};

std::vector<std::byte> random_bytes(Index n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> out(static_cast<std::size_t>(n));
  for (std::byte& b : out) b = std::byte(random() & 255);
  return out;
}

/// The bits of a loop in the reference's words: the library has the first word last, EXL3 has it first.
template <class Code>
ref::Row<std::uint32_t> words_of(std::span<const std::byte> bytes) {
  ref::Row<std::uint32_t> words(static_cast<Index>(bytes.size()) / 4);
  std::memcpy(words.values.data(), bytes.data(), bytes.size());
  if constexpr (!Code::words) std::reverse(words.values.begin(), words.values.end());
  return words;
}

template <class Code>
void check_stream(unsigned seed) {
  constexpr Index n = 256;
  const ref::TrellisShape shape{Code::state_bits, Code::step_bits};
  const auto bytes = random_bytes(Code::bytes(n), seed);
  std::uint16_t states[n];
  Code::read(bytes.data(), states);
  const auto words = words_of<Code>(bytes);
  const auto expected = ref::trellis_states(words, n, shape);
  for (Index t = 0; t < n; ++t) {
    REQUIRE(states[t] == expected[t]);
    REQUIRE(Code::edge_before(states[t]) == Code::edge_after(states[(t + n - 1) % n]));
  }
  std::vector<std::byte> again(bytes.size());
  Code::write(states, again.data());
  CHECK(again == bytes);
  CHECK(ref::trellis_words(expected, shape) == words);
}

template <class S>
void check_scheme(Extents e) {
  INFO(std::string_view(S::name) << ": " << e.rows << " x " << e.cols);
  auto t = PackedTensor<S>::allocate(e, false, "random bytes");
  PackedBytes& b = t.bytes();
  const auto codes = b.mutable_section(b.section(section_tags::trellis)),
             scales = b.mutable_section(b.section(section_tags::scales));
  const auto random = random_bytes(static_cast<Index>(codes.size()), 7);
  std::copy(random.begin(), random.end(), codes.begin());
  using G = typename S::granularity;
  std::vector<float> s(static_cast<std::size_t>(G::count(e)));
  for (std::size_t i = 0; i < s.size(); ++i) s[i] = 0.5f + 0.25f * static_cast<float>(i % 7);
  S::scale_store::store(s, scales.data());
  const typename PackedTensor<S>::SectionsOf sections(b);
  const ref::TrellisShape shape{S::code::state_bits, S::code::step_bits};
  constexpr Index V = S::step_weights;
  for (Index row = 0; row < e.rows; row += 16)
    for (Index col = 0; col < e.cols; col += 16) {
      float out[256];
      S::decode(sections, e, row, col, out);
      const Index at = (row / 16 * ceil_div(e.cols, 16) + col / 16) * S::tile_bytes;
      const auto states = ref::trellis_states(
          words_of<typename S::code>(codes.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(S::tile_bytes))),
          256 / V, shape);
      for (Index r = 0; r < 16 && row + r < e.rows; ++r)
        for (Index c = 0; c < 16 && col + c < e.cols; ++c) {
          const float value = trellis_value<typename S::codebook>(static_cast<std::uint32_t>(states[c / V * 16 + r]), c % V);
          const Index group = (col + c) / G::group_cols(e.cols);
          REQUIRE(out[r * 16 + c] == s[static_cast<std::size_t>(G::index(e, row + r, group))] * value);
        }
    }
}

}  // namespace

TEST_CASE("trellis: bits of a loop become the states of the definition and come back") {
  check_stream<BitshiftTrellis<16, 1>>(1), check_stream<BitshiftTrellis<16, 2>>(2), check_stream<BitshiftTrellis<16, 3>>(3);
  check_stream<BitshiftTrellis<16, 5>>(4), check_stream<BitshiftTrellis<16, 7>>(5), check_stream<BitshiftTrellis<16, 8>>(6);
  check_stream<BitshiftTrellis<12, 3>>(7), check_stream<BitshiftTrellis<8, 4>>(8), check_stream<BitshiftTrellis<9, 1>>(9);
  check_stream<BitshiftTrellis<16, 3, true>>(10), check_stream<BitshiftTrellis<16, 8, true>>(11);
}

TEST_CASE("trellis: weights are scales times values of states at every shape") {
  for (const Extents e : {Extents{16, 16}, Extents{1, 1}, Extents{37, 45}, Extents{16, 300}}) {
    check_scheme<Trellis<16, 2, ByteSum>>(e);
    check_scheme<Trellis<12, 3, Mul1, PerGroup<32>>>(e);
    check_scheme<Trellis<10, 3, BytePairs, PerGroup<128>, ScaleF32>>(e);
    check_scheme<Trellis<8, 4, Square, PerTensor>>(e);
  }
  CHECK(std::string_view(Trellis<12, 3, BytePairs, PerGroup<128>>::name) == "trellis12k3/bytepairs/g128/f16");
  CHECK(std::string_view(Exl3<3, Mul1>::name) == "exl3/3/mul1");
  CHECK(Trellis<12, 3, BytePairs>::tile_bytes == 48);  // 1.5 bits
}

TEST_CASE("trellis: values of the codebooks, by hand") {
  const std::uint32_t x[] = {0, 1, 2, 3, 0x1234, 0xffff};
  const float three[] = {0.76806640625f, -0.91943359375f, 0.931640625f, 0.29443359375f, -2.19921875f, -0.158203125f};
  const float mcg[] = {1.84375f, 0.134521484375f, -0.75927734375f, 0.83984375f, 1.5146484375f, 0.85009765625f};
  const float mul1[] = {-3.453125f, 0.64111328125f, -0.448486328125f, 0.1944580078125f, -0.5771484375f, -0.6513671875f};
  const double mad[] = {-1.2516869, -0.8389685, -0.4262501, -0.0135318, 1.5155561, 0.4127184};
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(ThreeInst::value(x[i]) == three[i]);
    CHECK(Mcg::value(x[i]) == mcg[i]);
    CHECK(Mul1::value(x[i]) == mul1[i]);
    CHECK(std::fabs(static_cast<double>(OneMad::value(x[i])) - mad[i]) < 1e-7);
  }
  static_assert(ByteSum::value(0) == -126 && has_whole_values_v<ByteSum> && !has_whole_values_v<Mul1>);
  static_assert(step_weights_v<BytePairs> == 2);
  double sum = 0, square = 0;
  for (std::uint32_t s = 0; s < 65536; ++s) {
    const int v = ByteSum::value(s);
    REQUIRE((v >= -126 && v <= 126));
    sum += v, square += double{v * 1.0} * v;
    for (const int pair : BytePairs::value(s)) REQUIRE((pair >= -127 && pair <= 127));
  }
  CHECK(std::fabs(sum / 65536) < 0.5);
  CHECK(std::fabs(std::sqrt(square / 65536) - 36.9) < 0.3);
}

TEST_CASE("trellis: a scale of EXL3 that is no number is named") {
  using S = Exl3<2, Mcg>;
  const Extents e{100, 130};
  auto t = PackedTensor<S>::allocate(e, false, "");
  CHECK(PackedTensor<S>::check(t.bytes()));
  const auto svh = t.bytes().mutable_section(t.bytes().section(section_tags::output_scales));
  CHECK(svh.size() == 256);
  svh[2 * 5 + 1] = std::byte{0x7E};
  const auto error = PackedTensor<S>::check(t.bytes()).error();
  CHECK(error.code == ErrorCode::not_finite);
  CHECK(error.message == "svh of output 5 is nan; scales are finite: convert the model again");
}
