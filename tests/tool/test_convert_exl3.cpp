// `anybit convert --to exl3`: folders that exllamav3's readers, and ours, find complete.

#ifdef ANYBIT_PROGRAM

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <anybit/algorithm/exl3.hpp>
#include <anybit/io/checkpoint.hpp>
#include <anybit/io/safetensors_writer.hpp>

#include "io/checkpoint_support.hpp"
#include "program.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "support/test_data.hpp"

namespace fs = std::filesystem;
using namespace checkpoint_support;
using test_support::same_bits;
using test_tool::contains, test_tool::Ended, test_tool::Program;

namespace {

/// A llama of one block, no extent of which is a multiple of 128, whose head is the embedding. It has no tokenizer.
void write_llama(const std::string& folder, const std::string& model_type = "llama") {
  fs::create_directories(folder);
  std::ofstream(folder + "/config.json")
      << R"({"model_type": ")" << model_type
      << R"(", "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, )"
         R"("num_hidden_layers": 1, "vocab_size": 24, "rms_norm_eps": 1e-5, "max_position_embeddings": 64, )"
         R"("tie_word_embeddings": true, "hidden_act": "silu"})";
  std::ofstream(folder + "/generation_config.json") << "{}";
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 0.1f);
  std::vector<OwnedTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<Index> shape) {
    std::vector<float> values(static_cast<std::size_t>(shape.size() == 1 ? shape[0] : shape[0] * shape[1]), 1.0f);
    if (shape.size() > 1)
      for (float& v : values) v = normal(random);
    tensors.push_back(owned_f16(name, shape, values));
  };
  add("model.embed_tokens.weight", {24, 32}), add("model.norm.weight", {32});
  const std::string block = "model.layers.0.";
  add(block + "input_layernorm.weight", {32}), add(block + "post_attention_layernorm.weight", {32});
  add(block + "self_attn.q_proj.weight", {32, 32}), add(block + "self_attn.o_proj.weight", {32, 32});
  add(block + "self_attn.k_proj.weight", {16, 32}), add(block + "self_attn.v_proj.weight", {16, 32});
  add(block + "mlp.gate_proj.weight", {40, 32}), add(block + "mlp.up_proj.weight", {40, 32});
  add(block + "mlp.down_proj.weight", {32, 40});
  std::vector<TensorInfo> infos;
  for (const OwnedTensor& t : tensors) infos.push_back(t.info());
  REQUIRE(write_safetensors(folder + "/model.safetensors", infos).ok());
}

}  // namespace

TEST_CASE("convert to EXL3: what the library quantizes, under the names and in the configuration of exllamav3") {
  const Program p;
  write_llama(p.path("in"));
  const Ended e = p.run("convert " + p.path("in") + " " + p.path("made") + " --to exl3 --bits 3 --head-bits 2 --codebook mcg");
  INFO(e.out << e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "8 modules at 3 bits, the head at 2"));
  CHECK(contains(e.out, "8 modules are padded with zeros to multiples of 128"));
  CHECK(contains(e.out, "not calibrated"));

  const auto source = Checkpoint::open(p.path("in")).value(), back = Checkpoint::open(p.path("made")).value();
  CHECK(back.method() == CheckpointMethod::exl3);
  CHECK(back.modules().size() == 8);
  for (const std::string& m : back.modules()) {
    INFO(m);
    const bool head = m == "lm_head";
    const Matrix w = source.read_f32(head ? "model.embed_tokens.weight" : m + ".weight").value();
    const auto bytes = back.read_packed(m);
    INFO((bytes ? "" : bytes.error().message));
    REQUIRE(bytes.ok());
    CHECK(bytes->extents() == w.extents());
    const auto same = [&](const auto& expected) {
      for (const SectionTag& tag : {section_tags::trellis, section_tags::input_scales, section_tags::output_scales}) {
        const auto a = bytes->section(tag), b = expected->tensor.bytes().section(tag);
        CHECK((a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin())));
      }
    };
    if (!head && !m.ends_with("k_proj") && !m.ends_with("down_proj")) continue;  // the search takes its time
    if (head)
      same(NearestExl3<2, Mcg>{}.quantize(w.view(), Stats{}));
    else
      same(NearestExl3<3, Mcg>{}.quantize(w.view(), Stats{}));
  }
  for (const std::string name : {"model.embed_tokens.weight", "model.norm.weight"})
    CHECK(same_bits(back.read_f32(name).value(), source.read_f32(name).value()));
  CHECK(back.find("model.layers.0.mlp.up_proj.weight")->dtype == Checkpoint::quantized_type);
  CHECK(p.read("made/generation_config.json") == "{}");

  const auto config = back.folder().config();
  CHECK_FALSE(config.boolean("tie_word_embeddings").value());
  const auto quantization = config.object("quantization_config").value();
  CHECK(quantization.text("quant_method").value() == "exl3");
  CHECK(quantization.integer("bits").value() == 3);
  CHECK(quantization.integer("head_bits").value() == 2);
  CHECK(quantization.text("codebook").value() == "mcg");
  CHECK(quantization.text("out_scales").value() == "always");
  const std::string listed = p.read("made/quantization_config.json");
  for (const std::string part :
       {"\"tensor_storage\"", "\"lm_head.trellis\"", "\"mcg_multiplier\": 3417055213", "\"torch.int16\""})
    CHECK(contains(listed, part));

  // The head may stay, tied as it was; and the folder runs.
  p.write("ids.json", R"([{"ids": [1, 2, 3, 4, 5]}])");
  CHECK(p.run("logits " + p.path("made") + " --ids " + p.path("ids.json") + " --out " + p.path("l.safetensors")).exit_code == 0);
  const Ended again = p.run("convert " + p.path("made") + " " + p.path("two") + " --to exl3 --bits 8 --head-bits 16");
  CHECK(again.exit_code == 3);
  CHECK(contains(again.err, "give --head-bits 1 to 8"));
  const Ended plain = p.run("convert " + p.path("in") + " " + p.path("two") + " --to exl3 --bits 1 --head-bits 16");
  REQUIRE(plain.exit_code == 0);
  CHECK(Checkpoint::open(p.path("two")).value().modules().size() == 7);
  CHECK(contains(p.read("two/config.json"), "\"tie_word_embeddings\": true"));
}

TEST_CASE("convert to EXL3 refuses what it cannot write, and leaves nothing behind") {
  const Program p;
  write_llama(p.path("in"));
  const std::size_t files = p.files();
  const std::string to = "convert " + p.path("in") + " " + p.path("made") + " --to exl3 ";
  CHECK(p.run(to + "--group 64").exit_code == 2);
  CHECK(p.run(to + "--bits 9").exit_code == 2);
  CHECK(p.run(to + "--head-bits 12").exit_code == 2);
  CHECK(p.run(to + "--codebook other").exit_code == 2);
  CHECK(p.run("convert " + p.path("in") + " " + p.path("made") + " --to gptq --bits 1").exit_code == 2);
  CHECK(contains(p.run(to + "--calibrate " + p.path("text.txt")).err, "tokenizer"));  // there is none
  CHECK(p.run("convert " + p.path("in") + " " + p.path("in") + " --to exl3").exit_code != 0);
  write_llama(p.path("unknown"), "no_such_model");
  CHECK(p.run("convert " + p.path("unknown") + " " + p.path("made") + " --to exl3").exit_code == 3);
  CHECK_FALSE(fs::exists(p.path("made")));
  CHECK(p.files() >= files);

  ANYBIT_TEST_DATA_OR_SKIP(fused, "vectors/checkpoints/ct_pack_b8_channel_phi3_fused");
  const Ended e = p.run("convert " + fused + " " + p.path("made") + " --to exl3");
  CHECK(e.exit_code == 3);
  CHECK(contains(e.err, "several linears"));
}

TEST_CASE("convert to EXL3 with a text: LDLQ block by block, nearer to the model's outputs") {
  ANYBIT_TEST_DATA_OR_SKIP(folder, "vectors/checkpoints/gptq_v2_b4_g128_asym");
  const Program p;
  const Ended e = p.run("convert " + folder + " " + p.path("made") + " --to exl3 --bits 2 --calibrate " + p.path("text.txt") +
                        " --calibration-tokens 2048");
  INFO(e.out << e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "calibrated on 8 windows of 256 tokens"));
  const auto made = Checkpoint::open(p.path("made")).value();
  const auto quantization = made.folder().config().object("quantization_config").value();
  CHECK(quantization.object("calibration").value().integer("rows").value() == 8);
  CHECK(p.run("generate " + p.path("made") + " --prompt a --tokens 2").exit_code == 0);
}

#endif
