#include <anybit/io/checkpoint.hpp>
#include <anybit/io/checkpoint_pack.hpp>
#include <anybit/io/safetensors_writer.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "io/checkpoint_support.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace checkpoint_support;
namespace fs = std::filesystem;

namespace {

/// Where W is exact in float32 the CRC decides; one more rounding may differ in the tools, and there the stored values do.
void check_folder(const std::string& folder, bool exact) {
  INFO(folder);
  const auto checkpoint = Checkpoint::open(folder);
  INFO((checkpoint ? "" : checkpoint.error().message));
  REQUIRE(checkpoint.ok());
  CHECK(checkpoint->remarks().empty());
  const auto text = MappedFile::open(folder + "/expected/expected.json").value();
  const JsonValue json = parse_json({reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()}).value();
  const JsonObject linears = JsonObject(json, "expected.json").object("linears").value();
  const auto stored = SafetensorsFile::open(folder + "/expected/dequant.safetensors").value();
  for (const std::string_view key : linears.keys()) {
    const std::string module(key);
    INFO(module);
    const JsonObject expected = linears.object(key).value();
    const auto w = checkpoint->read_f32(module + ".weight");
    INFO((w ? "" : w.error().message));
    REQUIRE(w.ok());
    CHECK(checkpoint->find(module + ".weight")->extents() == w->extents());
    if (exact) CHECK(crc32(*w) == static_cast<std::uint32_t>(expected.number("crc32").value()));
    const TensorInfo* whole = stored.find(module + ".weight");
    if (!whole) whole = stored.find(module + ".weight.first_rows");
    if (!whole) continue;
    const Matrix values = to_f32(*whole).value();
    REQUIRE(values.cols() == w->cols());
    float largest = 0, difference = 0;
    for (Index i = 0; i < values.extents().size(); ++i) {
      largest = std::max(largest, std::fabs(values.data()[i]));
      difference = std::max(difference, std::fabs(values.data()[i] - w->data()[i]));
    }
    CHECK(difference <= (exact ? 0 : 1e-6f) * largest);
  }
  for (const std::string& module : checkpoint->modules()) {
    INFO(module);
    CHECK(linears.has(module));
    CHECK(checkpoint->has_codes() == checkpoint->read(module).ok());
    CHECK(checkpoint->has_codes() == !checkpoint->read_packed(module).ok());
    if (!checkpoint->has_codes()) continue;
    const CheckpointLinear l = checkpoint->read(module).value();
    // HQQ's zero points are fractions, which no scheme has; everything else runs as it is stored.
    const auto packed = pack_checkpoint(l, "");
    CHECK(packed.ok() == (checkpoint->method() != CheckpointMethod::hqq));
  }
}

/// A folder of one quantized module, with a config text.
void write_folder(const std::string& folder, const std::string& config, const std::vector<OwnedTensor>& tensors) {
  std::ofstream(folder + "/config.json") << config;
  std::vector<TensorInfo> infos;
  for (const OwnedTensor& t : tensors) infos.push_back(t.info());
  REQUIRE(write_safetensors(folder + "/model.safetensors", infos).ok());
}
std::string gptq_config(const std::string& format, const std::string& more = "") {
  return R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32)" +
         (format.empty() ? "" : R"(, "checkpoint_format": ")" + format + '"') + more + "}}";
}

}  // namespace

TEST_CASE("checkpoints as the field's tools write them: every linear, to the bit") {
  ANYBIT_TEST_DATA_OR_SKIP(root, "vectors/checkpoints");
  for (const char* name :
       {"awq_gemm_b4_g64", "bnb_fp4", "ct_fp8_dynamic", "ct_int8_w8a8", "ct_mxfp4a16", "ct_pack_b3_g32", "ct_pack_b4_g128_asym",
        "ct_pack_b4_g128_sym_sharded", "ct_pack_b8_channel_phi3_fused", "gptq_p_b5_g32", "gptq_v1_b2_g32_asym", "gptq_v1_b3_g64",
        "gptq_v1_b4_dynamic", "gptq_v1_b4_g32_actorder", "gptq_v1_b4_g32_sym", "gptq_v1_b8_g64", "gptq_v2_b4_g128_asym"})
    check_folder(root + "/" + name, true);
  for (const char* name : {"bnb_int8", "bnb_nf4_dq", "ct_nvfp4a16", "hqq_b4_g64_axis1", "exl3_mul1_k3_k4"})
    check_folder(root + "/" + name, false);
}

TEST_CASE("checkpoints: modules are written again to the bytes that they had") {
  ANYBIT_TEST_DATA_OR_SKIP(root, "vectors/checkpoints");
  for (const auto& entry : fs::directory_iterator(root)) {
    const auto checkpoint = Checkpoint::open(entry.path().string());
    REQUIRE(checkpoint);
    const std::string name = entry.path().filename().string();
    INFO(name);
    for (const std::string& module : checkpoint->modules()) {
      const CheckpointLinear l = checkpoint->has_codes() ? checkpoint->read(module).value() : CheckpointLinear();
      std::vector<OwnedTensor> tensors;
      switch (checkpoint->method()) {
        case CheckpointMethod::gptq: tensors = write_gptq(module, l, gptq_format_of(checkpoint->config(), module).value()); break;
        case CheckpointMethod::awq: tensors = write_awq(module, l); break;
        case CheckpointMethod::compressed_tensors:
          if (l.levels == Levels::integer && checkpoint->folder().find(module + ".weight")) continue;  // int8 is written packed
          tensors = write_compressed(module, l, compressed_for(l).value());
          break;
        case CheckpointMethod::bitsandbytes:
          if (checkpoint->folder().find(module + ".weight.nested_absmax")) continue;  // scales are written in float
          tensors = write_bitsandbytes(module, l);
          break;
        case CheckpointMethod::exl3: tensors = write_exl3(module, checkpoint->read_packed(module).value()); break;
        default: continue;
      }
      for (const OwnedTensor& t : tensors) {
        INFO(t.name);
        const TensorInfo* const theirs = checkpoint->folder().find(t.name);
        REQUIRE(theirs);
        CHECK(t.dtype == theirs->dtype);
        if (t.name.find("quant_state") != std::string::npos) continue;  // JSON: order of keys
        CHECK(t.shape == theirs->shape);
        CHECK(std::equal(t.bytes.begin(), t.bytes.end(), theirs->bytes.begin(), theirs->bytes.end()));
      }
    }
  }
}

TEST_CASE("checkpoints: zero points as the data shows them, where the metadata names the other way or none") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "model";
  fs::create_directories(path);
  for (const GptqZeros stored : {GptqZeros::minus_one, GptqZeros::as_is})
    for (const std::string stated : {"gptq", "gptq_v2", ""})
      for (const bool symmetric : {true, false}) {
        INFO(static_cast<int>(stored) << " stated " << stated << " symmetric " << symmetric);
        CheckpointLinear l = random_linear(64, 128, 4, 32, true);
        if (!symmetric) {  // codes about their zero point, as weights of mean 0 are
          l.zeros.resize(l.scales.size());
          for (std::size_t i = 0; i < l.zeros.size(); ++i) l.zeros[i] = static_cast<float>(6 + i % 4);
          for (Index r = 0; r < 64; ++r)
            for (Index c = 0; c < 128; ++c)
              l.codes[static_cast<std::size_t>(r * 128 + c)] =
                  static_cast<std::uint8_t>(l.zero(l.scale_index(r, c)) + static_cast<float>(c % 5) - 2);
        }
        write_folder(path, gptq_config(stated), write_gptq("m.q", l, {4, 32, WordLayout::dense, stored}));
        const auto checkpoint = Checkpoint::open(path);
        INFO((checkpoint ? "" : checkpoint.error().message));
        REQUIRE(checkpoint.ok());
        CHECK(*checkpoint->read("m.q") == l);
        const bool wrong = (stated == "gptq_v2") != (stored == GptqZeros::as_is);
        CHECK(checkpoint->remarks().size() == (wrong ? 1u : 0u));
        if (wrong) CHECK(checkpoint->remarks()[0].find("zero points are those of gptq") != std::string::npos);
      }
}

TEST_CASE("checkpoints without a config are read where the tensors say enough") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "model";
  fs::create_directories(path);
  const CheckpointLinear l = random_linear(64, 128, 4, 32, true);
  write_folder(path, "{}", write_gptq("m.q", l, {4, 32}));
  CHECK(*Checkpoint::open(path)->read("m.q") == l);
  write_folder(path, "{}", write_awq("m.q", l));
  CHECK(*Checkpoint::open(path)->read("m.q") == l);
  CHECK(Checkpoint::open(path)->method() == CheckpointMethod::awq);
  write_folder(path, "{}", write_compressed("m.q", l, compressed_for(l).value()));
  CHECK(Checkpoint::open(path).error().message.find("quantization_config") != std::string::npos);
  // quantize_config.json beside it.
  write_folder(path, "{}", write_gptq("m.q", l, {4, 32}));
  std::ofstream(path + "/quantize_config.json") << R"({"bits": 4, "group_size": 64})";
  const auto checkpoint = Checkpoint::open(path);
  REQUIRE(checkpoint.ok());
  CHECK(checkpoint->read("m.q").error().message.find("group_size 64") != std::string::npos);
}

TEST_CASE("checkpoints: FP8 with a scale per block, as DeepSeek's") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "model";
  fs::create_directories(path);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(5 * 7));
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i * 5 % 120 + (i % 2) * 128);
  const std::vector<float> scales{0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f};
  write_folder(
      path, R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 4]}})",
      {owned_tensor("m.q.weight", "F8_E4M3", {5, 7}, codes), owned_tensor("m.q.weight_scale_inv", "F32", {3, 2}, scales)});
  const auto checkpoint = Checkpoint::open(path);
  INFO((checkpoint ? "" : checkpoint.error().message));
  REQUIRE(checkpoint.ok());
  const Matrix w = checkpoint->read_f32("m.q.weight").value();
  REQUIRE(w.extents() == Extents{5, 7});
  int wrong = 0;
  for (Index r = 0; r < 5; ++r)
    for (Index c = 0; c < 7; ++c)
      wrong += w(r, c) != scales[static_cast<std::size_t>(r / 2 * 2 + c / 4)] *
                              Minifloat<4, 3>::decode(codes[static_cast<std::size_t>(r * 7 + c)]);
  CHECK(wrong == 0);
  write_folder(
      path, R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 4]}})",
      {owned_tensor("m.q.weight", "F8_E4M3", {5, 7}, codes), owned_tensor("m.q.weight_scale_inv", "F32", {3, 2}, scales)});
  CHECK(Checkpoint::open(path)->read("m.q").error().message.find("weight_scale_inv is 3 x 2") != std::string::npos);
}

TEST_CASE("checkpoints: configs that contradict tensors or each other are errors that name both") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "model";
  fs::create_directories(path);
  const CheckpointLinear l = random_linear(64, 128, 4, 32, true);
  const auto refused = [&](const std::string& config, const std::string& part, const std::vector<OwnedTensor>& tensors) {
    write_folder(path, config, tensors);
    auto checkpoint = Checkpoint::open(path);
    const auto read = checkpoint ? checkpoint->read("m.q") : Result<CheckpointLinear>(checkpoint.error());
    REQUIRE(!read.ok());
    INFO(read.error().message);
    CHECK(read.error().message.find(part) != std::string::npos);
    CHECK(read.error().message.find(path) == 0);
    CHECK(read.error().message.find('\n') == std::string::npos);
  };
  const auto gptq = write_gptq("m.q", l, {4, 32});
  refused(gptq_config("gptq", R"(, "dynamic": {"-:m\\..*": {}})"), "skips it", gptq);
  refused(gptq_config("gptq", R"(, "dynamic": {"m\\.q": {"bits": 8}})"), "8 bits", gptq);
  refused(gptq_config("gptq", R"(, "dynamic": {"m(": {}})"), "pattern", gptq);
  refused(gptq_config("gptq", R"(, "dynamic": {"m": {"bits": 99}})"), "99", gptq);
  refused(gptq_config("marlin"), "marlin", gptq);
  refused(R"({"quantization_config": {"quant_method": "quip"}})", "quip", gptq);
  refused(R"({"quantization_config": {"quant_method": "gptq"}})", "bits", gptq);
  refused(R"({"quantization_config": {"quant_method": "gptq", "bits": 4.5}})", "4.5", gptq);
  refused(gptq_config("gptq"), "no tensor is quantized", {owned_f16("m.q.weight", {1, 1}, {1})});
  refused(R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}})", "gemv", gptq);
  refused(R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}})", "outputs", gptq);
  const auto packed = write_compressed("m.q", l, compressed_for(l).value());
  const auto compressed = [](const std::string& targets, const std::string& ignore) {
    return R"({"quantization_config": {"quant_method": "compressed-tensors", "ignore": [)" + ignore +
           R"(], "config_groups": {"group_0": {"targets": [)" + targets +
           R"(], "weights": {"num_bits": 4, "group_size": 32}}}}})";
  };
  write_folder(path, compressed("\"Linear\"", ""), packed);
  CHECK(*Checkpoint::open(path)->read("m.q") == l);
  write_folder(path, compressed(R"("re:.*\\.q$")", "\"lm_head\""), packed);
  CHECK(*Checkpoint::open(path)->read("m.q") == l);
  refused(compressed("\"Linear\"", R"("re:m\\.")"), "ignore", packed);
  refused(compressed(R"("re:.*\\.k$")", ""), "targets", packed);
  refused(compressed(R"("re:(")", ""), "pattern", packed);
  write_folder(path, gptq_config("gptq"), gptq);
  std::ofstream(path + "/quantize_config.json") << R"({"bits": 8, "group_size": 32})";
  const auto two = Checkpoint::open(path);
  REQUIRE(!two.ok());
  CHECK(two.error().message.find("bits is 4 in config.json: quantization_config and 8 in quantize_config.json") !=
        std::string::npos);
}

TEST_CASE("checkpoints: extents of EXL3 are the configuration's where its names are known and fit the padded ones") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "model";
  fs::create_directories(path);
  const std::string config = R"({"hidden_size": 200, "intermediate_size": 300, "moe_intermediate_size": 90, "vocab_size": 1000,
    "num_attention_heads": 10, "num_key_value_heads": 2, "quantization_config": {"quant_method": "exl3"}})";
  const auto module = [](const std::string& name, Index outputs, Index inputs) {
    std::vector<OwnedTensor> all;
    all.push_back(owned_tensor(name + ".trellis", "I16", {inputs / 16, outputs / 16, 32},
                               std::vector<std::int16_t>(static_cast<std::size_t>(inputs * outputs / 8), 77)));
    all.push_back(owned_f16(name + ".suh", {inputs}, std::vector<float>(static_cast<std::size_t>(inputs), 1)));
    all.push_back(owned_f16(name + ".svh", {outputs}, std::vector<float>(static_cast<std::size_t>(outputs), 1)));
    return all;
  };
  const struct {
    const char* name;
    Extents padded, real;
  } cases[] = {{"a.q_proj", {256, 256}, {200, 200}},     {"a.k_proj", {128, 256}, {40, 200}},
               {"a.o_proj", {256, 256}, {200, 200}},     {"a.qkv_proj", {384, 256}, {280, 200}},
               {"a.up_proj", {384, 256}, {300, 200}},    {"a.down_proj", {256, 384}, {200, 300}},
               {"e.0.gate_proj", {128, 256}, {90, 200}}, {"a.gate_up_proj", {640, 256}, {600, 200}},
               {"lm_head", {1024, 256}, {1000, 200}},    {"a.other", {256, 128}, {256, 128}},
               {"b.q_proj", {512, 128}, {512, 128}}};  // of another size than the config says
  std::vector<OwnedTensor> tensors;
  for (const auto& c : cases)
    for (OwnedTensor& t : module(c.name, c.padded.rows, c.padded.cols)) tensors.push_back(std::move(t));
  write_folder(path, config, tensors);
  const auto checkpoint = Checkpoint::open(path);
  INFO((checkpoint ? "" : checkpoint.error().message));
  REQUIRE(checkpoint.ok());
  for (const auto& c : cases) {
    INFO(c.name);
    const auto w = checkpoint->read_f32(std::string(c.name) + ".weight");
    REQUIRE(w);
    CHECK(w->extents() == c.real);
    CHECK(checkpoint->read_packed(c.name)->extents() == c.real);
  }
  CHECK(checkpoint->read_packed("c").error().message.find("'c' is no module quantized by EXL3") != std::string::npos);
  // Damaged modules are refused when they are listed or read, with the module's name.
  tensors.resize(3);
  tensors[1].shape = {128}, tensors[1].bytes.resize(256);
  write_folder(path, config, tensors);
  CHECK(Checkpoint::open(path)
            ->read_f32("a.q_proj.weight")
            .error()
            .message.find("exl3 module 'a.q_proj': 'a.q_proj.suh' is F16 (128)") != std::string::npos);
}
