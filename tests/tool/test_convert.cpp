// `anybit dequantize` and `anybit convert` on small checkpoints, and what they say of what they did.

#ifdef ANYBIT_PROGRAM

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <anybit/evaluate/sensitivity.hpp>
#include <anybit/io/anybit_file.hpp>
#include <anybit/io/checkpoint.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/gguf_mix.hpp>
#include <anybit/io/imatrix.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/quantize/ggml_gptq.hpp>

#include "convert/checkpoint_folder.hpp"
#include "convert/gguf_types.hpp"
#include "convert/target.hpp"
#include "io/checkpoint_support.hpp"
#include "program.hpp"
#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/same_bits.hpp"
#include "support/test_data.hpp"

namespace fs = std::filesystem;
using namespace checkpoint_support;
using test_support::same_bits;
using test_tool::contains, test_tool::Ended, test_tool::Program;

namespace {

/// A folder of two GPTQ linears, one of them in groups of its own, an embedding, a head and a tokenizer's file.
void write_checkpoint(const std::string& folder) {
  fs::create_directories(folder);
  std::ofstream(folder + "/config.json")
      << R"({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64, )"
         R"("checkpoint_format": "gptq_v2", "dynamic": {".*down_proj": {"group_size": 32}}}})";
  std::ofstream(folder + "/tokenizer.json") << "{}";
  std::vector<OwnedTensor> tensors;
  for (const auto& [name, group] : {std::pair("layers.0.up_proj", 64), {"layers.0.down_proj", 32}}) {
    const auto written = write_gptq(name, random_linear(64, 128, 4, group, false, static_cast<unsigned>(group)),
                                    {4, group, WordLayout::dense, GptqZeros::as_is});
    tensors.insert(tensors.end(), written.begin(), written.end());
  }
  tensors.push_back(owned_f16("embed_tokens.weight", {4, 64}, std::vector<float>(256, 0.25f)));
  tensors.push_back(owned_f16("lm_head.weight", {4, 64}, std::vector<float>(256, 0.5f)));
  tensors.push_back(owned_f16("layers.0.up_proj.bias", {64}, std::vector<float>(64, 1)));
  std::vector<TensorInfo> infos;
  for (const OwnedTensor& t : tensors) infos.push_back(t.info());
  REQUIRE(write_safetensors(folder + "/model.safetensors", infos).ok());
}

}  // namespace

TEST_CASE("dequantize writes every matrix in float32, of folders and files") {
  const Program p;
  write_checkpoint(p.path("in"));
  const Ended e = p.run("dequantize " + p.path("in") + " --out " + p.path("w.safetensors"));
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "4 matrices in float32"));
  CHECK(contains(e.out, "GPTQ checkpoint"));
  CHECK(contains(e.out, "2 of them quantized"));
  const auto out = SafetensorsFile::open(p.path("w.safetensors")).value();
  CHECK(out.tensors().size() == 4);
  CHECK(same_bits(out.read_f32("layers.0.up_proj.weight").value(), dequantize(random_linear(64, 128, 4, 64, false, 64))));
  CHECK(same_bits(out.read_f32("layers.0.down_proj.weight").value(), dequantize(random_linear(64, 128, 4, 32, false, 32))));
  CHECK(out.read_f32("lm_head.weight").value()(3, 63) == 0.5f);

  const Ended gguf = p.run("dequantize " + p.model() + " --out " + p.path("g.safetensors"));
  REQUIRE(gguf.exit_code == 0);
  const auto weights = SafetensorsFile::open(p.path("g.safetensors")).value();
  CHECK(weights.find("blk.0.attn_q.weight") != nullptr);
  CHECK(weights.find("blk.0.attn_norm.weight") == nullptr);

  const std::size_t files = p.files();
  CHECK(p.run("dequantize " + p.path("in") + " --out " + p.path("in/model.safetensors")).exit_code == 2);
  CHECK(p.run("dequantize " + p.path("absent") + " --out " + p.path("x")).exit_code == 3);
  p.write("in/config.json", R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}})");
  const Ended bad = p.run("dequantize " + p.path("in") + " --out " + p.path("x"));
  CHECK(bad.exit_code == 3);
  CHECK(contains(bad.err, "group_size 128"));
  CHECK(p.files() == files);
}

TEST_CASE("convert keeps codes where the target has the grid, and says so") {
  const Program p;
  write_checkpoint(p.path("in"));
  const auto source = Checkpoint::open(p.path("in")).value();
  for (const std::string to : {"gptq", "gptq_v2", "gptq_p", "awq", "compressed-tensors"}) {
    const Ended e = p.run("convert " + p.path("in") + " " + p.path(to) + " --to " + to);
    INFO(to << ": " << e.out << e.err);
    REQUIRE(e.exit_code == 0);
    CHECK(contains(e.out, "exact: all 2 quantized layers"));
    const auto back = Checkpoint::open(p.path(to));
    INFO((back ? "" : back.error().message));
    REQUIRE(back.ok());
    CHECK(back->remarks().empty());
    CHECK(back->modules() == source.modules());
    for (const std::string& m : source.modules())
      CHECK(same_bits(back->read_f32(m + ".weight").value(), source.read_f32(m + ".weight").value()));
    CHECK(back->folder().read_f32("layers.0.up_proj.bias").value()(0, 63) == 1);
    CHECK(back->folder().config().text("model_type").value() == "llama");
    CHECK(p.read(to + "/tokenizer.json") == "{}");
  }
  // From each of them back to the first: the same bytes again.
  for (const std::string from : {"gptq", "gptq_p", "compressed-tensors"}) {
    REQUIRE(p.run("convert " + p.path(from) + " " + p.path(from + "-back") + " --to gptq_v2").exit_code == 0);
    CHECK(p.read(from + "-back/model.safetensors") == p.read("gptq_v2/model.safetensors"));
  }
}

TEST_CASE("convert to anybit's container: the codes packed, under the checkpoint's names") {
  const Program p;
  write_checkpoint(p.path("in"));
  const Ended e = p.run("convert " + p.path("in") + " " + p.path("out.safetensors") + " --to anybit");
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "exact: all 2 quantized layers"));
  const auto file = AnybitFile::open(p.path("out.safetensors")).value();
  CHECK(file.packed("layers.0.down_proj.weight")->scheme_name() == "uint4/g32/f16/bits");
  CHECK(file.packed("layers.0.up_proj.weight")->scheme_name() == "uint4/g64/f16/bits");
  CHECK(file.read_f32("lm_head.weight").value()(0, 0) == 0.5f);
  REQUIRE(p.run("dequantize " + p.path("in") + " --out " + p.path("a")).exit_code == 0);
  REQUIRE(p.run("dequantize " + p.path("out.safetensors") + " --out " + p.path("b")).exit_code == 0);
  const auto a = SafetensorsFile::open(p.path("a")).value(), b = SafetensorsFile::open(p.path("b")).value();
  REQUIRE(a.tensors().size() == b.tensors().size());
  for (const TensorInfo& t : a.tensors()) CHECK(same_bits(a.read_f32(t.name).value(), b.read_f32(t.name).value()));
}

TEST_CASE("convert to anybit's container: a checkpoint that anybit runs becomes a model that generate and logits open") {
  ANYBIT_TEST_DATA_OR_SKIP(folder, "vectors/checkpoints/gptq_v2_b4_g128_asym");
  const Program p;
  const Ended e = p.run("convert " + folder + " " + p.path("m.safetensors") + " --to anybit");
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "exact: "));
  CHECK(p.run("generate " + p.path("m.safetensors") + " --prompt a --tokens 2").exit_code == 0);
  p.write("ids.json", R"([{"ids": [1, 2, 3, 4, 5]}])");
  for (const auto& [model, out] : {std::pair(folder, "a"), {p.path("m.safetensors"), "b"}})
    REQUIRE(p.run("logits " + model + " --ids " + p.path("ids.json") + " --out " + p.path(out)).exit_code == 0);
  const auto a = SafetensorsFile::open(p.path("a")).value(), b = SafetensorsFile::open(p.path("b")).value();
  CHECK(same_bits(a.read_f32("p0.logits").value(), b.read_f32("p0.logits").value()));
}

TEST_CASE("convert to GGUF: a checkpoint has the same logits as a file of floats, and its tokenizer") {
  ANYBIT_TEST_DATA_OR_SKIP(folder, "vectors/checkpoints/gptq_v2_b4_g128_asym");
  const Program p;
  const Ended e = p.run("convert " + folder + " " + p.path("m.gguf") + " --to gguf --type F32");
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "exact: every weight of the input is kept"));
  p.write("ids.json", R"([{"ids": [1, 2, 3, 4, 5, 60, 7, 8]}])");
  for (const auto& [model, out] : {std::pair(folder, "a"), {p.path("m.gguf"), "b"}})
    REQUIRE(p.run("logits " + model + " --ids " + p.path("ids.json") + " --out " + p.path(out)).exit_code == 0);
  const auto a = SafetensorsFile::open(p.path("a")).value(), b = SafetensorsFile::open(p.path("b")).value();
  CHECK(test_support::largest_difference(a.read_f32("p0.logits").value().view(), b.read_f32("p0.logits").value().view()) < 1e-4);
  p.write("texts.json", R"(["ab cd", "  x\n1"])");
  const Ended ours = p.run("tokenize " + folder + " --json " + p.path("texts.json"));
  REQUIRE(ours.exit_code == 0);
  CHECK(p.run("tokenize " + p.path("m.gguf") + " --json " + p.path("texts.json")).out == ours.out);
}

TEST_CASE("convert from GGUF to GGUF: metadata stay, tensors take the type of the mix or their neighbours' and say so") {
  const Program p;
  const Ended e = p.run("convert " + p.model() + " " + p.path("q.gguf") + " --to gguf --type Q4_K_M");
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "largest error of a weight"));
  const auto a = GgufFile::open(p.model()).value(), b = GgufFile::open(p.path("q.gguf")).value();
  CHECK(b.get_u64("general.file_type").value() == 15);
  CHECK(b.get_u64("general.quantization_version").value() == 2);
  for (const std::string& key : a.keys())
    if (key != "general.file_type" && key != "general.quantization_version") CHECK(a.raw(key)->bytes == b.raw(key)->bytes);
  REQUIRE(a.tensors().size() == b.tensors().size());
  bool short_rows = false;
  for (std::size_t i = 0; i < a.tensors().size(); ++i) {
    CHECK(a.tensors()[i].name == b.tensors()[i].name);
    CHECK(a.tensors()[i].shape == b.tensors()[i].shape);
    short_rows = short_rows || (b.tensors()[i].shape.size() == 2 && b.tensors()[i].shape[1] % 256 != 0);
  }
  CHECK(contains(e.out, "llama.cpp does the same") == short_rows);
  CHECK((p.run("convert " + p.model() + " " + p.path("s.gguf") + " --to gguf --strict").exit_code == 0) == !short_rows);
  CHECK(p.run("generate " + p.path("q.gguf") + " --prompt a --tokens 2").exit_code == 0);
  // The same types again: every byte stays.
  const Ended again = p.run("convert " + p.path("q.gguf") + " " + p.path("r.gguf") + " --to gguf --type Q4_K_M");
  REQUIRE(again.exit_code == 0);
  CHECK(contains(again.out, "exact: every weight"));
  CHECK(p.read("q.gguf") == p.read("r.gguf"));

  CHECK(p.run("convert " + p.model() + " " + p.path("x") + " --to gguf --type Q4_K").exit_code == 2);
  CHECK(p.run("convert " + p.model() + " " + p.model() + " --to gguf").exit_code == 2);
  CHECK(p.run("convert " + p.path("text.txt") + " " + p.path("x") + " --to gguf").exit_code == 3);
  CHECK(!fs::exists(p.path("x")));
}

TEST_CASE("convert to GGUF with a text: linears are rounded for their outputs, and the importance matrix is written") {
  ANYBIT_TEST_DATA_OR_SKIP(model, "vectors/gguf/llama_f16.gguf");
  const Program p;
  const std::string to_gguf = " --to gguf --type Q4_0";
  const Ended e = p.run("convert " + model + " " + p.path("text.gguf") + to_gguf + " --calibrate " + p.path("text.txt") +
                        " --calibration-tokens 2048 --write-imatrix " + p.path("imatrix.gguf"));
  INFO(e.err);
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "16 rounded (15 of them for the error of their outputs)"));
  const auto importance = Imatrix::open(p.path("imatrix.gguf"));
  REQUIRE(importance.ok());
  CHECK(importance->entries.size() == 14);
  CHECK(importance->entries.contains("blk.1.ffn_down.weight"));
  const Ended weighed =
      p.run("convert " + model + " " + p.path("weighed.gguf") + to_gguf + " --imatrix " + p.path("imatrix.gguf"));
  INFO(weighed.err);
  REQUIRE(weighed.exit_code == 0);
  CHECK(contains(weighed.out, "16 rounded (14 of them for the error of their outputs)"));
  CHECK(p.read("weighed.gguf") != p.read("text.gguf"));
  Imatrix other = *importance;
  for (auto& [tensor, entry] : other.entries) entry.sums.pop_back();
  REQUIRE(other.save(p.path("other.gguf")).ok());
  const Ended wrong = p.run("convert " + model + " " + p.path("x") + to_gguf + " --imatrix " + p.path("other.gguf"));
  CHECK(wrong.exit_code == 3);
  CHECK(contains(wrong.err, "give the one that was made for this model"));
  CHECK(p.run("convert " + model + " " + p.path("x") + to_gguf + " --imatrix " + p.path("imatrix.gguf") + " --calibrate " +
              p.path("text.txt"))
            .exit_code == 2);
  CHECK(p.run("convert " + model + " " + p.path("x") + to_gguf + " --calibrate " + p.path("none")).exit_code == 4);
  p.write("short.txt", "too short");
  CHECK(p.run("convert " + model + " " + p.path("x") + to_gguf + " --calibrate " + p.path("short.txt")).exit_code == 3);
  CHECK(!fs::exists(p.path("x")));
}

namespace {

Index bytes_of_matrices(const GgufFile& file, Index& weights) {
  Index bytes = 0;
  for (const TensorInfo& t : file.tensors())
    if (t.shape.size() == 2) bytes += static_cast<Index>(t.bytes.size()), weights += t.shape[0] * t.shape[1];
  return bytes;
}

}  // namespace

TEST_CASE("convert to GGUF for a size: types are chosen, the size is met and known, whatever the number of threads") {
  const Program p;
  const std::string text = " --to gguf --calibrate " + p.path("text.txt") + " --calibration-tokens 1024";
  const auto convert = [&](const std::string& out, const std::string& more) {
    const Ended e = p.run("convert " + p.model() + " " + p.path(out) + text + more);
    INFO(e.err);
    REQUIRE(e.exit_code == 0);
    CHECK(contains(e.out, "\n" + std::to_string(fs::file_size(p.path(out))) + " bytes\n"));
    return e;
  };
  convert("mix.gguf", " --type Q5_0");
  const Ended e = convert("chosen.gguf", " --target-size Q5_0");
  CHECK(contains(e.out, "gguf of chosen types from"));
  CHECK(contains(e.out, "expected KL"));
  const auto size = fs::file_size(p.path("chosen.gguf")), limit = fs::file_size(p.path("mix.gguf"));
  CHECK(size <= limit);
  CHECK(static_cast<double>(size) > 0.97 * static_cast<double>(limit));
  convert("again.gguf", " --threads 1 --target-size " + std::to_string(limit));
  CHECK(p.read("chosen.gguf") == p.read("again.gguf"));
  CHECK(p.run("generate " + p.path("chosen.gguf") + " --prompt a --tokens 2").exit_code == 0);

  const auto file = GgufFile::open(p.path("chosen.gguf")).value(), source = GgufFile::open(p.model()).value();
  std::map<std::string, Index> weights_of;
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    const TensorInfo& t = file.tensors()[i];
    CHECK(t.name == source.tensors()[i].name);
    CHECK(t.shape == source.tensors()[i].shape);
    if (t.shape.size() == 2)
      weights_of[t.dtype] += t.shape[0] * t.shape[1];
    else
      CHECK(t.dtype == "F32");
    // What has its type already keeps its bytes.
    if (t.dtype == source.tensors()[i].dtype)
      CHECK(std::equal(t.bytes.begin(), t.bytes.end(), source.tensors()[i].bytes.begin(), source.tensors()[i].bytes.end()));
  }
  CHECK(weights_of.size() > 1);
  const auto most =
      std::max_element(weights_of.begin(), weights_of.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  CHECK(file.get_u64("general.file_type").value() == mostly(most->first)->file_type);

  for (const double bits : {4.6, 5.5}) {
    CAPTURE(bits);
    const Ended of_bits = convert("bits" + std::to_string(bits), " --target-bpw " + std::to_string(bits));
    Index weights = 0;
    const Index bytes = bytes_of_matrices(GgufFile::open(p.path("bits" + std::to_string(bits))).value(), weights);
    CHECK(8.0 * static_cast<double>(bytes) <= bits * static_cast<double>(weights));
    CHECK(8.0 * static_cast<double>(bytes) > 0.95 * bits * static_cast<double>(weights));
    CHECK(contains(of_bits.out, std::to_string(bytes) + " bytes for " + std::to_string(weights) + " weights"));
  }
  // Several at once share the measurements; OUT is a folder.
  const Ended both = p.run("convert " + p.model() + " " + p.path("both") + text + " --target-size Q5_0 --target-size Q5_1");
  INFO(both.err);
  REQUIRE(both.exit_code == 0);
  CHECK(fs::file_size(p.path("both/Q5_0.gguf")) <= limit);
  CHECK(fs::file_size(p.path("both/Q5_1.gguf")) > fs::file_size(p.path("both/Q5_0.gguf")));
  CHECK(contains(both.out, p.path("both/Q5_1.gguf") + ": gguf of chosen types"));
  // More than every type can use.
  Index weights = 0;
  convert("all.gguf", " --target-bpw 16");
  const Index bytes = bytes_of_matrices(GgufFile::open(p.path("all.gguf")).value(), weights);
  CHECK(bytes == weights / 32 * 34);
}

TEST_CASE("convert to GGUF for a size: what cannot be had is an error that says what can") {
  const Program p;
  const std::string to_gguf = "convert " + p.model() + " " + p.path("x") + " --to gguf",
                    text = " --calibrate " + p.path("text.txt");
  const auto refused = [&](const std::string& arguments, int exit_code, const std::string& what) {
    const Ended e = p.run(arguments);
    CAPTURE(arguments, e.err);
    CHECK(e.exit_code == exit_code);
    CHECK(contains(e.err, what));
    CHECK(!fs::exists(p.path("x")));
  };
  refused(to_gguf + text + " --target-size 1000", 3, "a file of 1000 bytes cannot be had: ggml's types give ");
  refused(to_gguf + text + " --target-bpw 4.49", 3, "4.4900 bits a weight cannot be had: ggml's types give 4.5000 to 8.5000");
  refused(to_gguf + " --target-bpw 5", 2, "give --calibrate TEXT");
  refused(to_gguf + text + " --target-bpw 5 --type Q8_0", 2, "--type");
  refused(to_gguf + text + " --target-bpw 5 --target-size 100000", 2, "--target-bpw");
  refused(to_gguf + text + " --target-bpw 5 --target-bpw 5", 2, "twice");
  refused(to_gguf + text + " --target-bpw 5 --write-imatrix " + p.path("text.txt"), 2, "--calibrate");
  refused("convert " + p.model() + " " + p.path("text.txt") + " --to gguf" + text, 2, "--calibrate");
  refused(to_gguf + text + " --target-size Q4_K", 2, "it must be a number of bytes, or one of ");
  refused("convert " + p.model() + " " + p.path("x") + " --to gptq --target-bpw 5", 2, "are for --to gguf");
  refused("convert " + p.model() + " " + p.path("folder") + " --to gguf" + text + " --target-size Q5_0 --target-size 1000", 3,
          "a file of 1000 bytes cannot be had");
  CHECK(!fs::exists(p.path("folder/Q5_0.gguf")));
  // An input inside the output folder, at the path of one of the outputs.
  fs::create_directory(p.path("folder"));
  fs::copy_file(p.path("text.txt"), p.path("folder/Q5_1.gguf"));
  refused("convert " + p.model() + " " + p.path("folder") + " --to gguf --calibrate " + p.path("folder/Q5_1.gguf") +
              " --target-size Q5_0 --target-size Q5_1",
          2, "--calibrate");
}

TEST_CASE("convert to GGUF for a size: costs are the KL of the model with one matrix in its type") {
  const Program p;
  ThreadPool pool(2);
  tool::Progress progress;
  auto made = tool::GgufCalibration::make(p.model(), p.path("text.txt"), 1024, {1}, pool, progress);
  REQUIRE(made.ok());
  const tool::GgufCalibration& calibration = *made;
  const model::Decoder& d = calibration.decoder();
  std::vector<tool::FreeMatrix> free;
  for (const auto& m : calibration.matrices()) free.push_back({&m, ggml_gptq_types(m.tensor.shape.back()), ""});
  CHECK(free.size() == 3 * 7 + 2);
  const auto costs = tool::type_costs(calibration, free, 4.5, pool, progress);
  REQUIRE(costs.ok());
  const evaluate::Windows text = evaluate::sensitivity_text(calibration.ids(), d.config.context);
  const auto reference = evaluate::reference_logits(d, text, {}).value();
  for (const std::string name : {"output.weight", "blk.0.ffn_down.weight", "blk.2.attn_v.weight"}) {
    CAPTURE(name);
    const auto at = static_cast<std::size_t>(
        std::find_if(free.begin(), free.end(), [&](const auto& f) { return f.matrix->tensor.name == name; }) - free.begin());
    REQUIRE(at < free.size());
    const auto type =
        static_cast<std::size_t>(std::find(free[at].types.begin(), free[at].types.end(), "Q4_0") - free[at].types.begin());
    const auto bytes = calibration.round({{name, "Q4_0"}}, pool, progress);
    REQUIRE(bytes.ok());
    REQUIRE(bytes->size() == 1);
    const Matrix rounded = to_f32({name, "Q4_0", free[at].matrix->tensor.shape, bytes->begin()->second}).value();
    model::Decoder changed = d;
    model::set_gguf_tensor(changed, free[at].matrix->tensor, rounded.view());
    const double kl = evaluate::kl_statistics(evaluate::compare(reference, changed, text, {}).value()).kl.value;
    CHECK(kl > 0);
    CHECK((*costs)[at][type] == Approx(kl).epsilon(1e-3));
    // The most bits cost least.
    const auto most = std::find(free[at].types.begin(), free[at].types.end(), "Q8_0") - free[at].types.begin();
    CHECK((*costs)[at][static_cast<std::size_t>(most)] < 0.02 * kl + 1e-9);
  }
}

TEST_CASE("convert rounds to the nearest point of the target's grid where it must, and says by how much") {
  const Program p;
  write_checkpoint(p.path("in"));
  const Ended e = p.run("convert " + p.path("in") + " " + p.path("rounded") + " --to bnb");
  REQUIRE(e.exit_code == 0);
  CHECK(contains(e.out, "0 layers exact, 2 rounded"));
  CHECK(contains(e.out, "2 because bitsandbytes: only NF4"));
  const auto a = Checkpoint::open(p.path("in")).value(), b = Checkpoint::open(p.path("rounded")).value();
  double largest = 0;
  for (const std::string& m : a.modules()) {
    const Matrix x = a.read_f32(m + ".weight").value(), y = b.read_f32(m + ".weight").value();
    for (Index i = 0; i < x.extents().size(); ++i)
      largest = std::max(largest, std::fabs(static_cast<double>(x.data()[i]) - static_cast<double>(y.data()[i])));
  }
  char text[64];
  std::snprintf(text, sizeof text, "largest error of a weight %.4g", largest);
  CHECK(contains(e.out, text));
  const Ended wider = p.run("convert " + p.path("in") + " " + p.path("eight") + " --to gptq --bits 8 --group 32");
  REQUIRE(wider.exit_code == 0);
  CHECK(contains(wider.out, "because another grid is asked for"));
  CHECK(Checkpoint::open(p.path("eight"))->read("layers.0.up_proj")->bits == 8);
}

TEST_CASE("convert overwrites nothing and leaves nothing half written") {
  const Program p;
  write_checkpoint(p.path("in"));
  p.write("file", "x");
  fs::create_directory(p.path("full"));
  p.write("full/x", "x");
  const std::size_t files = p.files();
  CHECK(p.run("convert " + p.path("in") + " " + p.path("in") + " --to awq").exit_code == 2);
  for (const char* there : {"file", "full"}) {
    const Ended e = p.run("convert " + p.path("in") + " " + p.path(there) + " --to awq");
    CHECK(e.exit_code == 4);
    CHECK(contains(e.err, "is there already"));
  }
  CHECK(p.run("convert " + p.path("in") + " " + p.path("x") + " --to exl2").exit_code == 2);
  CHECK(p.run("convert " + p.model() + " " + p.path("x") + " --to awq").exit_code == 3);
  p.write("in/config.json", R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64}})");
  const Ended bad = p.run("convert " + p.path("in") + " " + p.path("x") + " --to awq");
  CHECK(bad.exit_code == 3);
  CHECK(contains(bad.err, "down_proj"));
  CHECK(p.files() == files);
  // An empty folder is taken.
  write_checkpoint(p.path("again"));
  fs::create_directory(p.path("empty"));
  CHECK(p.run("convert " + p.path("again") + " " + p.path("empty") + " --to awq").exit_code == 0);
}

TEST_CASE("a folder in several shards has an index, and opens") {
  const test_support::TemporaryFolder folder;
  {
    auto out = tool::CheckpointFolder::create(folder / "model", 3000);
    REQUIRE(out.ok());
    for (int i = 0; i < 10; ++i)
      REQUIRE(out->add(owned_tensor("t" + std::to_string(i), "F32", {100 + i, 2},
                                    std::vector<float>(static_cast<std::size_t>(200 + 2 * i), 1)))
                  .ok());
    REQUIRE(out->write_text("config.json", "{}").ok());
    REQUIRE(out->commit().ok());
  }
  CHECK(folder.files() == 1);
  const auto opened = HfFolder::open(folder / "model");
  INFO((opened ? "" : opened.error().message));
  REQUIRE(opened.ok());
  CHECK(opened->tensors().size() == 10);
  CHECK(opened->find("t9")->shape == std::vector<Index>{109, 2});
  {
    REQUIRE(tool::CheckpointFolder::create(folder / "dropped").ok());
  }
  CHECK(folder.files() == 1);
}

TEST_CASE("nearest points: no grid that convert makes is off by more than half a step") {
  for (const tool::Format to : {tool::Format::gptq, tool::Format::awq, tool::Format::compressed_tensors}) {
    CheckpointLinear l = random_linear(16, 128, 8, 128, true);
    l.divisor = 127;  // no target has it
    const auto c = tool::convert_layer(l, to, {to == tool::Format::awq ? 4 : 8, 32});
    REQUIRE(c.ok());
    CHECK(!c->reason.empty());
    const Matrix w = dequantize(l), back = dequantize(c->linear);
    int wrong = 0;
    for (Index r = 0; r < 16; ++r)
      for (Index k = 0; k < 128; ++k)
        wrong += std::fabs(w(r, k) - back(r, k)) > 0.51f * c->linear.scale(c->linear.scale_index(r, k));
    CHECK(wrong == 0);
    CHECK(c->mean_error > 0);
    CHECK(c->mean_error <= c->largest_error);
  }
}

#endif
