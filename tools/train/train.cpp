#include "train.hpp"

#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <anybit/evaluate/loss_curve_svg.hpp>
#include <anybit/train/frozen_base.hpp>
#include <anybit/train/lora.hpp>
#include <anybit/train/lottery/tickets.hpp>
#include <anybit/train/trainer.hpp>
#include <anybit/train/wasq/pack.hpp>

#include "recipes/catalog.hpp"
#include "recipes/recipe_book.hpp"
#include "shared/conversations.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "train/examples.hpp"
#include "train/save_trained.hpp"
#include "train/wasq_options.hpp"

namespace tool {

using namespace anybit;
namespace fs = std::filesystem;

namespace {

struct TrainCommand {
  std::string model, tokenizer, ids, text, conversations, chat_template, teacher, base, adapter;
  std::string save, merge, requantize, losses, svg;
  Index context = 512, threads = 0, held_out = 0;
  std::string ticket;
  double prune_share = 0.5;
  Index prune_rounds = 3;
  Index lora_rank = 0;
  float lora_alpha = 16, lora_dropout = 0;
  std::vector<double> betas{0.9, 0.999};
  bool no_shuffle = false, keep_activations = false;
  train::TrainOptions options{};
  WasqOptions wasq{};

  bool adapters() const { return lora_rank > 0 || !adapter.empty(); }
  bool has_examples() const { return !ids.empty() || !text.empty() || !conversations.empty(); }
  /// Token ids need no vocabulary, a text and anybit's container do.
  bool needs_vocabulary() const { return !text.empty() || !conversations.empty() || !merge.empty() || is_container_path(save); }
  bool saves_adapter() const { return adapters() && !save.empty(); }
};

/// The model, with its vocabulary where that is needed.
struct Loaded {
  std::optional<model::Model> whole;
  model::Decoder alone{};

  model::Decoder& decoder() { return whole ? whole->decoder : alone; }
};

Result<Loaded> load(const TrainCommand& o) {
  Loaded out;
  if (o.needs_vocabulary()) {
    ANYBIT_TRY(model::Model m, open_model(o.model, o.tokenizer));
    out.whole = std::move(m);
  } else {
    ANYBIT_TRY(out.alone, open_decoder(o.model));
  }
  return out;
}

Result<Examples> read_examples(const TrainCommand& o, const Loaded& loaded) {
  if (!o.ids.empty()) return read_id_lists(o.ids);
  if (!o.text.empty()) return read_plain_text(o.text, *loaded.whole, o.context);
  ANYBIT_TRY(const model::ChatTemplate* const chat, find_template({o.chat_template, o.model}, loaded.whole->tokenizer));
  return learn_conversations(o.conversations, *loaded.whole, *chat, o.context);
}

/// The linears of the blocks by the recipe of this name or text.
Status pack_by(const std::string& recipe, model::Decoder& d, ExecutorRef executor) {
  RecipeBook book = named_recipes();
  ANYBIT_TRY(const model::ModelRecipe* const found, book.find(recipe));
  return train::pack_blocks(d, *found, executor);
}

/// Mean loss over examples, without a step.
Result<double> mean_loss(const model::Decoder& d, std::span<const train::Example> examples, const train::TrainOptions& o) {
  train::Gradients none(d.weights.size());
  train::LossOptions options = o.loss;
  options.dropout = {};
  double sum = 0;
  Index count = 0;
  for (const train::Example& e : examples) {
    ANYBIT_TRY(const train::Loss loss, train::loss_and_gradients(d, std::span(&e, 1), none, options));
    sum += loss.sum, count += loss.predictions;
  }
  return sum / static_cast<double>(count);
}

/// Prints, records and draws the steps of a run.
class StepLog {
 public:
  explicit StepLog(bool prints) : prints_(prints) { progress_.begin("training", 1, 1); }

  void add(const train::TrainStep& s) {
    steps_.push_back(s);
    if (prints_ && !s.resumed) {
      progress_.clear();
      std::printf("step %lld of %lld: loss %.4f, gradient norm %.3g, rate %.3g, %s\n", static_cast<long long>(s.step + 1),
                  static_cast<long long>(s.steps), s.loss, s.gradient_norm, s.rate, duration_text(watch_.seconds()).c_str());
    }
    progress_.update(s.step + 1, s.steps);
  }
  void end() { progress_.end(), progress_.clear(); }

  std::string csv() const {
    std::string out = "step,loss,gradient_norm,rate\n";
    for (const train::TrainStep& s : steps_) {
      std::array<char, 128> line{};
      std::snprintf(line.data(), line.size(), "%lld,%.6g,%.6g,%.6g\n", static_cast<long long>(s.step), s.loss, s.gradient_norm,
                    s.rate);
      out += line.data();
    }
    return out;
  }
  Status write(const TrainCommand& o) const {
    if (!o.losses.empty()) ANYBIT_TRY_STATUS(write_text(o.losses, csv()));
    if (!o.svg.empty()) ANYBIT_TRY_STATUS(write_text(o.svg, evaluate::loss_curve_svg(steps_, utf8(o.model))));
    return Ok{};
  }

 private:
  bool prints_;
  Stopwatch watch_;
  Progress progress_;
  std::vector<train::TrainStep> steps_;
};

/// The adapter or the trained model, and the model with the adapter in it.
Status save_all(const TrainCommand& o, Loaded& loaded, const train::LoraOptions& lora, ExecutorRef executor) {
  model::Decoder& d = loaded.decoder();
  if (o.saves_adapter()) {
    const Uninterrupted whole;
    ANYBIT_TRY_STATUS(train::save_adapters(o.save, d, lora, o.model));
  } else if (!o.save.empty()) {
    if (is_container_path(o.save)) {
      ANYBIT_TRY_STATUS(save_container(o.save, o.model, *loaded.whole, "trained"));
    } else {
      ANYBIT_TRY_STATUS(save_folder(o.save, o.model, d));
    }
  }
  if (o.merge.empty()) return Ok{};
  ANYBIT_TRY_STATUS(train::merge_into_floats(d, executor));
  if (!o.requantize.empty()) ANYBIT_TRY_STATUS(pack_by(o.requantize, d, executor));
  return save_container(o.merge, o.model, *loaded.whole, o.requantize.empty() ? "merged" : "merged | " + o.requantize);
}

/// Rounds of training and pruning; the model ends as the trained ticket.
Status train_ticket(const TrainCommand& o, model::Decoder& d, std::span<const train::Example> examples,
                    const train::TrainOptions& options, StepLog& log) {
  namespace lottery = train::lottery;
  const lottery::TrainRound round = [&](model::Decoder& model, const lottery::Kept& masks, Index number) -> Result<double> {
    train::TrainOptions one = options;
    one.reparametrize = lottery::under(masks);
    double sum = 0;
    Index last = 0;  // the last tenth of the steps
    ANYBIT_TRY_STATUS(train::train_decoder(model, examples, train::all_weights, one, [&](const train::TrainStep& s) {
      log.add(s);
      if (s.step >= s.steps - std::max<Index>(s.steps / 10, 1)) sum += s.loss, ++last;
      return true;
    }));
    std::printf("round %lld, %.1f %% pruned: loss %.4f\n", static_cast<long long>(number), 100 * lottery::sparsity(masks),
                sum / static_cast<double>(std::max<Index>(last, 1)));
    return sum / static_cast<double>(std::max<Index>(last, 1));
  };
  if (o.ticket == "mplth") {
    ANYBIT_TRY_STATUS(lottery::mplth(d, {.as_published = o.wasq.as_published}, round));
  } else if (o.ticket == "sa-mplth") {
    lottery::SaMplth method;
    method.seed = options.seed, method.share = o.prune_share, method.as_published = o.wasq.as_published;
    ANYBIT_TRY_STATUS(lottery::sa_mplth(d, method, round));
  } else {
    lottery::IterativePruning method{.share = o.prune_share, .rounds = o.prune_rounds};
    ANYBIT_TRY_STATUS(lottery::iterative_magnitude_pruning(d, method, round));
  }
  return Ok{};
}

Status train_on(const TrainCommand& o, Loaded& loaded, std::span<const train::Example> examples, train::TrainOptions options,
                StepLog& log) {
  model::Decoder& d = loaded.decoder();
  const auto apart = static_cast<std::size_t>(o.held_out);
  if (apart >= examples.size())
    return {ErrorCode::insufficient_data,
            "--held-out leaves none of " + std::to_string(examples.size()) + " examples to train on"};
  const auto learned = examples.first(examples.size() - apart), others = examples.last(apart);
  const auto report = [&](const char* when) -> Status {
    if (others.empty()) return Ok{};
    ANYBIT_TRY(const double loss, mean_loss(d, others, options));
    std::printf("loss on the %zu examples held out %s: %.4f\n", others.size(), when, loss);
    return Ok{};
  };
  ANYBIT_TRY_STATUS(report("before"));
  std::optional<WasqRun> on_grid;
  if (o.wasq.any()) {
    ANYBIT_TRY(on_grid, prepare_wasq(o.wasq, d, learned, options.loss));
    options.reparametrize = train::wasq::on_grid(on_grid->grid), options.loss.taps = on_grid->taps;
  }
  if (!o.ticket.empty()) {
    ANYBIT_TRY_STATUS(train_ticket(o, d, learned, options, log));
    return report("behind");
  }
  ANYBIT_TRY_STATUS(train::train_decoder(d, learned, o.adapters() ? train::is_adapter : train::all_weights, options,
                                         [&](const train::TrainStep& s) { return log.add(s), true; }));
  if (on_grid)
    for (const std::string& line : describe(*on_grid, d)) std::printf("%s\n", line.c_str());
  ANYBIT_TRY_STATUS(report("behind"));
  if (on_grid && is_container_path(o.save)) {
    ANYBIT_TRY(const Index packed, train::wasq::pack_layers(on_grid->grid, catalog().registry(), d));
    std::printf("%lld of %zu linears are saved as codes, the others as floats\n", static_cast<long long>(packed),
                on_grid->grid.layers.size());
  }
  return Ok{};
}

int train_model(const TrainCommand& o) {
  const auto failed = [](ExitCode code, const Error& e) { return fail("train", code, e); };
  ThreadPool pool(thread_count(o.threads));
  auto loaded = load(o);
  if (!loaded) return failed(bad_input, loaded.error());
  model::Decoder& d = loaded->decoder();
  Examples examples;
  if (o.has_examples()) {
    auto read = read_examples(o, *loaded);
    if (!read) return failed(bad_input, read.error());
    examples = *std::move(read);
    for (const std::string& line : examples.remarks) std::printf("%s\n", printable(line).c_str());
  }
  if (!o.base.empty())
    if (const auto packed = pack_by(o.base, d, pool); !packed) return failed(usage, packed.error());
  train::LoraOptions lora;
  lora.rank = o.lora_rank, lora.alpha = o.lora_alpha, lora.dropout = o.lora_dropout, lora.seed = o.options.seed;
  if (!o.adapter.empty()) {
    auto read = train::load_adapters(o.adapter, d);
    if (!read) return failed(bad_input, read.error());
    lora = *std::move(read);
  } else if (o.adapters()) {
    train::add_adapters(d, lora);
  }
  std::optional<model::Decoder> teacher;
  if (!o.teacher.empty()) {
    auto opened = open_decoder(o.teacher);
    if (!opened) return failed(bad_input, opened.error());
    teacher = *std::move(opened);
  }
  if (!o.save.empty()) {
    const std::string first = is_container_path(o.save) ? o.save : (fs::path(o.save) / "model.safetensors").string();
    if (const auto writable = check_writable(first); !writable) return failed(cannot_write, writable.error());
  }

  Status done = Ok{};
  if (o.has_examples()) {
    train::TrainOptions options = o.options;
    options.shuffle = !o.no_shuffle;
    options.adamw.beta1 = o.betas[0], options.adamw.beta2 = o.betas[1], options.adamw.seed = options.seed;
    options.loss.executor = pool, options.loss.recompute_blocks = !o.keep_activations;
    options.loss.dropout.rate = lora.dropout, options.loss.dropout.seed = options.seed;
    options.loss.teacher = teacher ? &*teacher : nullptr;
    options.checkpoints.write = write_checkpoint;
    const auto views = examples.views();
    StepLog log(true);
    done = train_on(o, *loaded, views, std::move(options), log);
    log.end();
    // A run that diverges has steps behind it, whose weights are good.
    if (!done && done.error().code != ErrorCode::not_finite) return failed(exit_code_of_training(done.error()), done.error());
    if (const auto written = log.write(o); !written) return failed(cannot_write, written.error());
  }
  if (const auto saved = save_all(o, *loaded, lora, pool); !saved)
    return failed(exit_code_of_write(saved.error()), saved.error());
  if (!done) return failed(exit_code_of_training(done.error()), done.error());
  return success;
}

void add_options(CLI::App& app, TrainCommand& o) {
  add_model(app, o.model);
  app.add_option("--ids", o.ids, "JSON: a list of lists of token ids, one per example")->type_name("FILE");
  app.add_option("--text", o.text, "A text, cut into examples of --context tokens; what is left at its end is not used")
      ->type_name("FILE")
      ->excludes("--ids");
  app.add_option(
         "--conversations", o.conversations,
         "JSON lines: turns, messages, instruction and output, or prompt and completion. Only the assistant's tokens count")
      ->type_name("FILE")
      ->excludes("--ids")
      ->excludes("--text");
  add_chat_template(app, o.chat_template)->needs("--conversations");
  app.add_option("--held-out", o.held_out, "The last N examples are not trained on; their loss is printed before and behind")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  add_tokenizer(app, o.tokenizer);
  app.add_option("--context", o.context, "Tokens per example of --text, most tokens of a conversation")
      ->check(CLI::Range(Index{2}, Index{1} << 24))
      ->capture_default_str();
  app.add_option(
         "--teacher", o.teacher,
         "A model of the same vocabulary: the loss is the KL divergence from its predictions instead of the cross entropy")
      ->type_name("MODEL");
  app.add_option(
         "--save", o.save,
         "What is trained: the adapter in a folder of PEFT; else a Hugging Face folder with the types of MODEL, or with a "
         "name that ends in .safetensors anybit's own file")
      ->type_name("PATH");
  app.add_option("--losses", o.losses, "CSV with the loss, gradient norm and rate of every step")->type_name("FILE");
  app.add_option("--svg", o.svg, "The losses as a picture")->type_name("FILE");
  app.add_option("--checkpoint", o.options.checkpoints.path, "The state of the run, to go on from after an interruption")
      ->type_name("FILE");
  app.add_option("--checkpoint-every", o.options.checkpoints.every, "Steps between checkpoints; 0: only behind the last step")
      ->check(CLI::NonNegativeNumber)
      ->default_val(50)
      ->needs("--checkpoint");
  app.add_flag("--resume", o.options.checkpoints.resume,
               "Goes on from --checkpoint, to the same bytes as without an interruption; starts anew where there is none")
      ->needs("--checkpoint");
}

void add_adapter_options(CLI::App& app, TrainCommand& o) {
  app.add_option("--lora-rank", o.lora_rank,
                 "Trains adapters of this rank on all linears of the blocks; 0: the weights themselves")
      ->check(CLI::Range(Index{0}, Index{1} << 16))
      ->capture_default_str();
  app.add_option("--lora-alpha", o.lora_alpha, "The adapter adds alpha / rank B A")->capture_default_str();
  app.add_option("--lora-dropout", o.lora_dropout, "Share of the adapters' inputs that become 0")
      ->check(CLI::Range(0.0f, 0.999f))
      ->capture_default_str();
  app.add_option("--adapter", o.adapter, "Goes on with the adapter in this folder of PEFT")->type_name("DIR");
  app.add_option("--base", o.base,
                 "QLoRA: the frozen linears of the blocks are packed by this recipe first, such as nearest-nf4-g64-dq")
      ->type_name("RECIPE");
  app.add_option("--merge", o.merge,
                 "anybit's own file (.safetensors) of the model with the adapter added to its weights, as floats")
      ->type_name("FILE");
  app.add_option("--requantize", o.requantize, "The merged linears are packed again by this recipe")
      ->type_name("RECIPE")
      ->needs("--merge");
}

void add_ticket_options(CLI::App& app, TrainCommand& o) {
  app.add_option(
         "--ticket", o.ticket,
         "A sparse model by rounds of training, pruning and rewinding: imp (iterative magnitude pruning), mplth, sa-mplth")
      ->check(CLI::IsMember({"imp", "mplth", "sa-mplth"}));
  app.add_option("--prune-share", o.prune_share, "Of the weights of every linear of the blocks")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  app.add_option("--prune-rounds", o.prune_rounds, "imp: prunings; training runs once more than that")
      ->check(CLI::Range(Index{1}, Index{1000}))
      ->capture_default_str();
}

void add_step_options(CLI::App& app, TrainCommand& o) {
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
  add_threads(app, o.threads);
}

/// What the options together cannot mean; empty: nothing.
std::string contradiction(const TrainCommand& o) {
  std::error_code ignored;
  if (!o.has_examples() && (o.adapter.empty() || o.merge.empty()))
    return "nothing to learn from: give --text, --conversations or --ids (or --adapter and --merge, to merge without training)";
  for (const double beta : o.betas)
    if (!(beta >= 0 && beta < 1)) return "--betas must be 0 or above and below 1";
  if (const std::string wrong = contradiction(o.wasq); !wrong.empty()) return wrong;
  if ((o.wasq.any() || !o.ticket.empty()) && o.adapters()) return "--wasq and --ticket train weights: leave adapters out";
  if (o.wasq.any() && !o.ticket.empty()) return "--wasq and --ticket are two runs: prune first, then train on the grid";
  if (!o.ticket.empty() && !o.options.checkpoints.path.empty())
    return "--checkpoint keeps one run, a ticket has several: leave it out";
  if (o.wasq.as_published && !o.wasq.any() && o.ticket.empty()) return "--as-published goes with --wasq or --ticket";
  if (!o.adapters() && (!o.base.empty() || !o.merge.empty()))
    return "--base and --merge go with adapters: give --lora-rank or --adapter";
  if (!o.merge.empty() && !is_container_path(o.merge))
    return "--merge writes anybit's own file: its name must end in .safetensors";
  if (o.adapters() && is_container_path(o.save)) return "--save is PEFT's folder for an adapter; --merge writes one file of both";
  if (!o.save.empty() && fs::exists(o.save, ignored) && fs::equivalent(o.save, o.model, ignored))
    return "--save is the model: name another folder";
  if (!o.save.empty() && !o.adapters() && !is_container_path(o.save) && !fs::exists(fs::path(o.model) / "config.json", ignored))
    return "a folder is saved of a Hugging Face folder only: let --save end in .safetensors, or train an adapter with --lora-rank";
  if (const std::string& path = o.options.checkpoints.path;
      !path.empty() && !o.options.checkpoints.resume && fs::exists(path, ignored))
    return "--checkpoint is there already: give --resume to go on from it, or name another file";
  return {};
}

int train_command(int argc, const char* const* argv) {
  TrainCommand o;
  CLI::App app(
      "Trains a model with AdamW on a text, on conversations or on token ids: all its weights, or with --lora-rank adapters on a\n"
      "frozen model, which may be packed. Every token but the first of an example is predicted from those before it. The same bits\n"
      "come out for any number of threads.",
      "anybit train");
  add_options(app, o), add_adapter_options(app, o), add_wasq_options(app, o.wasq), add_ticket_options(app, o),
      add_step_options(app, o);
  if (const auto end = parse(app, argc, argv, "anybit train MODEL --text book.txt --lora-rank 16 --lr 2e-4 --save adapter"))
    return *end;
  if (const std::string wrong = contradiction(o); !wrong.empty()) return wrong_use("train", wrong);
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  for (const FileRole& role : {FileRole{"--ids", o.ids},
                               {"--text", o.text},
                               {"--conversations", o.conversations},
                               {"--adapter", o.adapter},
                               {"--teacher", o.teacher}})
    inputs.push_back(role);
  const std::vector<FileRole> outputs{{"--save", o.save},
                                      {"--merge", o.merge},
                                      {"--losses", o.losses},
                                      {"--svg", o.svg},
                                      {"--checkpoint", o.options.checkpoints.path}};
  if (const auto apart = check_roles(inputs, outputs); !apart) return fail("train", usage, apart.error());
  for (const std::string& path : {o.losses, o.svg, o.merge, o.options.checkpoints.path})
    if (!path.empty())
      if (const auto writable = check_writable(path); !writable) return fail("train", cannot_write, writable.error());
  return train_model(o);
}

}  // namespace

int run_train(int argc, const char* const* argv) {
  return run_command([&] { return train_command(argc, argv); });
}

}  // namespace tool
