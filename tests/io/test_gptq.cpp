#include <anybit/io/gptq.hpp>
#include <anybit/io/safetensors.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "io/checkpoint_support.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace checkpoint_support;

namespace {

Module gptq_module(const CheckpointLinear& l, const GptqFormat& f) { return Module("m.q", write_gptq("m.q", l, f)); }

/// One line that names module and part of the contradiction, with a remedy.
template <class R>
void check_refused(const R& r, const std::string& part) {
  REQUIRE(!r.ok());
  INFO(r.error().message);
  CHECK(r.error().message.find(part) != std::string::npos);
  CHECK(r.error().message.find("m.q") != std::string::npos);
  CHECK(r.error().message.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("GPTQ: GPTQModel's own words, both ways: v1, v2, act-order and borrowed zero points") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/packing.safetensors");
  const auto file = SafetensorsFile::open(path);
  REQUIRE(file.ok());
  constexpr int bits_of_case[] = {2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 8, 8, 8};
  for (int i = 0; i < 18; ++i) {
    const std::string name = std::string("gptq.") + (i < 10 ? "0" : "") + std::to_string(i);
    INFO(name);
    const auto codes = file->read<std::uint8_t>(name + ".codes").value();
    const auto zeros = file->read<std::int32_t>(name + ".zeros").value();
    for (const bool v1 : {true, false}) {
      ModuleTensors m;
      m.name = name;
      m.tensors = {{"qweight", file->find(name + ".qweight")},
                   {"qzeros", file->find(name + (v1 ? ".qzeros_v1" : ".qzeros_v2"))},
                   {"scales", file->find(name + ".scales")},
                   {"g_idx", file->find(name + ".g_idx")}};
      GptqFormat f;
      f.bits = bits_of_case[i];
      f.zeros = v1 ? GptqZeros::minus_one : GptqZeros::as_is;
      const auto l = read_gptq(m, f);
      REQUIRE(l.ok());
      CHECK(l->codes == codes);
      int wrong = 0;
      for (std::size_t z = 0; z < zeros.size(); ++z) wrong += l->zeros[z] != static_cast<float>(zeros[z]);
      CHECK(wrong == 0);
      if (const TensorInfo* const half = file->find(name + ".dequant_f16")) {
        const Matrix expected = to_f32(*half).value(), w = dequantize(*l);
        int different = 0;
        for (Index k = 0; k < w.extents().size(); ++k) different += f16_to_f32(f32_to_f16(w.data()[k])) != expected.data()[k];
        CHECK(different == 0);
      }
      for (const OwnedTensor& t : write_gptq(name, *l, f)) {
        INFO(t.name);
        const TensorInfo* const theirs = m.find(std::string_view(t.name).substr(name.size() + 1));
        REQUIRE(theirs);
        CHECK(t.dtype == theirs->dtype);
        CHECK(t.shape == theirs->shape);
        CHECK(std::equal(t.bytes.begin(), t.bytes.end(), theirs->bytes.begin(), theirs->bytes.end()));
      }
      // The data shows the convention wherever zero points have no choice, and never the wrong one.
      const auto evidence = gptq_evidence(m, f, true);
      REQUIRE(evidence.ok());
      if (l->symmetric()) CHECK(evidence->certain);
      if (evidence->certain || evidence->likely) CHECK(evidence->zeros == f.zeros);
    }
  }
}

TEST_CASE("GPTQ: every width and layout is written and read again, groups ragged and whole") {
  for (int bits = 2; bits <= 8; ++bits)
    for (const Index group : {32, 96, 160, 64})
      for (const bool symmetric : {true, false}) {
        const CheckpointLinear l = random_linear(64, 160, bits, group, symmetric);
        for (const WordLayout layout : {WordLayout::dense, WordLayout::planar}) {
          if (layout == WordLayout::dense && bits >= 5 && bits <= 7) continue;
          for (const GptqZeros zeros : {GptqZeros::minus_one, GptqZeros::as_is}) {
            INFO(bits << " bits, group " << group << ", layout " << static_cast<int>(layout));
            const GptqFormat f{bits, group == 160 ? -1 : group, layout, zeros};
            REQUIRE(gptq_can_hold(l, f).ok());
            const Module m = gptq_module(l, f);
            const auto back = read_gptq(m.tensors, f);
            REQUIRE(back.ok());
            CHECK(*back == l);
          }
        }
      }
}

TEST_CASE("GPTQ: act-order keeps the order of columns") {
  CheckpointLinear l = random_linear(32, 64, 4, 32, false);
  for (Index c = 0; c < 64; ++c) l.group_of_column.push_back(static_cast<std::uint32_t>(c * 37 % 64 / 32));
  const GptqFormat f{4, 32};
  const Module m = gptq_module(l, f);
  const auto back = read_gptq(m.tensors, f);
  REQUIRE(back.ok());
  CHECK(*back == l);
  const Matrix w = dequantize(*back);
  for (Index r = 0; r < 32; ++r)
    for (Index c = 0; c < 64; ++c) {
      const Index i = r * 2 + c * 37 % 64 / 32;
      CHECK(w(r, c) ==
            l.scales[static_cast<std::size_t>(i)] *
                (static_cast<float>(l.codes[static_cast<std::size_t>(r * 64 + c)]) - l.zeros[static_cast<std::size_t>(i)]));
    }
}

TEST_CASE("GPTQ: contradictions and broken tensors are errors that name both sides") {
  const CheckpointLinear l = random_linear(32, 64, 4, 32, false);
  const GptqFormat good{4, 32};
  const auto with = [&](auto change, GptqFormat f) {
    Module m = gptq_module(l, good);
    change(m);
    return read_gptq(m.tensors, f);
  };
  const auto nothing = [](Module&) {};
  check_refused(with(nothing, {8, 32}), "8 bits");
  check_refused(with(nothing, {4, 64}), "group_size 64");
  check_refused(with(nothing, {4, -1}), "group_size -1");
  check_refused(with(nothing, {5, 32}), "gptq_p");
  check_refused(with(nothing, {9, 32}), "9 bits");
  check_refused(with(nothing, {4, -7}), "-7");
  CHECK(with(nothing, {4, 0}).ok());
  for (const char* part : {"qweight", "scales", "qzeros"}) {
    check_refused(with([&](Module& m) { m.tensors.tensors.erase(part); }, good), part);
    check_refused(with([&](Module& m) { m[part].dtype = "U8"; }, good), "type U8");
    check_refused(with([&](Module& m) { m[part].shape = {32}; }, good), "1 extents");
    check_refused(with([&](Module& m) { m[part].shape = {0, 4}, m[part].bytes = {}; }, good), "empty");
    check_refused(with([&](Module& m) { m[part].shape[0] += 1; }, good), part == std::string("qweight") ? "rows of words" : part);
    check_refused(with([&](Module& m) { m[part].shape[1] += 1; }, good), part == std::string("qzeros") ? "qzeros" : "outputs");
  }
  const auto set_g_idx = [&](std::int32_t value) {
    return [value](Module& m) {
      std::vector<std::int32_t> g(64, 0);
      g[9] = value;
      m.add(owned_tensor("g_idx", "I32", {64}, g));
    };
  };
  check_refused(with(set_g_idx(2), good), "entry 9 is 2 of 2 groups");
  check_refused(with(set_g_idx(-1), good), "entry 9 is -1");
  CHECK(with(set_g_idx(1), good).ok());
  check_refused(with([](Module& m) { m.add(owned_tensor("g_idx", "I32", {63}, std::vector<std::int32_t>(63))); }, {3, 32}),
                "63 inputs");
  check_refused(
      with([](Module& m) { m.add(owned_tensor("scales", "F32", {2, 32}, std::vector<float>(64, std::nanf("")))); }, good), "nan");
}

TEST_CASE("GPTQ: what it cannot hold is said, and not written") {
  CheckpointLinear l = random_linear(32, 64, 4, 32, false);
  const GptqFormat f{4, 32};
  CHECK(gptq_can_hold(l, f).ok());
  CHECK(!gptq_can_hold(l, {8, 32}).ok());
  CheckpointLinear odd = random_linear(30, 64, 4, 32, false);
  CHECK(gptq_can_hold(odd, f).error().message.find("multiple of 8") != std::string::npos);
  l.zeros[3] = 7.5f;
  CHECK(gptq_can_hold(l, f).error().message.find("zero point") != std::string::npos);
  l.zeros[3] = 7;
  l.scales[5] = 0.1f;
  CHECK(gptq_can_hold(l, f).error().message.find("binary16") != std::string::npos);
}
