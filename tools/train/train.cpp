#include "train.hpp"

#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <anybit/io/hf_folder.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/train/lora.hpp>
#include <anybit/train/trainer.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "shared/text.hpp"
#include "train/id_lists.hpp"

namespace tool {

using namespace anybit;
namespace fs = std::filesystem;

namespace {

struct TrainCommand {
  std::string model, tokenizer, ids, text, save, adapter, losses;
  Index context = 512, threads = 0;
  Index lora_rank = 0;
  float lora_alpha = 16, lora_dropout = 0;
  std::vector<double> betas{0.9, 0.999};
  bool no_shuffle = false, keep_activations = false;
  train::TrainOptions options{};

  bool adapters() const { return lora_rank > 0 || !adapter.empty(); }
};

/// The model with its tokenizer where a text is to be cut into tokens.
struct Loaded {
  model::Decoder decoder;
  std::vector<std::vector<model::TokenId>> ids;
};

Result<Loaded> load(const TrainCommand& o) {
  Loaded out;
  if (o.text.empty()) {
    ANYBIT_TRY(out.ids, read_id_lists(o.ids));
    ANYBIT_TRY(out.decoder, open_decoder(o.model));
    return out;
  }
  ANYBIT_TRY(const std::string text, read_text(o.text));
  ANYBIT_TRY(model::Model m, open_model(o.model, o.tokenizer));
  auto encoded = m.tokenizer.encode(text);
  if (!encoded) return in_context(encoded.error(), o.text);
  const Index length = std::min(o.context, m.decoder.config.context), count = static_cast<Index>(encoded->size()) / length;
  if (count == 0)
    return {ErrorCode::insufficient_data, o.text + ": holds " + std::to_string(encoded->size()) +
                                              " tokens, fewer than one example of " + std::to_string(length) +
                                              ": give a longer text or a smaller --context"};
  for (Index i = 0; i < count; ++i) out.ids.emplace_back(encoded->begin() + i * length, encoded->begin() + (i + 1) * length);
  out.decoder = std::move(m.decoder);
  return out;
}

/// Tensors by the names of the folder's own files, which may leave the prefix of the architecture out.
std::vector<io::TensorInfo> named_as_in(const io::HfFolder& folder, std::string_view root,
                                        const std::vector<train::NamedTensor>& tensors) {
  std::vector<io::TensorInfo> out;
  for (const train::NamedTensor& t : tensors) {
    std::string name = t.name;
    if (!folder.find(name) && name.starts_with(root) && folder.find(name.substr(root.size()))) name = name.substr(root.size());
    out.push_back(io::tensor_of<float>(std::move(name), t.shape, t.values));
  }
  return out;
}

/// The folder with new weights, in one file; what else is in it is copied.
Status save_folder(const TrainCommand& o, const model::Decoder& d) {
  ANYBIT_TRY(const io::HfFolder folder, io::HfFolder::open(o.model));
  ANYBIT_TRY(const std::vector<train::NamedTensor> weights, train::hugging_face_weights(d));
  const auto tensors = named_as_in(folder, d.blueprint->architecture->hugging_face_root, weights);
  std::error_code failed;
  fs::create_directories(o.save, failed);
  for (fs::directory_iterator at(o.model, failed), end; !failed && at != end; at.increment(failed)) {
    const std::string name = at->path().filename().string();
    if (!at->is_regular_file() || name.find(".safetensors") != std::string::npos) continue;
    if (!name.ends_with(".json") && !name.ends_with(".txt") && !name.ends_with(".model") && !name.ends_with(".jinja")) continue;
    fs::copy_file(at->path(), fs::path(o.save) / name, fs::copy_options::overwrite_existing, failed);
    if (failed) return {ErrorCode::io, o.save + ": " + name + " cannot be copied there: " + failed.message()};
  }
  if (failed) return {ErrorCode::io, o.save + ": cannot be made: " + failed.message()};
  return io::write_safetensors((fs::path(o.save) / "model.safetensors").string(), tensors, {{"format", "pt"}});
}

int train_model(const TrainCommand& o) {
  const auto failed = [](ExitCode code, const Error& e) { return fail("train", code, e); };
  auto loaded = load(o);
  if (!loaded) return failed(bad_input, loaded.error());
  model::Decoder& d = loaded->decoder;
  train::LoraOptions lora;
  lora.rank = o.lora_rank, lora.alpha = o.lora_alpha, lora.dropout = o.lora_dropout, lora.seed = o.options.seed;
  if (!o.adapter.empty()) {
    auto read = train::load_adapters(o.adapter, d);
    if (!read) return failed(bad_input, read.error());
    lora = *std::move(read);
  } else if (o.adapters()) {
    train::add_adapters(d, lora);
  }
  if (!o.save.empty())
    if (const auto writable = check_writable((fs::path(o.save) / "model.safetensors").string()); !writable)
      return failed(cannot_write, writable.error());

  ThreadPool pool(thread_count(o.threads));
  train::TrainOptions options = o.options;
  options.shuffle = !o.no_shuffle;
  options.adamw.beta1 = o.betas[0], options.adamw.beta2 = o.betas[1], options.adamw.seed = options.seed;
  options.loss.executor = pool, options.loss.recompute_blocks = !o.keep_activations;
  options.loss.dropout.rate = lora.dropout, options.loss.dropout.seed = options.seed;
  std::string table = "step,loss,gradient_norm,rate\n";
  const Stopwatch watch;
  Progress progress;
  progress.begin("training", 1, 1);
  const auto examples = examples_of(loaded->ids);
  const auto done = train::train_decoder(
      d, examples, o.adapters() ? train::is_adapter : train::all_weights, options, [&](const train::TrainStep& s) {
        std::array<char, 128> line{};
        std::snprintf(line.data(), line.size(), "%lld,%.6g,%.6g,%.6g\n", static_cast<long long>(s.step), s.loss, s.gradient_norm,
                      s.rate);
        table += line.data();
        progress.clear();
        std::printf("step %lld of %lld: loss %.4f, gradient norm %.3g, rate %.3g, %s\n", static_cast<long long>(s.step + 1),
                    static_cast<long long>(s.steps), s.loss, s.gradient_norm, s.rate, duration_text(watch.seconds()).c_str());
        progress.update(s.step + 1, s.steps);
        return true;
      });
  progress.end();
  // A run that ends early has steps behind it, whose weights are good.
  if (!done && done.error().code != ErrorCode::not_finite) return failed(bad_input, done.error());
  const Uninterrupted whole;
  if (!o.losses.empty())
    if (const auto written = write_text(o.losses, table); !written) return failed(cannot_write, written.error());
  if (!o.save.empty()) {
    const auto saved = o.adapters() ? train::save_adapters(o.save, d, lora, o.model) : save_folder(o, d);
    if (!saved) return failed(cannot_write, saved.error());
  }
  if (!done) return failed(recipe_failed, done.error());
  return success;
}

int train_command(int argc, const char* const* argv) {
  TrainCommand o;
  CLI::App app(
      "Trains a model with AdamW on a text or on token ids: all its weights, or with --lora-rank adapters on a frozen model, which\n"
      "may be packed. Every token but the first of an example is predicted from those before it. The same bits come out for any\n"
      "number of threads.",
      "anybit train");
  app.add_option("MODEL", o.model, "A Hugging Face folder; with --lora-rank also GGUF or what anybit has written")->required();
  auto* const ids = app.add_option("--ids", o.ids, "JSON: a list of lists of token ids, one per example")->type_name("FILE");
  app.add_option("--text", o.text, "A text, cut into examples of --context tokens; what is left at its end is not used")
      ->type_name("FILE")
      ->excludes(ids);
  app.add_option("--tokenizer", o.tokenizer, "Tokenizer of a llama2.c checkpoint; default: beside it")->type_name("FILE");
  app.add_option("--context", o.context, "Tokens per example of --text")
      ->check(CLI::Range(Index{2}, Index{1} << 24))
      ->capture_default_str();
  app.add_option("--save", o.save, "The folder to write: the model as it came in, or PEFT's adapter")->type_name("DIR");
  app.add_option("--losses", o.losses, "CSV with the loss, gradient norm and rate of every step")->type_name("FILE");
  app.add_option("--lora-rank", o.lora_rank,
                 "Trains adapters of this rank on all linears of the blocks; 0: the weights themselves")
      ->check(CLI::Range(Index{0}, Index{1} << 16))
      ->capture_default_str();
  app.add_option("--lora-alpha", o.lora_alpha, "The adapter adds alpha / rank B A")->capture_default_str();
  app.add_option("--lora-dropout", o.lora_dropout, "Share of the adapters' inputs that become 0")
      ->check(CLI::Range(0.0f, 0.999f))
      ->capture_default_str();
  app.add_option("--adapter", o.adapter, "Goes on with the adapter in this folder of PEFT")->type_name("DIR");
  train::TrainOptions& t = o.options;
  app.add_option("--lr", t.schedule.peak, "Largest learning rate")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--schedule", t.schedule.decay, "How the rate falls to 0 over the run")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, train::Decay>{
              {"constant", train::Decay::constant}, {"linear", train::Decay::linear}, {"cosine", train::Decay::cosine}},
          CLI::ignore_case));
  app.add_option("--warm-up", t.schedule.warm_up, "Steps over which the rate rises")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--betas", o.betas, "Decay of the two moments")->delimiter(',')->expected(2)->capture_default_str();
  app.add_option("--eps", t.adamw.epsilon, "Added to the root of the second moment")->capture_default_str();
  app.add_option("--weight-decay", t.adamw.weight_decay, "Share of a weight that a step at rate 1 would take off")
      ->capture_default_str();
  app.add_option("--moments", t.adamw.moments, "Moments in 8 or in 2 bytes per parameter")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, train::Moments>{{"floats", train::Moments::floats}, {"bytes", train::Moments::bytes}},
          CLI::ignore_case));
  app.add_option("--clip", t.clip, "Largest norm of all gradients together; 0: any")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--epochs", t.epochs, "Passes over all examples")
      ->check(CLI::Range(Index{1}, Index{1} << 30))
      ->capture_default_str();
  app.add_option("--batch", t.batch, "Examples per step")->check(CLI::Range(Index{1}, Index{1} << 30))->capture_default_str();
  app.add_option("--micro-batch", t.micro_batch, "Examples whose activations are in memory at once; 0: the batch")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--no-shuffle", o.no_shuffle, "Examples in their own order");
  app.add_option("--seed", t.seed, "Of the order, of new adapters, of dropout and of rounded moments")->capture_default_str();
  app.add_flag("--keep-activations", o.keep_activations, "Faster, with the activations of all blocks in memory");
  app.add_option("--threads", o.threads, "Default: as many as the machine runs at once. Results do not depend on it")
      ->type_name("N");
  if (const auto end = parse(app, argc, argv, "anybit train MODEL --text book.txt --lora-rank 16 --lr 2e-4 --save adapter"))
    return *end;
  if (o.ids.empty() && o.text.empty()) return wrong_use("train", "nothing to learn from: give --ids or --text");
  for (const double beta : o.betas)
    if (!(beta >= 0 && beta < 1)) return wrong_use("train", "--betas must be 0 or above and below 1");
  std::error_code ignored;
  if (!o.save.empty() && fs::exists(o.save, ignored) && fs::equivalent(o.save, o.model, ignored))
    return wrong_use("train", "--save is the model: name another folder");
  if (!o.save.empty() && !o.adapters() && !fs::exists(fs::path(o.model) / "config.json", ignored))
    return wrong_use(
        "train", "a trained model is saved as a Hugging Face folder: give MODEL as one, or train an adapter with --lora-rank");
  if (const auto apart = check_roles({{"the model", o.model}, {"--ids", o.ids}, {"--text", o.text}, {"--adapter", o.adapter}},
                                     {{"--save", o.save}, {"--losses", o.losses}});
      !apart)
    return fail("train", usage, apart.error());
  if (!o.losses.empty())
    if (const auto writable = check_writable(o.losses); !writable) return fail("train", cannot_write, writable.error());
  return train_model(o);
}

}  // namespace

int run_train(int argc, const char* const* argv) {
  return run_command([&] { return train_command(argc, argv); });
}

}  // namespace tool
