#include <anybit/format/ternary.hpp>
#include <anybit/io/safetensors.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

TEST_CASE("Ternary: a worked example and the edges") {
  const float w[] = {0.9f, -0.2f, 0.05f, -1.4f};
  const Affine a = Ternary::fit(w);
  CHECK(a.scale == Approx(0.6375f));
  const int expected[] = {1, 0, 0, -1};
  for (int i = 0; i < 4; ++i) CHECK(Ternary::to_int(quantize_value<Ternary>(w[i], a)) == expected[i]);
  STATIC_REQUIRE(Ternary::encode(0.5f) == 1);
  STATIC_REQUIRE(Ternary::encode(-0.5f) == 1);
  STATIC_REQUIRE(Ternary::encode(0.50001f) == 2);
  STATIC_REQUIRE(Ternary::to_int(0) == -1);
  CHECK(Ternary::to_int(3) == 0);  // never written
  CHECK(Ternary::fit({}).scale == 1e-5f);
}

TEST_CASE("Ternary gives the codes of the paper's formula") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/bitnet.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  for (const std::string name : {"w0", "w1", "w2"}) {
    INFO(name);
    const auto w = file->read<float>(name).value();
    const auto codes = file->read<std::int8_t>(name + ".ternary").value();
    const auto values = file->read<float>(name + ".deq").value();
    const float gamma = file->read<float>(name + ".gamma").value().at(0);
    const Affine a = Ternary::fit(w);
    CHECK(a.scale == std::max(gamma, 1e-5f));
    int wrong = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const Code c = quantize_value<Ternary>(w[i], a);
      wrong += Ternary::to_int(c) != codes[i];
      wrong += dequantize_value<Ternary>(c, a) != Approx(values[i]);
    }
    CHECK(wrong == 0);
  }
}
