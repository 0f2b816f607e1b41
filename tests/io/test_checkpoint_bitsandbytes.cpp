#include <anybit/io/checkpoint_bitsandbytes.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "io/checkpoint_support.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace checkpoint_support;

namespace {

CheckpointLinear four_bits(Index rows, Index cols, Index block, Levels levels) {
  CheckpointLinear l = random_linear(rows, cols, 4, block, true);
  l.levels = levels;
  if (cols % block != 0) {
    l.grouping = Grouping::flat;
    l.scales.resize(static_cast<std::size_t>(l.count()), 0.5f);
  }
  return l;
}

}  // namespace

TEST_CASE("bitsandbytes modules are written and read again, blocks across rows and odd counts too") {
  for (const Levels levels : {Levels::nf4, Levels::fp4})
    for (const Extents e : {Extents{4, 128}, Extents{5, 7}, Extents{37, 41}, Extents{1, 1}, Extents{3, 100}})
      for (const Index block : {32, 64}) {
        INFO(e.rows << " x " << e.cols << " block " << block);
        const CheckpointLinear l = four_bits(e.rows, e.cols, block, levels);
        REQUIRE(bitsandbytes_can_hold(l).ok());
        const Module m("m.q", write_bitsandbytes("m.q", l));
        const auto back = read_bitsandbytes(m.tensors);
        REQUIRE(back.ok());
        CHECK(*back == l);
        CHECK(bitsandbytes_extents(m.tensors).value() == e);
        // The same weights as from the library's own description of bitsandbytes' matrices.
        const BitsAndBytesModule stored = read_bitsandbytes4(m.tensors).value();
        const Matrix w =
            levels == Levels::nf4 ? from_bitsandbytes<Nf4>(stored.matrix).value() : from_bitsandbytes<Fp4>(stored.matrix).value();
        CHECK(test_support::same_bits(w, dequantize(*back)));
      }
  CheckpointLinear int8 = random_linear(5, 9, 8, 9, true);
  int8.divisor = 127;
  const Module m("m.q", write_bitsandbytes("m.q", int8));
  CHECK(*read_bitsandbytes(m.tensors) == int8);
  CHECK(dequantize(int8)(0, 0) == int8.scales[0] / 127.0f * (static_cast<float>(int8.codes[0]) - 128.0f));
}

TEST_CASE("bitsandbytes cannot hold other grids, and says so") {
  for (const auto& l : {random_linear(4, 64, 4, 32, true), random_linear(4, 64, 8, 32, true), random_linear(4, 64, 8, 64, false),
                        four_bits(4, 96, 48, Levels::nf4)})
    CHECK(bitsandbytes_can_hold(l).error().message.find("bitsandbytes: ") == 0);
}

TEST_CASE("bitsandbytes modules: contradictions and broken tensors are errors") {
  const CheckpointLinear l = four_bits(4, 128, 64, Levels::nf4);
  const std::string state = "weight.quant_state.bitsandbytes__nf4";
  const auto refused = [&](auto change, const std::string& part) {
    Module m("m.q", write_bitsandbytes("m.q", l));
    change(m);
    const auto r = read_bitsandbytes(m.tensors);
    REQUIRE(!r.ok());
    INFO(r.error().message);
    CHECK(r.error().message.find(part) != std::string::npos);
    CHECK(r.error().message.find("m.q") != std::string::npos);
    CHECK(r.error().message.find('\n') == std::string::npos);
  };
  const auto with_state = [&](const std::string& json) {
    return [&, json](Module& m) {
      m.add(owned_tensor(state, "U8", {static_cast<Index>(json.size())}, std::vector<char>(json.begin(), json.end())));
    };
  };
  refused(with_state("{"), "JSON");
  refused(with_state("[]"), "quant_type");
  refused(with_state(R"({"quant_type": "fp4", "blocksize": 64, "shape": [4, 128]})"), "fp4");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 48, "shape": [4, 128]})"), "48");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 64, "shape": [4, 130]})"), "4 x 130");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 64, "shape": [-4, -128]})"), "shape");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 64, "shape": [512]})"), "shape");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 64, "shape": [1e300, 2]})"), "shape");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 32, "shape": [4, 128]})"), "absmax");
  refused([](Module& m) { m.tensors.tensors.erase("weight"); }, "no tensor weight");
  refused([](Module& m) { m.tensors.tensors.erase("weight.absmax"); }, "absmax");
  refused([](Module& m) { m.add(owned_tensor("weight.quant_map", "F32", {16}, std::vector<float>(16, 0.5f))); }, "levels");
  refused([](Module& m) { m.add(owned_tensor("weight.absmax", "F32", {8}, std::vector<float>(8, NAN))); }, "nan");
  refused([](Module& m) { m.add(owned_tensor("weight.nested_absmax", "F32", {1}, std::vector<float>{1})); }, "nested_offset");
  refused([](Module& m) { m.add(owned_tensor("SCB", "F32", {4}, std::vector<float>(4))); }, "type U8");
  Module m("m.q");
  m.add(owned_tensor("weight", "I8", {2, 3}, std::vector<std::int8_t>(6)));
  m.add(owned_tensor("SCB", "F32", {3}, std::vector<float>(3)));
  CHECK(read_bitsandbytes(m.tensors).error().message.find("SCB is 3") != std::string::npos);
  m.add(owned_tensor("SCB", "F32", {2}, std::vector<float>(2)));
  CHECK(read_bitsandbytes(m.tensors).ok());
  m.add(owned_tensor("weight_format", "U8", {}, std::vector<std::uint8_t>{2}));
  CHECK(read_bitsandbytes(m.tensors).error().code == ErrorCode::unsupported);
}
