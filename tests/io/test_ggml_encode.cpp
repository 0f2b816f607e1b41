#include <anybit/io/ggml_encoders.hpp>
#include <anybit/io/safetensors.hpp>

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace {

Result<std::vector<std::byte>> encode(std::string_view type, ConstMatrix rows) {
  const io::GgmlEncoder* const encoder = io::find_ggml_encoder(type);
  REQUIRE(encoder);
  const io::DType& d = *io::find_dtype(type);
  std::vector<std::byte> out(static_cast<std::size_t>(rows.rows * rows.cols / d.block_values * d.block_bytes));
  if (auto done = io::encode_rows(*encoder, rows, out.data()); !done) return done.error();
  return out;
}

void check_refused(const Result<std::vector<std::byte>>& r, const std::string& part) {
  REQUIRE(!r.ok());
  INFO(r.error().message);
  CHECK(r.error().message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("ggml encode: the bytes of ggml for every type and distribution without importance") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/ggml.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  std::set<std::string> types;
  for (const auto& t : file->tensors()) {
    if (!t.name.ends_with(".bytes")) continue;
    const std::string type = t.name.substr(0, t.name.find('.'));
    const std::string distribution = t.name.substr(type.size() + 1, t.name.size() - type.size() - 7);
    const auto x = file->read_f32("x." + distribution);
    REQUIRE(x.ok());
    INFO(t.name);
    // Weights up to 2e5, whose scales binary16 has not: ggml writes infinities, and we refuse.
    const auto values = file->read_f32(type + "." + distribution + ".deq");
    bool finite = true;
    for (Index i = 0; i < values->extents().size(); ++i) finite = finite && is_finite(values->data()[i]);
    const auto bytes = encode(type, x->view());
    CHECK(bytes.ok() == finite);
    if (!bytes) continue;
    REQUIRE(bytes->size() == t.bytes.size());
    std::size_t different = 0;
    for (std::size_t i = 0; i < bytes->size(); ++i) different += (*bytes)[i] != t.bytes[i];
    CHECK(different == 0);
    types.insert(type);
  }
  CHECK(types == std::set<std::string>{"IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "Q1_0", "Q2_0", "Q2_K", "Q3_K", "Q4_0", "Q4_1",
                                       "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "TQ1_0", "TQ2_0"});
}

TEST_CASE("ggml encode: zeros, equal elements and one outlier decode to what the type can say") {
  for (const io::GgmlEncoder& e : io::ggml_encoders) {
    INFO(e.name);
    const io::DType& d = *io::find_dtype(e.name);
    Matrix x(3, 256);
    for (Index c = 0; c < 256; ++c) x.view()(1, c) = 0.5f;
    x.view()(2, 200) = -4;
    const auto bytes = encode(e.name, x.view());
    REQUIRE(bytes.ok());
    const auto back = io::to_f32({"t", std::string(e.name), {3, 256}, *bytes});
    REQUIRE(back.ok());
    const bool no_zero = e.name == "Q1_0";  // d or -d
    for (Index c = 0; c < 256; ++c) {
      CHECK((*back)(0, c) == 0);
      CHECK((*back)(1, c) == Approx(0.5).epsilon(e.name == "NVFP4" || e.name == "MXFP4" || e.name == "Q2_K" ? 0.2 : 0.01));
      if (c != 200 && !no_zero) CHECK(std::fabs((*back)(2, c)) <= 0.05f);
    }
    if (!no_zero) CHECK((*back)(2, 200) == Approx(-4).epsilon(0.1));
    CHECK(static_cast<Index>(bytes->size()) == 3 * 256 / d.block_values * d.block_bytes);
  }
}

TEST_CASE("ggml encode: rows that no block fits and weights that no scale fits are refused with their place") {
  check_refused(encode("Q4_K", Matrix(1, 288).view()),
                "rows of 288 values are no multiple of the 256 values in a block of Q4_K: choose");
  Matrix x(2, 256);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
    x.view()(1, 7) = bad;
    for (const io::GgmlEncoder& e : io::ggml_encoders) check_refused(encode(e.name, x.view()), "row 1, column 7 is");
  }
  x.view()(1, 7) = 1e8f;
  for (const char* type : {"F16", "Q4_0", "Q8_0", "IQ4_NL", "TQ2_0"})
    check_refused(encode(type, x.view()), std::string("row 1, column 7 is 1e+08, which ") + type + " cannot hold: correct");
  for (const char* type : {"F32", "BF16", "MXFP4"}) CHECK(encode(type, x.view()).ok());
  x.view()(1, 7) = 3e38f;
  check_refused(encode("MXFP4", x.view()), "row 1, column 7 is 3e+38, which MXFP4 cannot hold");
  CHECK(encode("BF16", x.view()).ok());
}

TEST_CASE("ggml encode: magnitudes from the smallest to the largest that floats have stay defined") {
  for (const io::GgmlEncoder& e : io::ggml_encoders)
    for (const float scale : {0x1p-149f, 0x1p-130f, 0x1p-100f, 1e-20f, 1e-8f, 6e4f, 1e9f}) {
      Matrix x(1, 256);
      for (Index c = 0; c < 256; ++c) x.view()(0, c) = scale * static_cast<float>(c % 7 - 3);
      static_cast<void>(encode(e.name, x.view()));
    }
}
