#include <anybit/io/ggml_blocks.hpp>
#include <anybit/io/safetensors.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace {

/// Equal bits; any NaN equals any NaN.
Index count_differences(ConstMatrix a, ConstMatrix b) {
  REQUIRE(a.extents() == b.extents());
  Index n = 0;
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.cols; ++c) {
      const bool same = std::bit_cast<std::uint32_t>(a(r, c)) == std::bit_cast<std::uint32_t>(b(r, c));
      if (!same && !(std::isnan(a(r, c)) && std::isnan(b(r, c)))) ++n;
    }
  return n;
}

std::vector<float> block(std::string_view dtype, const std::vector<int>& bytes) {
  const io::DType* const d = io::find_dtype(dtype);
  REQUIRE(d);
  REQUIRE(static_cast<int>(bytes.size()) == d->block_bytes);
  std::vector<std::byte> raw;
  for (const int b : bytes) raw.push_back(static_cast<std::byte>(b));
  std::vector<float> out(static_cast<std::size_t>(d->block_values));
  d->to_f32(raw.data(), 1, out.data());
  return out;
}

}  // namespace

namespace {

/// Compares every tensor of bytes with the values beside it; the types that were compared.
std::set<std::string> check_values(const std::string& path) {
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  std::set<std::string> types;
  for (const auto& t : file->tensors()) {
    // "Q4_K.outliers.bytes_imatrix" holds the rows whose values are "Q4_K.outliers.deq_imatrix", or of its first rows.
    const auto at = t.name.find(".bytes");
    if (at == std::string::npos || t.name.ends_with("_row_ref")) continue;
    const std::string dtype = t.name.substr(0, t.name.find('.'));
    std::string expected = t.name;
    expected.replace(at, 6, ".deq");
    if (!file->find(expected)) continue;
    const io::DType* const d = io::find_dtype(dtype);
    INFO(t.name);
    REQUIRE((d && d->to_f32));
    const auto truth = file->read_f32(expected);
    REQUIRE(truth.ok());
    const std::vector<Index> shape{truth->rows(), truth->cols()};
    const std::size_t bytes = *io::tensor_bytes(*d, shape);
    REQUIRE(bytes <= t.bytes.size());
    const auto values = io::to_f32({t.name, dtype, shape, t.bytes.first(bytes)});
    REQUIRE(values.ok());
    CHECK(count_differences(values->view(), truth->view()) == 0);
    types.insert(dtype);
  }
  return types;
}

}  // namespace

TEST_CASE("ggml blocks: dequantization gives the bits of ggml for every type, distribution and imatrix variant") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/ggml.safetensors");
  CHECK(check_values(path) == std::set<std::string>{"IQ1_M",  "IQ1_S",  "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_S", "IQ3_XXS",
                                                    "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4",  "Q1_0",    "Q2_0",  "Q2_K",
                                                    "Q3_K",   "Q4_0",   "Q4_1",  "Q4_K",   "Q5_0",    "Q5_1",  "Q5_K",
                                                    "Q6_K",   "Q8_0",   "TQ1_0", "TQ2_0"});
}

TEST_CASE("ggml blocks: dequantization of the i-quants gives the bits of ggml without and with a constant importance") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/ggml_iq.safetensors");
  CHECK(check_values(path) == std::set<std::string>{"IQ1_M", "IQ1_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_S", "IQ3_XXS"});
}

TEST_CASE("ggml blocks: the types of activations") {
  std::vector<int> q8_1(36);
  q8_1[1] = 0x40, q8_1[2] = 0x99, q8_1[4] = 0x81, q8_1[35] = 3;  // d = 2; the sum is of no use here
  const auto a = block("Q8_1", q8_1);
  CHECK(a[0] == -254);
  CHECK(a[1] == 0);
  CHECK(a[31] == 6);
  std::vector<int> q8_k(292);
  q8_k[2] = 0x40, q8_k[3] = 0x3F, q8_k[4] = 0x81, q8_k[259] = 4, q8_k[260] = 9;  // d = 0.75 in binary32; the rest are sums
  const auto b = block("Q8_K", q8_k);
  CHECK(b[0] == -95.25f);
  CHECK(b[255] == 3);
}

TEST_CASE("ggml blocks: the largest scale of UE4M3 and the code that ggml takes for zero") {
  std::vector<int> nv(36);
  nv[0] = 0x7E, nv[1] = 0x7F, nv[2] = 0x01, nv[3] = 0x08;
  for (std::size_t i = 4; i < 36; ++i) nv[i] = 0x7A;  // low nibble -1, high 6
  const auto y = block("NVFP4", nv);
  CHECK(y[0] == -448);
  CHECK(y[8] == 6 * 448);
  CHECK(y[16] == 0);
  CHECK(y[32] == -std::ldexp(1.0f, -9));
  CHECK(y[48] == -std::ldexp(1.0f, -6));
  CHECK(y[63] == 6 * std::ldexp(1.0f, -6));
}

TEST_CASE("ggml blocks: a block of Q4_0 written out by hand") {
  // d = 0x3266 = 0.199951171875; low nibbles are elements 0..15, high nibbles 16..31.
  const auto y =
      block("Q4_0", {0x66, 0x32, 0x80, 0x91, 0x91, 0xa2, 0xa2, 0xb3, 0xb3, 0xc4, 0xc4, 0xd5, 0xd5, 0xe6, 0xe6, 0xf7, 0xf7, 0xf8});
  CHECK(y[0] == -1.599609375f);
  CHECK(y[16] == 0.0f);
  CHECK(y[31] == 7 * 0.199951171875f);
}

TEST_CASE("ggml blocks: the twelve bytes that hold the sub-scales of Q4_K and Q5_K") {
  const int packed[12] = {0x81, 0x82, 0x83, 0x84, 0xc5, 0xc6, 0xc7, 0xc8, 0x11, 0x22, 0x33, 0x44};
  std::byte raw[12];
  for (int i = 0; i < 12; ++i) raw[i] = static_cast<std::byte>(packed[i]);
  const int scales[8] = {1, 2, 3, 4, 33, 34, 35, 36}, lows[8] = {5, 6, 7, 8, 49, 50, 51, 52};
  for (int j = 0; j < 8; ++j) {
    CHECK(io::ggml::sub_scale(raw, j).scale == scales[j]);
    CHECK(io::ggml::sub_scale(raw, j).low == lows[j]);
  }
}

TEST_CASE("ggml blocks: ternary bytes and eight-bit exponents written out by hand") {
  std::vector<int> tq1(54);
  tq1[0] = 0xd0, tq1[1] = 0xff, tq1[2] = 0x80, tq1[48] = 0xce, tq1[53] = 0x3C;  // d = 1
  const auto t = block("TQ1_0", tq1);
  const float first[5] = {1, 0, -1, 1, 1}, last[4] = {1, 0, -1, 1};
  for (int n = 0; n < 5; ++n) {
    CHECK(t[static_cast<std::size_t>(32 * n)] == first[n]);
    CHECK(t[static_cast<std::size_t>(32 * n + 1)] == 1);
    CHECK(t[static_cast<std::size_t>(32 * n + 2)] == 0);
    CHECK(t[static_cast<std::size_t>(32 * n + 3)] == -1);
  }
  for (int n = 0; n < 4; ++n) CHECK(t[static_cast<std::size_t>(240 + 4 * n)] == last[n]);

  std::vector<int> mx(17);
  mx[0] = 127, mx[1] = 0x27, mx[2] = 0x59;  // e, then low nibbles 7 and 9, high 2 and 5
  auto y = block("MXFP4", mx);
  CHECK(y[0] == 6);
  CHECK(y[1] == -0.5f);
  CHECK(y[16] == 1);
  CHECK(y[17] == 3);
  for (const int e : {0, 1, 2, 254}) {
    mx[0] = e;
    CHECK(block("MXFP4", mx)[16] == std::ldexp(1.0f, e - 127));
  }
}

TEST_CASE("ggml blocks: products of the largest factors are exact, so contraction cannot change a bit") {
  // Scale 0x7BFF = 65504 has 11 significant bits. Each term in double must be a float.
  const auto exact = [](double x) { return static_cast<double>(static_cast<float>(x)) == x; };
  for (int h = 0; h < 0x7C00; h += 7) {
    const double d = static_cast<double>(f16_to_f32(static_cast<std::uint16_t>(h)));
    for (int code = -32; code < 32; ++code)
      for (const int scale : {-128, -127, -125, -77, 1, 63, 85, 127}) REQUIRE(exact(d * scale * code));
  }
}

TEST_CASE("ggml blocks: types of files: the plain ones, as floats") {
  const std::byte raw[8] = {std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF},
                            std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}};
  const auto one = [&](const char* dtype, std::size_t bytes) {
    auto m = io::to_f32({"t", dtype, {1}, std::span(raw, bytes)});
    REQUIRE(m.ok());
    return (*m)(0, 0);
  };
  CHECK(one("I8", 1) == -1);
  CHECK(one("I16", 2) == -1);
  CHECK(one("I32", 4) == -1);
  CHECK(one("I64", 8) == -1);
  CHECK(one("U8", 1) == 255);
  CHECK(one("U16", 2) == 65535);
  CHECK(one("U32", 4) == 4294967296.0f);
  CHECK(one("U64", 8) == 18446744073709551616.0f);
  CHECK(std::isnan(one("F16", 2)));
  CHECK(std::isnan(one("BF16", 2)));
  CHECK(std::isnan(one("F32", 4)));
  CHECK(std::isnan(one("F64", 8)));
  CHECK(std::isnan(one("F8_E4M3", 1)));
  const auto complex = io::to_f32({"w", "C64", {1}, std::span(raw, 8)});
  REQUIRE(!complex.ok());
  CHECK(complex.error().code == ErrorCode::unsupported);
  CHECK(complex.error().message.find("'w' has type C64") != std::string::npos);
}

TEST_CASE("ggml blocks: shapes become matrices") {
  const std::byte raw[24] = {};
  const auto shape = [&](std::vector<Index> s, std::size_t bytes) {
    return io::to_f32({"t", "U8", std::move(s), std::span(raw, bytes)})->extents();
  };
  CHECK(shape({}, 1) == Extents{1, 1});
  CHECK(shape({5}, 5) == Extents{1, 5});
  CHECK(shape({2, 3, 4}, 24) == Extents{6, 4});
  CHECK(shape({0, 4}, 0) == Extents{0, 4});
  CHECK(shape({4, 0}, 0) == Extents{4, 0});
}
