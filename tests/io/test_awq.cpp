#include <anybit/io/awq.hpp>
#include <anybit/io/safetensors.hpp>

#include <string>
#include <vector>

#include "io/checkpoint_support.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace checkpoint_support;

TEST_CASE("AWQ: AutoAWQ's own words, both ways") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/packing.safetensors");
  const auto file = SafetensorsFile::open(path);
  REQUIRE(file.ok());
  for (const std::string name : {"awq.00", "awq.01", "awq.02", "awq.03"}) {
    INFO(name);
    ModuleTensors m;
    m.name = name;
    for (const char* part : {"qweight", "qzeros", "scales"}) m.tensors[part] = file->find(name + "." + part);
    const auto l = read_awq(m, {});
    REQUIRE(l.ok());
    CHECK(l->codes == file->read<std::uint8_t>(name + ".codes").value());
    const auto zeros = file->read<std::int32_t>(name + ".zeros").value();
    CHECK(l->zeros == std::vector<float>(zeros.begin(), zeros.end()));
    if (const TensorInfo* const half = file->find(name + ".dequant_f16_in_out")) {
      const Matrix expected = to_f32(*half).value(), w = dequantize(*l);
      int different = 0;
      for (Index r = 0; r < w.rows(); ++r)
        for (Index c = 0; c < w.cols(); ++c) different += f16_to_f32(f32_to_f16(w(r, c))) != expected(c, r);
      CHECK(different == 0);
    }
    for (const OwnedTensor& t : write_awq(name, *l)) {
      const TensorInfo* const theirs = m.find(std::string_view(t.name).substr(name.size() + 1));
      CHECK(t.shape == theirs->shape);
      CHECK(std::equal(t.bytes.begin(), t.bytes.end(), theirs->bytes.begin(), theirs->bytes.end()));
    }
  }
}

TEST_CASE("AWQ: written and read again; codes 0 to 7 are the word 0x75316420") {
  for (const Index group : {32, 96, 192}) {
    const CheckpointLinear l = random_linear(136, 192, 4, group, false);
    const Module m("m.q", write_awq("m.q", l));
    const auto back = read_awq(m.tensors, {4, group});
    REQUIRE(back.ok());
    CHECK(*back == l);
  }
  CheckpointLinear l = random_linear(8, 1, 4, 1, true);
  for (std::size_t i = 0; i < 8; ++i) l.codes[i] = static_cast<std::uint8_t>(i);
  CHECK(values_of<std::uint32_t>(write_awq("m", l)[0].info())[0] == 0x75316420u);
}

TEST_CASE("AWQ: contradictions and broken tensors are errors") {
  const CheckpointLinear l = random_linear(64, 128, 4, 32, false);
  const auto refused = [&](auto change, const std::string& part, AwqFormat f = {4, 32}) {
    Module m("m.q", write_awq("m.q", l));
    change(m);
    const auto r = read_awq(m.tensors, f);
    REQUIRE(!r.ok());
    INFO(r.error().message);
    CHECK(r.error().message.find(part) != std::string::npos);
  };
  const auto nothing = [](Module&) {};
  refused(nothing, "8 bits", {8, 32});
  refused(nothing, "group_size 64", {4, 64});
  refused(nothing, "group_size -1", {4, -1});
  refused([](Module& m) { m["scales"].shape = {8, 32}; }, "32 outputs");
  refused([](Module& m) { m["qzeros"].shape = {8, 4}; }, "8 x 4");
  refused([](Module& m) { m["qweight"].dtype = "F32"; }, "type F32");
  refused([](Module& m) { m["qweight"].shape = {0, 8}, m["qweight"].bytes = {}; }, "empty");
  refused([](Module& m) { m["qweight"].shape = {96, 8}; }, "96 inputs");
}
