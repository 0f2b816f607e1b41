// Gradients, AdamW steps and adapters of torch and peft (vectors/arch/train_llama, train_gpt2, train_moe).

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <anybit/io/hf_folder.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/model/load.hpp>
#include <anybit/train/hugging_face_tensors.hpp>
#include <anybit/train/lora.hpp>
#include <anybit/train/loss.hpp>
#include <anybit/train/optimizer.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"
#include "train/differences.hpp"

using namespace anybit;
using namespace train_tests;

namespace {

/// The model in the folder of a config.json.
model::Decoder folder_decoder(const std::string& config) {
  const auto folder = io::HfFolder::open(std::filesystem::path(config).parent_path().string());
  REQUIRE(folder.ok());
  auto d = model::decoder_from_folder(*folder);
  REQUIRE(d.ok());
  return *std::move(d);
}

train::Gradients gradients_of(const model::Decoder& d, std::span<const train::Example> batch, const train::Trained& trained,
                              double& mean) {
  train::Gradients g = train::make_gradients(d, trained);
  const auto loss = train::loss_and_gradients(d, batch, g);
  INFO((loss ? std::string() : loss.error().message));
  REQUIRE(loss.ok());
  mean = loss->mean();
  return g;
}

/// Gradients and three steps of torch, of the model in `folder` with `golden`.
void compare_with_torch(const std::string& config, const io::SafetensorsFile& golden, std::span<const double> losses) {
  model::Decoder d = folder_decoder(config);
  train::Gradients g = train::make_gradients(d, train::all_weights);
  const auto all = train::parameters(d, g);
  train::AdamW adam({.beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1f}, all);
  std::map<std::string, std::vector<float>> first;
  for (std::size_t step = 0; step < losses.size(); ++step) {
    const auto ids = *golden.read<std::int32_t>("batch" + std::to_string(step) + ".ids");
    const std::vector<train::Example> batch{{std::span(ids).first(12), {}}, {std::span(ids).last(12), {}}};
    train::zero_gradients(all);
    const auto loss = train::loss_and_gradients(d, batch, g, {.recompute_blocks = step != 1});
    INFO((loss ? std::string() : loss.error().message));
    REQUIRE(loss.ok());
    CHECK(loss->predictions == 22);
    CHECK(loss->mean() == Approx(losses[step]).epsilon(1e-5));
    const auto gradients = train::hugging_face_gradients(d, g);
    REQUIRE(gradients.ok());
    for (const train::NamedTensor& t : *gradients) {
      if (step > 0) break;
      CAPTURE(t.name);
      const std::vector<float> want = *golden.read<float>("grad." + t.name);
      REQUIRE(want.size() == t.values.size());
      CHECK(off(t.values.data(), {want.begin(), want.end()}) < 1e-4);
      first[t.name] = want;
    }
    train::clip_gradients(all, 1, {});
    adam.step(all, 1e-3, {});
    const auto weights = train::hugging_face_weights(d);
    REQUIRE(weights.ok());
    for (const train::NamedTensor& t : *weights) {
      CAPTURE(t.name, step);
      const std::vector<float> want = *golden.read<float>("after" + std::to_string(step + 1) + "." + t.name);
      // Where the true gradient is 0, a key's bias, AdamW divides rounding noise by itself.
      for (std::size_t i = 0; i < want.size(); ++i)
        if (const float error = std::abs(want[i] - t.values[i]); error >= 2e-5f) REQUIRE(std::abs(first[t.name][i]) < 1e-6f);
    }
  }
  std::size_t gradients_there = 0;
  for (const io::TensorInfo& t : golden.tensors()) gradients_there += t.name.starts_with("grad.") ? 1u : 0u;
  CHECK(first.size() == gradients_there);
}

/// Gradients of PEFT's adapter beside `config`, and what is written of it.
void compare_with_peft(const std::string& config, const io::SafetensorsFile& golden, double mean_loss) {
  model::Decoder d = folder_decoder(config);
  const std::string folder = (std::filesystem::path(config).parent_path() / "adapter").string();
  const auto options = train::load_adapters(folder, d);
  REQUIRE(options.ok());
  CHECK(options->rank == 4);
  CHECK(options->scale() == 2);
  const auto ids = *golden.read<std::int32_t>("batch0.ids");
  const std::vector<train::Example> batch{{std::span(ids).first(12), {}}, {std::span(ids).last(12), {}}};
  double mean = 0;
  const auto gradients = train::hugging_face_gradients(d, gradients_of(d, batch, train::is_adapter, mean));
  REQUIRE(gradients.ok());
  CHECK(mean == Approx(mean_loss).epsilon(1e-5));
  std::size_t count = 0;
  for (const io::TensorInfo& t : golden.tensors()) count += t.name.starts_with("lora.grad.") ? 1u : 0u;
  CHECK(gradients->size() == count);
  for (const train::NamedTensor& t : *gradients) {
    CAPTURE(t.name);
    const std::vector<float> want = *golden.read<float>("lora.grad." + t.name);
    REQUIRE(want.size() == t.values.size());
    CHECK(off(t.values.data(), {want.begin(), want.end()}) < 1e-4);
  }

  const test_support::TemporaryFolder temporary;
  REQUIRE(train::save_adapters(temporary / "again", d, *options, "base").ok());
  const auto theirs = io::SafetensorsFile::open(folder + "/adapter_model.safetensors"),
             ours = io::SafetensorsFile::open(temporary / "again/adapter_model.safetensors");
  REQUIRE((theirs.ok() && ours.ok()));
  CHECK(theirs->tensors().size() == ours->tensors().size());
  for (const io::TensorInfo& t : theirs->tensors()) {
    REQUIRE(ours->find(t.name));
    CHECK(ours->find(t.name)->shape == t.shape);
    CHECK(std::equal(t.bytes.begin(), t.bytes.end(), ours->find(t.name)->bytes.begin()));
  }
  const auto targets = [](const std::string& file) {
    const std::string text = test_support::read_file(file);
    const auto json = io::parse_json(text);
    auto out = *io::JsonObject(*json, file).texts("target_modules");
    std::sort(out.begin(), out.end());
    return out;
  };
  const auto saved = targets(temporary / "again/adapter_config.json");
  if (d.config.form.experts.count == 0) {
    CHECK(saved == targets(folder + "/adapter_config.json"));
  } else {  // whole names: a last part alone would be that of every expert too
    CHECK(std::count(saved.begin(), saved.end(), "model.layers.1.mlp.shared_expert.up_proj") == 1);
    CHECK(std::count(saved.begin(), saved.end(), "q_proj") == 1);
    CHECK(saved.size() == 4 + 3 * 2);
  }

  // Merged, the model gives the same loss.
  REQUIRE(train::merge_adapters(d).ok());
  double merged = 0;
  gradients_of(d, batch, [](std::string_view) { return false; }, merged);
  CHECK(merged == Approx(mean_loss).epsilon(1e-5));
}

}  // namespace

TEST_CASE("loss: gradients and three AdamW steps of torch, llama") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/arch/train_llama/golden.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(config, "vectors/arch/train_llama/config.json");
  compare_with_torch(config, *io::SafetensorsFile::open(golden_path),
                     std::array{6.243835926055908, 5.787785053253174, 6.593774318695068});
}

TEST_CASE("loss: gradients and three AdamW steps of torch, GPT-2") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/arch/train_gpt2/golden.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(config, "vectors/arch/train_gpt2/config.json");
  compare_with_torch(config, *io::SafetensorsFile::open(golden_path),
                     std::array{6.5636138916015625, 6.549595832824707, 8.02083683013916});
}

TEST_CASE("loss: adapters of torch and peft, llama") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/arch/train_llama/golden.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(config, "vectors/arch/train_llama/config.json");
  compare_with_peft(config, *io::SafetensorsFile::open(golden_path), 6.496355056762695);
}

TEST_CASE("loss: adapters of torch and peft, GPT-2 with one adapter for q and k and v") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/arch/train_gpt2/golden.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(config, "vectors/arch/train_gpt2/config.json");
  compare_with_peft(config, *io::SafetensorsFile::open(golden_path), 7.317196846008301);
}

TEST_CASE("loss: gradients and three AdamW steps of torch, experts and a shared one") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/arch/train_moe/golden.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(config, "vectors/arch/train_moe/config.json");
  compare_with_torch(config, *io::SafetensorsFile::open(golden_path),
                     std::array{6.544665336608887, 6.357766628265381, 6.900570869445801});
}

TEST_CASE("loss: adapters of torch and peft, on attention and the shared expert") {
  ANYBIT_TEST_DATA_OR_SKIP(golden_path, "vectors/arch/train_moe/golden.safetensors");
  ANYBIT_TEST_DATA_OR_SKIP(config, "vectors/arch/train_moe/config.json");
  compare_with_peft(config, *io::SafetensorsFile::open(golden_path), 6.104551315307617);
}
