#include <anybit/io/compressed_tensors.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "io/checkpoint_support.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace checkpoint_support;

namespace {

CompressedFormat format_of(int bits, Index group) {
  CompressedFormat f;
  f.bits = bits;
  f.group = group;
  return f;
}

}  // namespace

TEST_CASE("compressed-tensors: packed integers of every width are written and read again, odd sizes too") {
  for (int bits = 1; bits <= 8; ++bits)
    for (const bool symmetric : {true, false})
      for (const Extents e : {Extents{24, 70}, Extents{33, 96}, Extents{1, 1}}) {
        const Index group = e.cols % 32 == 0 ? 32 : e.cols;
        INFO(bits << " bits, " << e.rows << " x " << e.cols);
        const CheckpointLinear l = random_linear(e.rows, e.cols, bits, group, symmetric);
        const auto f = compressed_for(l);
        REQUIRE(f.ok());
        CHECK(f->group == (group == e.cols ? 0 : group));
        const Module m("m.q", write_compressed("m.q", l, *f));
        CHECK((m.tensors.find("weight_zero_point") != nullptr) == !l.symmetric());
        const auto back = read_compressed(m.tensors, *f);
        REQUIRE(back.ok());
        CHECK(*back == l);
      }
}

TEST_CASE("compressed-tensors: words of the older layout are told from the newer by their number, or by bits left over") {
  for (const int bits : {3, 5, 6, 7})
    for (const Index cols : {70, 96, 42}) {
      INFO(bits << " bits, " << cols << " inputs");
      const CheckpointLinear l = random_linear(8, cols, bits, cols, true);
      const Index words = words_of(WordLayout::padded, bits, cols);
      std::vector<std::uint32_t> packed(static_cast<std::size_t>(8 * words));
      for (Index r = 0; r < 8; ++r)
        pack_words(WordLayout::padded, bits, l.codes.data() + r * cols, cols, packed.data() + r * words, 1);
      Module m("m.q", write_compressed("m.q", l, format_of(bits, 0)));
      m.add(owned_tensor("weight_packed", "I32", {8, words}, packed));
      const auto back = read_compressed(m.tensors, format_of(bits, 0));
      REQUIRE(back.ok());
      CHECK(*back == l);
    }
}

TEST_CASE("compressed-tensors: bytes, by channel, tensor and block, with zero points") {
  const Index rows = 6, cols = 10;
  std::vector<std::int8_t> weights;
  for (int i = 0; i < 60; ++i) weights.push_back(static_cast<std::int8_t>(i * 37 - 128));
  Module m("m.q");
  m.add(owned_tensor("weight", "I8", {rows, cols}, weights));
  const auto expect = [&](const CompressedFormat& f, auto scale, auto zero) {
    const auto l = read_compressed(m.tensors, f);
    INFO((l ? "" : l.error().message));
    REQUIRE(l.ok());
    const Matrix w = dequantize(*l);
    int wrong = 0;
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) {
        const float level = static_cast<float>(weights[static_cast<std::size_t>(r * cols + c)]);
        wrong += w(r, c) != scale(r, c) * (level - zero(r));
      }
    CHECK(wrong == 0);
  };
  const auto none = [](Index) { return 0.0f; };
  m.add(owned_tensor("weight_scale", "F32", {rows, 1}, std::vector<float>{1, 2, 3, 4, 5, 6}));
  expect(format_of(8, 0), [](Index r, Index) { return static_cast<float>(r + 1); }, none);
  m.add(owned_tensor("weight_zero_point", "I8", {rows, 1}, std::vector<std::int8_t>{0, -128, 127, 1, 2, 3}));
  const float zeros[] = {0, -128, 127, 1, 2, 3};
  expect(format_of(8, 0), [](Index r, Index) { return static_cast<float>(r + 1); }, [&](Index r) { return zeros[r]; });
  m.tensors.tensors.erase("weight_zero_point");
  m.add(owned_tensor("weight_scale", "F32", {1}, std::vector<float>{0.5f}));
  expect(format_of(8, 0), [](Index, Index) { return 0.5f; }, none);
  m.add(owned_tensor("weight_scale", "F32", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6}));
  CompressedFormat blocks = format_of(8, 0);
  blocks.block = {4, 4};
  expect(blocks, [](Index r, Index c) { return static_cast<float>(r / 4 * 3 + c / 4 + 1); }, none);
  blocks.block = {3, 4};
  expect(blocks, [](Index r, Index c) { return static_cast<float>(r / 3 * 3 + c / 4 + 1); }, none);
  blocks.block = {2, 4};
  CHECK(read_compressed(m.tensors, blocks).error().message.find("3 x 3") != std::string::npos);
}

TEST_CASE("compressed-tensors: FP8, MXFP4 and NVFP4 are written and read again") {
  CheckpointLinear l = random_linear(6, 64, 8, 64, true);
  l.levels = Levels::e4m3;
  for (auto& c : l.codes)
    if ((c & 0x7F) == 0x7F) c = 0;
  const auto round_trip = [](const CheckpointLinear& layer) {
    const auto f = compressed_for(layer);
    INFO((f ? "" : f.error().message));
    REQUIRE(f.ok());
    const Module m("m.q", write_compressed("m.q", layer, *f));
    const auto back = read_compressed(m.tensors, *f);
    REQUIRE(back.ok());
    CHECK(*back == layer);
  };
  round_trip(l);
  CheckpointLinear fp4 = random_linear(6, 64, 4, 32, true);
  fp4.levels = Levels::e2m1;
  for (std::size_t i = 0; i < fp4.scales.size(); ++i) fp4.scales[i] = std::ldexp(1.0f, static_cast<int>(i) - 4);
  round_trip(fp4);
  CHECK(dequantize(fp4)(0, 0) == fp4.scales[0] * Minifloat<2, 1>::decode(fp4.codes[0]));
  CheckpointLinear nv = random_linear(6, 64, 4, 16, true);
  nv.levels = Levels::e2m1;
  for (std::size_t i = 0; i < nv.scales.size(); ++i) nv.scales[i] = Minifloat<4, 3>::decode(static_cast<Code>(1 + i));
  nv.divisor = 2.7f;
  round_trip(nv);
  nv.scales[0] = 0.3f;
  CHECK(!compressed_for(nv).ok());
}

TEST_CASE("compressed-tensors: contradictions and broken tensors are errors that name both sides") {
  const CheckpointLinear l = random_linear(32, 64, 4, 32, false);
  const CompressedFormat good = compressed_for(l).value();
  const auto refused = [&](auto change, const CompressedFormat& f, const std::string& part) {
    Module m("m.q", write_compressed("m.q", l, good));
    change(m);
    const auto r = read_compressed(m.tensors, f);
    REQUIRE(!r.ok());
    INFO(r.error().message);
    CHECK(r.error().message.find(part) != std::string::npos);
    CHECK(r.error().message.find("m.q") != std::string::npos);
    CHECK(r.error().message.find('\n') == std::string::npos);
  };
  const auto nothing = [](Module&) {};
  refused(nothing, format_of(8, 32), "8 bits");
  refused(nothing, format_of(4, 64), "group_size 64");
  refused(nothing, format_of(4, 0), "one scale per output");
  CompressedFormat wrong = good;
  wrong.is_float = true;
  refused(nothing, wrong, "float");
  wrong = good;
  wrong.block = {0, 4};
  refused(nothing, wrong, "block_structure");
  for (const char* part : {"weight_packed", "weight_shape", "weight_scale"})
    refused([&](Module& m) { m.tensors.tensors.erase(part); }, good,
            part == std::string("weight_packed") ? "no tensor weight" : part);
  for (const char* part : {"weight_packed", "weight_shape", "weight_scale", "weight_zero_point"})
    refused([&](Module& m) { m[part].dtype = "BOOL"; }, good, "type BOOL");
  refused([](Module& m) { m.add(owned_tensor("weight_shape", "I64", {2}, std::vector<std::int64_t>{-1, 64})); }, good,
          "weight_shape");
  refused(
      [](Module& m) { m.add(owned_tensor("weight_shape", "I64", {2}, std::vector<std::int64_t>{32, std::int64_t{1} << 60})); },
      good, "weight_shape");
  refused([](Module& m) { m.add(owned_tensor("weight_shape", "I64", {2}, std::vector<std::int64_t>{32, 96})); }, good, "32 x 96");
  refused([](Module& m) { m["weight_zero_point"].shape = {2, 4}; }, good, "weight_zero_point is 2 x 4");
  refused([](Module& m) { m.add(owned_tensor("weight_scale", "F32", {32, 2}, std::vector<float>(64, INFINITY))); }, good, "inf");
  refused([](Module& m) { m.add(owned_tensor("weight_g_idx", "I32", {64}, std::vector<std::int32_t>(64, 2))); }, good,
          "of 2 groups");
  Module nan("m.q");
  nan.add(owned_tensor("weight", "F8_E4M3", {1, 2}, std::vector<std::uint8_t>{0x10, 0xFF}));
  nan.add(owned_tensor("weight_scale", "F32", {1, 1}, std::vector<float>{1}));
  wrong = format_of(8, 0);
  CHECK(read_compressed(nan.tensors, wrong).error().message.find("F8_E4M3") != std::string::npos);
  wrong.is_float = true;
  CHECK(read_compressed(nan.tensors, wrong).error().code == ErrorCode::not_finite);
}
