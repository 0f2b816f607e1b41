// EXL3 tensors against the reference vectors, and those that contradict themselves.

#include <anybit/io/exl3.hpp>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/kernel/any_packed.hpp>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace {

/// A module in memory, as a file shows it.
struct Exl3Module {
  std::map<std::string, io::TensorInfo> tensors;
  std::map<std::string, std::vector<std::byte>> bytes;

  template <class T>
  void add(const std::string& key, const std::string& dtype, std::vector<Index> shape, std::vector<T> values) {
    auto& own = bytes["m." + key];
    own.resize(values.size() * sizeof(T));
    if (!own.empty()) std::memcpy(own.data(), values.data(), own.size());
    tensors["m." + key] = {"m." + key, dtype, std::move(shape), own};
  }
  void remove(const std::string& key) { tensors.erase("m." + key); }
  const io::TensorInfo* find(std::string_view name) const {
    const auto found = tensors.find(std::string(name));
    return found == tensors.end() ? nullptr : &found->second;
  }
  std::string name() const { return "memory"; }
};

Exl3Module module_of(Index inputs, Index outputs, Index k) {
  Exl3Module m;
  m.add("trellis", "I16", {inputs / 16, outputs / 16, 16 * k},
        std::vector<std::int16_t>(static_cast<std::size_t>(inputs * outputs * k / 16), 1234));
  m.add("suh", "F16", {inputs}, std::vector<std::uint16_t>(static_cast<std::size_t>(inputs), 0x3C00));
  m.add("svh", "F16", {outputs}, std::vector<std::uint16_t>(static_cast<std::size_t>(outputs), 0xB800));
  m.add("mul1", "I32", {}, std::vector<std::uint32_t>{Mul1::multiplier});
  return m;
}
std::string error_of(const Exl3Module& m, Extents e = {}) {
  const auto r = io::read_exl3(m, "m", e);
  return r ? "" : r.error().message;
}
void check_says(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.starts_with("memory: exl3 module 'm': "));
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("exl3: states and values and tiles of the reference") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/exl3.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file);
  const auto permutation = *file->read<std::uint8_t>("tile.perm");
  for_each_exl3([&]<class S>(S) {
    const std::string k = "tile.K" + std::to_string(S::code::step_bits),
                      book = k + "." + std::string(std::string_view(S::codebook::name));
    INFO(book);
    const auto* trellis = file->find(k + ".trellis");
    REQUIRE(static_cast<Index>(trellis->bytes.size()) == S::tile_bytes);
    std::uint16_t states[256];
    S::code::read(trellis->bytes.data(), states);
    CHECK(std::vector<std::uint16_t>(states, states + 256) == *file->read<std::uint16_t>(k + ".states"));
    const auto values = *file->read_f32(book + ".values"), tile = *file->read_f32(book + ".tile");
    const Sections sections(std::array<std::span<const std::byte>, 1>{trellis->bytes});
    const std::array<std::span<const std::byte>, 1> one{trellis->bytes};
    float out[256];
    S::decode_inner(one, {16, 16}, 0, 0, out);
    for (Index i = 0; i < 16; ++i)
      for (Index o = 0; o < 16; ++o) {
        const Index at = S::step_of(i, o);
        REQUIRE(permutation[static_cast<std::size_t>(at)] == 16 * i + o);
        REQUIRE(S::codebook::value(states[at]) == values.data()[at]);
        REQUIRE(out[o * 16 + i] == tile(i, o));
      }
  });
}

TEST_CASE("exl3: matrices of the reference become weights and products") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/exl3.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file);
  SchemeRegistry registry;
  for_each_exl3([&]<class S>(S) { registry.add<S>(); });
  const std::string books[] = {"3inst", "mcg", "mul1"};
  for (int i = 0; i < 3; ++i) {
    const std::string name = "matrix." + std::to_string(i);
    INFO(name);
    Exl3Module m;
    const auto copy = [&](const char* key) { m.tensors[std::string("m.") + key] = *file->find(name + "." + key); };
    copy("trellis"), copy("suh"), copy("svh");
    if (i == 1) m.add("mcg", "I32", {}, std::vector<std::uint32_t>{Mcg::multiplier});
    if (i == 2) m.add("mul1", "I32", {1}, std::vector<std::uint32_t>{Mul1::multiplier});
    auto bytes = io::read_exl3(m, "m");
    REQUIRE(bytes);
    CHECK(std::string(bytes->scheme_name()).ends_with(books[i]));
    const auto any = registry.open(*std::move(bytes));
    REQUIRE(any);
    const auto expected = *file->read_f32(name + ".weight_in_out"), x = *file->read_f32(name + ".x"),
               y = *file->read_f32(name + ".y");
    double most = 0, size = 0;
    std::vector<float> row(static_cast<std::size_t>(any->extents().cols));
    REQUIRE(any->extents() == Extents{expected.cols(), expected.rows()});
    for (Index o = 0; o < expected.cols(); ++o) {
      any->dequantize_row(o, row);
      for (Index k = 0; k < expected.rows(); ++k) {
        most = std::max(most,
                        std::fabs(static_cast<double>(row[static_cast<std::size_t>(k)]) - static_cast<double>(expected(k, o))));
        size = std::max(size, std::fabs(static_cast<double>(expected(k, o))));
      }
    }
    CHECK(most <= 1e-6 * size);
    Matrix out(3, y.cols());
    Workspace workspace;
    Serial serial;
    any->matmul(x.view(), out.view(), Compute::f32, serial, workspace);
    double off = 0, all = 0;
    for (Index j = 0; j < out.extents().size(); ++j)
      off += std::pow(static_cast<double>(out.data()[j]) - static_cast<double>(y.data()[j]), 2),
          all += std::pow(static_cast<double>(y.data()[j]), 2);
    CHECK(std::sqrt(off / all) <= 1e-5);
  }
}

TEST_CASE("exl3: the modules of a checkpoint and their padded extents become the expected weights") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/checkpoints/exl3_mul1_k3_k4/model.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(expected_path, "vectors/checkpoints/exl3_mul1_k3_k4/expected/dequant.safetensors");
  const auto file = io::SafetensorsFile::open(path), expected_file = io::SafetensorsFile::open(expected_path);
  REQUIRE((file && expected_file));
  SchemeRegistry registry;
  for_each_exl3([&]<class S>(S) { registry.add<S>(); });
  int modules = 0;
  for (const auto& t : file->tensors()) {
    if (!t.name.ends_with(".trellis")) continue;
    const std::string module = t.name.substr(0, t.name.size() - 8);
    INFO(module);
    auto expected = expected_file->read_f32(module + ".weight.first_rows");
    if (!expected) expected = expected_file->read_f32(module + ".weight");
    REQUIRE(expected);
    // The real number of rows stands in the configuration; any that rounds up to the padded one gives the same first rows.
    const Index rows = std::max(expected->rows(), 16 * t.shape[1] - 127);
    auto bytes = io::read_exl3(*file, module, {rows, expected->cols()});
    INFO((bytes ? "" : bytes.error().message));
    REQUIRE(bytes);
    const auto any = registry.open(*std::move(bytes));
    REQUIRE(any);
    std::vector<float> row(static_cast<std::size_t>(expected->cols()));
    double off = 0, all = 0;
    for (Index r = 0; r < expected->rows(); ++r) {
      any->dequantize_row(r, row);
      for (Index c = 0; c < expected->cols(); ++c) {
        const double e = static_cast<double>((*expected)(r, c)), d = static_cast<double>(row[static_cast<std::size_t>(c)]) - e;
        off = std::max(off, std::fabs(d)), all = std::max(all, std::fabs(e));
      }
    }
    CHECK(off <= 1e-5 * all);
    ++modules;
  }
  CHECK(modules == 15);
}

TEST_CASE("exl3: old files have bitfields of signs") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/exl3.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file);
  Exl3Module m = module_of(128, 256, 2);
  m.remove("suh"), m.remove("svh");
  m.tensors["m.su"] = *file->find("signs.su"), m.tensors["m.sv"] = *file->find("signs.sv");
  const auto bytes = io::read_exl3(m, "m");
  REQUIRE(bytes);
  const auto su = *file->read<std::int8_t>("signs.su_values"), sv = *file->read<std::int8_t>("signs.sv_values");
  const PackedTensor<Exl3<2, Mul1>>::SectionsOf sections(*bytes);
  for (Index i = 0; i < 128; ++i) REQUIRE(Exl3<2, Mul1>::input_scale(sections, i) == su[static_cast<std::size_t>(i)]);
  for (Index i = 0; i < 256; ++i) REQUIRE(Exl3<2, Mul1>::output_scale(sections, i) == sv[static_cast<std::size_t>(i)]);
}

TEST_CASE("exl3: tensors that contradict each other are refused with the reason") {
  CHECK(error_of(module_of(128, 256, 3)) == "");
  CHECK(error_of(module_of(128, 256, 3), {200, 100}) == "");
  check_says(error_of(module_of(128, 256, 3), {257, 128}),
             "has 256 outputs and 128 inputs, but the model's configuration wants 257");
  check_says(error_of(module_of(128, 256, 3), {128, 128}), "wants 128 and 128");
  check_says(error_of(module_of(128, 256, 9)), "K = 1 to 8");
  check_says(error_of(module_of(128, 256, 0)), "I16 (8, 16, 0)");
  check_says(error_of(module_of(64, 256, 2)), "has 4 x 16 inputs and 16 x 16 outputs; EXL3 pads");
  Exl3Module m = module_of(128, 128, 2);
  m.add("trellis", "I16", {8, 8, 40}, std::vector<std::int16_t>(8 * 8 * 40));
  check_says(error_of(m), "16 K");
  m = module_of(128, 128, 2), m.remove("trellis");
  check_says(error_of(m), "no tensor 'm.trellis'");
  m = module_of(128, 128, 2), m.remove("svh");
  check_says(error_of(m), "neither 'm.svh' nor the older 'm.sv'");
  m = module_of(128, 128, 2), m.add("suh", "F16", {64}, std::vector<std::uint16_t>(64));
  check_says(error_of(m), "'m.suh' is F16 (64), but the trellis needs F16 (128)");
  m = module_of(128, 128, 2), m.remove("suh"), m.add("su", "I16", {9}, std::vector<std::uint16_t>(9));
  check_says(error_of(m), "'m.su' is I16 (9), but the trellis needs I16 (8)");
  m = module_of(128, 128, 2), m.add("mcg", "I32", {}, std::vector<std::uint32_t>{Mcg::multiplier});
  check_says(error_of(m), "both keys");
  m = module_of(128, 128, 2), m.add("mul1", "I32", {}, std::vector<std::uint32_t>{5});
  check_says(error_of(m), "the multiplier of the codebook 'mul1' is 5");
  m = module_of(128, 128, 2), m.add("scale", "F32", {}, std::vector<float>{5});
  check_says(error_of(m), "'scale'");
  m = module_of(128, 128, 2), m.bytes["m.svh"][2 * 7 + 1] = std::byte{0x7E};
  check_says(error_of(m), "svh of output 7 is nan");
}
