#include "train_cells.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>

#include <anybit/train/trainer.hpp>
#include <anybit/train/wasq/pack.hpp>

#include "recipes/catalog.hpp"
#include "shared/open_model.hpp"
#include "shared/printable.hpp"
#include "train/examples.hpp"
#include "train/save_trained.hpp"

namespace tool {

using namespace anybit;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view published_ending = "-published";

std::string cell_file(const TrainedGrid& grid, Index context, const std::string& species, Index epoch) {
  const std::size_t bits_end = species.find('_');
  return (fs::path(grid.folder) / (species.substr(0, bits_end) + "_" + std::to_string(context) + "_" + std::to_string(epoch) +
                                   species.substr(bits_end) + ".safetensors"))
      .string();
}

/// The model as it is behind a step: `d` holds the weights of the last loss.
Status save_cell(const std::string& path, const TrainedGrid& grid, const model::Model& m, const WasqRun& run) {
  model::Model now = m;
  train::wasq::round_layers(run.grid, now.decoder);
  ANYBIT_TRY(const Index packed, train::wasq::pack_layers(run.grid, catalog().registry(), now.decoder));
  ANYBIT_TRY_STATUS(save_container(path, grid.base, now, "trained"));
  std::printf("%s: %td of %zu linears as codes\n", printable(path).c_str(), packed, run.grid.layers.size());
  return Ok{};
}

enum class RunEnd { complete, lost };  ///< lost: the checkpoint is behind a cell whose file is gone

/// All epochs of one context and species.
Result<RunEnd> train_run(const TrainedGrid& grid, Index context, const std::string& species, const model::Model& base,
                         std::span<const train::Example> examples, const model::Decoder* teacher, ExecutorRef executor) {
  ANYBIT_TRY(const WasqOptions method, species_of(species));
  model::Model m = base;
  train::TrainOptions o;
  o.epochs = grid.epochs, o.batch = std::max<Index>(grid.step_tokens / context, 1), o.seed = grid.seed;
  o.schedule = {.decay = train::Decay::constant, .peak = grid.rate};
  o.adamw.weight_decay = 0, o.adamw.seed = grid.seed;
  o.loss.executor = executor, o.loss.teacher = teacher;
  ANYBIT_TRY(WasqRun run, prepare_wasq(method, m.decoder, examples, o.loss));
  o.reparametrize = train::wasq::on_grid(run.grid), o.loss.taps = run.taps;
  const fs::path state = fs::path(grid.folder) / (species + "_" + std::to_string(context) + ".state");
  o.checkpoints = {.path = state.string(), .every = grid.checkpoint_every, .resume = true, .write = write_checkpoint};
  const Index per_epoch = ceil_div(static_cast<Index>(examples.size()), o.batch);
  Status saved = Ok{};
  RunEnd end = RunEnd::complete;
  const auto behind = [&](const train::TrainStep& s) {
    if ((s.step + 1) % per_epoch == 0) {
      const std::string path = cell_file(grid, context, species, (s.step + 1) / per_epoch);
      if (std::error_code ignored; !fs::exists(path, ignored)) {
        if (s.resumed)
          end = RunEnd::lost;
        else
          saved = save_cell(path, grid, m, run);
      }
    }
    return saved.ok() && end == RunEnd::complete;
  };
  ANYBIT_TRY_STATUS(train::train_decoder(m.decoder, examples, train::all_weights, o, behind));
  ANYBIT_TRY_STATUS(saved);
  std::error_code ignored;
  fs::remove(state, ignored);
  return end;
}

}  // namespace

Result<WasqOptions> species_of(const std::string& name) {
  int bits = 0, end = 0;
  const auto wrong = [&](const std::string& why) {
    return Error{ErrorCode::invalid_argument, "--species " + printable(name) + ": " + why +
                                                  ": give sf{bits}_{method}, for example sf4_fpm or sf8_opt-published"};
  };
  if (std::sscanf(name.c_str(), "sf%2d_%n", &bits, &end) != 1 || end == 0) return wrong("no bits and method");
  if (bits < 2 || bits > 16) return wrong("bits are 2 to 16");
  WasqOptions o;
  o.bits = {bits}, o.method = name.substr(static_cast<std::size_t>(end));
  if (o.method.ends_with(published_ending)) o.as_published = true, o.method.resize(o.method.size() - published_ending.size());
  if (o.method != "fpm" && o.method != "opt" && o.method != "fasteropt" && o.method != "vanilla")
    return wrong("the methods are fpm, opt, fasteropt and vanilla");
  return o;
}

std::vector<std::string> cell_files(const TrainedGrid& grid) {
  std::vector<std::string> out;
  for (const Index context : grid.contexts)
    for (const std::string& species : grid.species)
      for (Index epoch = 1; epoch <= grid.epochs; ++epoch) out.push_back(cell_file(grid, context, species, epoch));
  return out;
}

Status train_cells(const TrainedGrid& grid, ExecutorRef executor) {
  ANYBIT_TRY(const model::Model base, open_model(grid.base, grid.tokenizer));
  std::optional<model::Decoder> teacher;
  if (!grid.teacher.empty()) {
    ANYBIT_TRY(teacher, open_decoder(grid.teacher));
  }
  for (const Index context : grid.contexts) {
    if (context > base.decoder.config.context)
      return {ErrorCode::invalid_argument, "--contexts has " + std::to_string(context) + ", the base model's context is " +
                                               std::to_string(base.decoder.config.context) + ": give shorter ones"};
    ANYBIT_TRY(const Examples examples, read_plain_text(grid.text, base, context));
    for (const std::string& species : grid.species) {
      const auto is_there = [&](Index epoch) {
        std::error_code ignored;
        return fs::exists(cell_file(grid, context, species, epoch), ignored);
      };
      bool whole = true;
      for (Index epoch = 1; epoch <= grid.epochs; ++epoch) whole = whole && is_there(epoch);
      if (whole) continue;
      const auto run = [&] {
        auto end = train_run(grid, context, species, base, examples.views(), teacher ? &*teacher : nullptr, executor);
        return end ? std::move(end) : Result<RunEnd>(in_context(end.error(), species + ", context " + std::to_string(context)));
      };
      ANYBIT_TRY(const RunEnd end, run());
      if (end == RunEnd::lost) ANYBIT_TRY_STATUS(run());  // from the beginning: its checkpoint is gone
    }
  }
  return Ok{};
}

}  // namespace tool
