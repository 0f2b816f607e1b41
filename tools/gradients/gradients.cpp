#include "gradients.hpp"

#include <string>
#include <utility>
#include <vector>

#include <anybit/io/safetensors_writer.hpp>
#include <anybit/train/lora.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "train/examples.hpp"

namespace tool {

using namespace anybit;

namespace {

struct GradientsOptions {
  std::string model, ids, adapter, out;
  Index threads = 0;
};

Result<std::vector<train::NamedTensor>> compute(const model::Decoder& d, const Examples& examples, const GradientsOptions& o) {
  ThreadPool pool(thread_count(o.threads));
  train::Gradients gradients = train::make_gradients(d, o.adapter.empty() ? train::all_weights : train::is_adapter);
  ANYBIT_TRY(const train::Loss loss, train::loss_and_gradients(d, examples.views(), gradients, {.executor = pool}));
  ANYBIT_TRY(std::vector<train::NamedTensor> out, train::hugging_face_gradients(d, gradients));
  for (train::NamedTensor& t : out) t.name.insert(0, "grad.");
  out.push_back({"loss", {1}, {static_cast<float>(loss.mean())}});
  return out;
}

int gradients(int argc, const char* const* argv) {
  GradientsOptions o;
  CLI::App app(
      "Writes the loss of one batch and its gradients, for comparison with other implementations: loss (1), and grad.PARAMETER for\n"
      "every tensor of the model under its name in Hugging Face's files; with --adapter instead grad.MODULE.lora_A and .lora_B. The\n"
      "loss is the mean cross entropy of every token but the first of each example.",
      "anybit gradients");
  add_model(app, o.model);
  app.add_option("--ids", o.ids, "JSON: a list of lists of token ids, one batch")->type_name("FILE")->required();
  app.add_option("--adapter", o.adapter, "A folder of PEFT: gradients of its adapter, the model is frozen")->type_name("DIR");
  app.add_option("--out", o.out, "The safetensors file to write")->type_name("FILE")->required();
  add_threads(app, o.threads);
  if (const auto end = parse(app, argc, argv, "anybit gradients MODEL --ids batch.json --out gradients.safetensors")) return *end;
  if (o.out == "-") return wrong_use("gradients", "--out cannot be standard output: name a file");
  std::vector<FileRole> inputs = model_inputs(o.model, {});
  inputs.push_back({"--ids", o.ids});
  if (const auto end = check_files("gradients", inputs, {{"--out", o.out}})) return *end;
  const auto ids = read_id_lists(o.ids);
  if (!ids) return fail("gradients", bad_input, ids.error());
  auto decoder = open_decoder(o.model);
  if (!decoder) return fail("gradients", bad_input, decoder.error());
  if (!o.adapter.empty())
    if (const auto loaded = train::load_adapters(o.adapter, *decoder); !loaded)
      return fail("gradients", bad_input, loaded.error());
  const auto tensors = compute(*decoder, *ids, o);
  if (!tensors) return fail("gradients", bad_input, tensors.error());
  std::vector<io::TensorInfo> all;
  for (const train::NamedTensor& t : *tensors) all.push_back(io::tensor_of<float>(t.name, t.shape, t.values));
  const Uninterrupted whole;
  if (const auto written = io::write_safetensors(o.out, all); !written) return fail("gradients", cannot_write, written.error());
  return success;
}

}  // namespace

int run_gradients(int argc, const char* const* argv) {
  return run_command([&] { return gradients(argc, argv); });
}

}  // namespace tool
