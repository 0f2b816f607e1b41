#include <anybit/io/hqq.hpp>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "io/checkpoint_support.hpp"
#include "support/catch.hpp"

using namespace checkpoint_support;

namespace {

OwnedTensor number(const char* part, std::int32_t value) {
  return owned_tensor(part, "I32", {}, std::vector<std::int32_t>{value});
}

/// Codes of (rows, cols), the weight as HQQ views it, packed by the definition: code r * cols + c of a word's j-th field is row
/// j * step + r.
struct Example {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales, zeros;
  Index rows = 0, cols = 0;
};

Module packed(Example& e, Index outputs, Index inputs, int bits, int axis, Index group, int fields, bool words32) {
  const Index n = outputs * inputs, count = n / group;
  e.rows = axis == 1 ? count : group;
  e.cols = n / e.rows;
  std::mt19937 random(11);
  for (Index i = 0; i < n; ++i) e.codes.push_back(static_cast<std::uint8_t>(random() & ((1u << bits) - 1)));
  for (Index i = 0; i < count; ++i)
    e.scales.push_back(static_cast<float>(i + 1) / 64), e.zeros.push_back(static_cast<float>(i % 9) / 4);
  const int field_bits = (words32 ? 30 : 8) / fields;
  const Index step = ceil_div(e.rows, fields);
  std::vector<std::uint32_t> words(static_cast<std::size_t>(step * e.cols));
  for (Index r = 0; r < e.rows; ++r)
    for (Index c = 0; c < e.cols; ++c)
      words[static_cast<std::size_t>(r % step * e.cols + c)] |=
          static_cast<std::uint32_t>(e.codes[static_cast<std::size_t>(r * e.cols + c)]) << (field_bits * (fields - 1 - r / step));
  Module m("m.q");
  if (words32)
    m.add(owned_tensor("W_q", "I32", {step, e.cols}, words));
  else
    m.add(owned_tensor("W_q", "U8", {step, e.cols}, std::vector<std::uint8_t>(words.begin(), words.end())));
  const std::vector<Index> shape = axis == 1 ? std::vector<Index>{count, 1} : std::vector<Index>{1, count};
  m.add(owned_tensor("scale", "F32", shape, e.scales));
  m.add(owned_tensor("zero", "F32", shape, e.zeros));
  m.add(owned_tensor("shape", "I64", {2}, std::vector<std::int64_t>{outputs, inputs}));
  m.add(number("nbits", bits));
  m.add(number("axis", axis));
  m.add(number("group_size", static_cast<std::int32_t>(group)));
  return m;
}

}  // namespace

TEST_CASE("HQQ: every packing, both axes, groups across rows") {
  struct Case {
    int bits, fields;
    bool words32;
  };
  for (const Case c :
       {Case{8, 1, false}, {6, 1, false}, {5, 1, false}, {4, 2, false}, {3, 10, true}, {2, 4, false}, {1, 8, false}})
    for (const int axis : {0, 1})
      for (const Index group : {8, 16, 40}) {
        const Index outputs = 16, inputs = 40;
        INFO(c.bits << " bits, axis " << axis << ", group " << group);
        if (const Index rows = axis == 1 ? 640 / group : group; !c.words32 && rows % c.fields != 0) continue;
        Example e;
        const Module m = packed(e, outputs, inputs, c.bits, axis, group, c.fields, c.words32);
        const auto l = read_hqq(m.tensors);
        INFO((l ? "" : l.error().message));
        REQUIRE(l.ok());
        const Matrix w = dequantize(*l);
        REQUIRE(w.extents() == Extents{outputs, inputs});
        int wrong = 0;
        for (Index i = 0; i < outputs * inputs; ++i) {
          const auto s = static_cast<std::size_t>(axis == 1 ? i / e.cols : i % e.cols);
          wrong += w.data()[i] != (static_cast<float>(e.codes[static_cast<std::size_t>(i)]) - e.zeros[s]) * e.scales[s];
        }
        CHECK(wrong == 0);
      }
}

TEST_CASE("HQQ: contradictions and broken tensors are errors") {
  const auto refused = [](auto change, const std::string& part) {
    Example e;
    Module m = packed(e, 16, 40, 4, 1, 8, 2, false);
    change(m);
    const auto r = read_hqq(m.tensors);
    REQUIRE(!r.ok());
    INFO(r.error().message);
    CHECK(r.error().message.find(part) != std::string::npos);
    CHECK(r.error().message.find("m.q") != std::string::npos);
  };
  for (const char* part : {"W_q", "scale", "zero", "shape", "nbits", "axis"})
    refused([&](Module& m) { m.tensors.tensors.erase(part); }, part);
  refused([](Module& m) { m.add(number("group_size", 16)); }, "group_size is 16");
  refused([](Module& m) { m.add(number("nbits", 3)); }, "W_q has");
  refused([](Module& m) { m.add(number("nbits", 9)); }, "nbits is 9");
  refused([](Module& m) { m.add(number("axis", 2)); }, "axis 2");
  refused([](Module& m) { m.add(number("quant_zero", 1)); }, "quant_zero");
  refused([](Module& m) { m.add(owned_tensor("shape", "I64", {2}, std::vector<std::int64_t>{0, 40})); }, "shape");
  refused([](Module& m) { m.add(owned_tensor("shape", "I64", {2}, std::vector<std::int64_t>{16, 41})); }, "80 scales");
  refused([](Module& m) { m.add(owned_tensor("scale", "F32", {80, 1}, std::vector<float>(80, NAN))); }, "nan");
  refused([](Module& m) { m.add(owned_tensor("packing", "U8", {3}, std::vector<char>{'x', 'y', 'z'})); }, "xyz");
  refused(
      [](Module& m) {
        m.add(number("nbits", 2));
        m.add(owned_tensor("packing", "U8", {7}, std::vector<char>{'4', 'b', 'i', 't', '_', 'u', '8'}));
      },
      "more than 2 bits");
}
