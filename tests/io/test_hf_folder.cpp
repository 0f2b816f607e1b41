#include <anybit/io/hf_folder.hpp>
#include <anybit/io/safetensors_writer.hpp>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "bad_bytes.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using io::HfFolder;

namespace {

void write_tensor(const std::string& path, const std::string& name) {
  const std::vector<float> values{1, 2, 3};
  REQUIRE(io::write_safetensors(path, std::vector{io::tensor_of<float>(name, {3}, values)}).ok());
}

void check_refused(const Result<HfFolder>& r, std::string_view part) {
  REQUIRE(!r.ok());
  INFO(r.error().message);
  CHECK(r.error().message.find(part) != std::string::npos);
  CHECK(r.error().message.find('\n') == std::string::npos);
  CHECK(bad_bytes::has_remedy(r.error().message));
}

}  // namespace

TEST_CASE("Hugging Face folder: configuration and weights in one file and in shards") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "";
  std::ofstream(folder / "config.json") << R"({"model_type": "llama", "hidden_size": 48})";
  write_tensor(folder / "model.safetensors", "x");
  {
    const auto hf = HfFolder::open(path);
    REQUIRE(hf.ok());
    CHECK(hf->name() + "/" == path);
    CHECK(*hf->config().integer("hidden_size") == 48);
    CHECK(hf->config().file() == folder / "config.json");
    CHECK(!hf->generation_config().has("eos_token_id"));
    CHECK((*hf->read_f32("x"))(0, 2) == 3);
  }
  std::ofstream(folder / "generation_config.json") << R"({"eos_token_id": 2})";
  std::filesystem::rename(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors");
  write_tensor(folder / "model-00002-of-00002.safetensors", "y");
  std::ofstream(folder / "model.safetensors.index.json")
      << R"({"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}})";
  Result<HfFolder> hf = HfFolder::open(path);
  REQUIRE(hf.ok());
  const HfFolder copy = *hf;
  hf = Error{ErrorCode::cancelled, ""};  // the copy keeps the mappings
  CHECK(copy.tensors().size() == 2);
  CHECK((*copy.read_f32("y"))(0, 1) == 2);
  CHECK(*copy.generation_config().integer("eos_token_id") == 2);
}

TEST_CASE("Hugging Face folder: one file of another name will do and two need an index") {
  const test_support::TemporaryFolder folder;
  std::ofstream(folder / "config.json") << "{}";
  write_tensor(folder / "gptq_model-4bit.safetensors", "x");
  CHECK(HfFolder::open(folder / "").ok());
  write_tensor(folder / "other.safetensors", "y");
  check_refused(HfFolder::open(folder / ""), "how its 2 *.safetensors files belong together: fetch the index");
}

TEST_CASE("Hugging Face folder: incomplete and damaged folders are refused") {
  const test_support::TemporaryFolder folder;
  const auto open = [&] { return HfFolder::open(folder / ""); };
  check_refused(open(), "no config.json: give the folder of a Hugging Face model");
  std::ofstream(folder / "adapter_config.json") << "{}";
  check_refused(open(), "no config.json but an adapter: give the model");
  std::ofstream(folder / "config.json") << "[1]";
  check_refused(open(), "config.json: holds an array of 1, not an object");
  std::ofstream(folder / "config.json") << R"({"a": })";
  check_refused(open(), "config.json: JSON at byte 6: ");
  std::ofstream(folder / "config.json") << "{}";
  check_refused(open(), "no model.safetensors.index.json: fetch the weights");
  std::ofstream(folder / "pytorch_model.bin") << "x";
  check_refused(open(), "but 'pytorch_model.bin': convert the model to safetensors");
  std::ofstream(folder / "model.safetensors.index.json") << R"({"weight_map": {"x": "model-1.safetensors"}})";
  check_refused(open(), "fetch the shard that the index names");
  std::ofstream(folder / "model.safetensors.index.json") << R"({"weight_map": {"x": "../model-1.safetensors"}})";
  check_refused(open(), "only a file name in the same folder");
  write_tensor(folder / "model.safetensors", "x");  // wins over the index, as in transformers
  CHECK(open().ok());
  std::ofstream(folder / "generation_config.json") << "{";
  check_refused(open(), "generation_config.json: JSON at byte 1: ");
}

TEST_CASE("Hugging Face folder: the folders of the vectors open") {
  for (const char* name : {"arch/llama", "arch/qwen2", "checkpoints/gptq_v1_b3_g64"}) {
    const auto path = test_support::test_data("vectors/" + std::string(name));
    ANYBIT_HAVE_OR_SKIP(path, "vectors/" << name << " is not present");
    const auto hf = HfFolder::open(*path);
    REQUIRE(hf.ok());
    CHECK(*hf->config().integer("num_hidden_layers") >= 1);
    CHECK(hf->tensors().size() > 10);
  }
}
