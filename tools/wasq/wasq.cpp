#include "wasq.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <anybit/evaluate/prompt_perplexity.hpp>
#include <anybit/evaluate/svg_shapes.hpp>

#include "generate/sampler.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/text.hpp"
#include "train/save_trained.hpp"
#include "wasq/train_cells.hpp"

namespace tool {

using namespace anybit;

namespace {

struct WasqCommand {
  std::vector<std::string> models;
  std::string prompts, prompt, tokenizer, json, svg;
  TrainedGrid grid;
  Index most_tokens = 0, continue_tokens = 64, threads = 0;
};

/// Where a model stands in the grid: its file is called sf{bits}_{context}_{epochs}_{method}, as the repository names them.
struct GridPlace {
  Index bits = 0, context = 0, epochs = 0;
  std::string method;

  std::string species() const { return "SF" + std::to_string(bits) + " " + method; }
};

std::optional<GridPlace> place_of(const std::string& path) {
  const std::string name = std::filesystem::path(path).stem().string();
  long long bits = 0, context = 0, epochs = 0;
  int end = 0;
  if (std::sscanf(name.c_str(), "sf%5lld_%9lld_%9lld_%n", &bits, &context, &epochs, &end) != 3 || end == 0) return std::nullopt;
  if (bits < 2 || bits > 16 || context < 1 || epochs < 0 || static_cast<std::size_t>(end) >= name.size()) return std::nullopt;
  return GridPlace{static_cast<Index>(bits), static_cast<Index>(context), static_cast<Index>(epochs),
                   name.substr(static_cast<std::size_t>(end))};
}

struct Row {
  std::string model;
  std::optional<GridPlace> place;
  std::optional<evaluate::PromptPerplexity> perplexity;
  std::string continuation;
};

Result<evaluate::PromptPerplexity> evaluate_prompts(const model::Model& m, const std::vector<std::string>& prompts,
                                                    const WasqCommand& o, ExecutorRef executor) {
  std::vector<std::vector<double>> nll;
  const Index room = m.decoder.config.context, most = o.most_tokens > 0 ? std::min(o.most_tokens, room) : room;
  for (const std::string& prompt : prompts) {
    ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(prompt));
    if (static_cast<Index>(ids.size()) > most) ids.resize(static_cast<std::size_t>(most));
    ANYBIT_TRY(std::vector<double> losses, evaluate::prompt_losses(m.decoder, ids, executor));
    nll.push_back(std::move(losses));
  }
  const evaluate::PromptPerplexity p = evaluate::prompt_perplexity(nll);
  if (p.predictions == 0) return {ErrorCode::insufficient_data, o.prompts + ": no prompt has two tokens: give longer lines"};
  return p;
}

/// The most likely continuation.
Result<std::string> continue_prompt(const model::Model& m, const WasqCommand& o, ExecutorRef executor) {
  const model::Vocabulary& v = m.tokenizer.vocabulary();
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(o.prompt, model::Specials::parsed));
  if (v.add_bos && v.bos && (ids.empty() || ids.front() != *v.bos)) ids.insert(ids.begin(), *v.bos);
  const Index room = m.decoder.config.context - static_cast<Index>(ids.size());
  if (ids.empty() || room < 1)
    return {ErrorCode::invalid_argument, "the prompt has " + std::to_string(ids.size()) + " tokens, the model's context holds " +
                                             std::to_string(m.decoder.config.context) + ": give a prompt in between"};
  const Index wanted = std::min(o.continue_tokens, room);
  nn::KvCache cache(model::cache_shape(m.decoder.config), static_cast<Index>(ids.size()) + wanted);
  Sampler greedy{SamplerOptions{}};
  Utf8Stream stream;
  std::string out;
  ANYBIT_TRY(Matrix logits, model::forward(m.decoder, ids, cache, {.executor = executor, .last_only = true}));
  for (Index made = 0;;) {
    for (const float l : logits.view().row(0))
      if (std::isnan(l)) return {ErrorCode::not_finite, "the predictions are no numbers: the file is damaged"};
    const auto id = static_cast<model::TokenId>(greedy.next(logits.view().row(0)));
    if (v.eos && id == *v.eos) break;
    if (v.kinds[static_cast<std::size_t>(id)] != model::TokenKind::control) out += stream.feed(m.tokenizer.token(id));
    if (++made == wanted) break;
    ANYBIT_TRY(logits, model::forward(m.decoder, std::span(&id, 1), cache, {.executor = executor, .last_only = true}));
  }
  return out + stream.finish();
}

Result<Row> evaluate_model(const std::string& path, const std::vector<std::string>& prompts, const WasqCommand& o,
                           ExecutorRef executor) {
  ANYBIT_TRY(const model::Model m, open_model(path, o.tokenizer));
  Row row{.model = path, .place = place_of(path), .perplexity = {}, .continuation = {}};
  if (!prompts.empty()) {
    ANYBIT_TRY(row.perplexity, evaluate_prompts(m, prompts, o, executor));
  }
  if (!o.prompt.empty()) {
    ANYBIT_TRY(row.continuation, continue_prompt(m, o, executor));
  }
  return row;
}

/// Perplexity per token of the places of the grid: a table per species, a row per context, a column per number of epochs.
void print_grid(const std::vector<Row>& rows) {
  std::map<std::string, std::map<Index, std::map<Index, double>>> species;
  for (const Row& r : rows)
    if (r.place && r.perplexity) species[r.place->species()][r.place->context][r.place->epochs] = r.perplexity->per_token;
  for (const auto& [name, contexts] : species) {
    std::set<Index> epochs;
    for (const auto& [context, cells] : contexts)
      for (const auto& [epoch, value] : cells) epochs.insert(epoch);
    if (contexts.size() + epochs.size() < 3) continue;
    std::printf("\n%s, perplexity per token\n%8s", printable(name).c_str(), "context");
    for (const Index epoch : epochs) std::printf(" %5td epochs", epoch);
    std::printf("\n");
    for (const auto& [context, cells] : contexts) {
      std::printf("%8td", context);
      for (const Index epoch : epochs) {
        const auto cell = cells.find(epoch);
        if (cell == cells.end())
          std::printf(" %12s", "-");
        else
          std::printf(" %12.4f", cell->second);
      }
      std::printf("\n");
    }
  }
}

void print(const std::vector<Row>& rows, const WasqCommand& o) {
  if (!o.prompts.empty()) {
    std::printf("%-28s %5s %8s %7s %-12s %18s %12s %12s\n", "model", "bits", "context", "epochs", "method", "mean of prompts",
                "per token", "predictions");
    for (const Row& r : rows) {
      const std::string name = std::filesystem::path(r.model).filename().string();
      const auto number = [&](Index GridPlace::* which) {
        return r.place ? std::to_string((*r.place).*which) : std::string("-");
      };
      std::printf("%-28s %5s %8s %7s %-12s %18.4f %12.4f %12lld\n", printable(name).c_str(), number(&GridPlace::bits).c_str(),
                  number(&GridPlace::context).c_str(), number(&GridPlace::epochs).c_str(),
                  r.place ? printable(r.place->method).c_str() : "-", r.perplexity->mean_of_prompts, r.perplexity->per_token,
                  static_cast<long long>(r.perplexity->predictions));
    }
  }
  if (!o.prompts.empty()) print_grid(rows);
  if (!o.prompt.empty())
    for (const Row& r : rows)
      std::printf("\n%s:\n%s%s\n", printable(r.model).c_str(), printable(o.prompt).c_str(), printable(r.continuation).c_str());
}

nlohmann::ordered_json to_json(const std::vector<Row>& rows) {
  using nlohmann::ordered_json;
  const auto number = [](double x) { return std::isfinite(x) ? ordered_json(x) : ordered_json(nullptr); };
  ordered_json out = ordered_json::array();
  for (const Row& r : rows) {
    ordered_json row{{"model", r.model}};
    if (r.place)
      row.update(ordered_json{
          {"bits", r.place->bits}, {"context", r.place->context}, {"epochs", r.place->epochs}, {"method", r.place->method}});
    if (r.perplexity)
      row.update(ordered_json{{"mean_of_prompt_perplexities", number(r.perplexity->mean_of_prompts)},
                              {"perplexity_per_token", number(r.perplexity->per_token)},
                              {"mean_nll", number(r.perplexity->mean_nll)},
                              {"prompts", r.perplexity->prompts},
                              {"predictions", r.perplexity->predictions}});
    if (!r.continuation.empty()) row["continuation"] = r.continuation;
    out.push_back(std::move(row));
  }
  return out;
}

/// Loss per token against the context that models were trained with: a curve per species, of its most epochs.
std::string picture(const std::vector<Row>& rows) {
  constexpr std::array<std::string_view, 8> colours{"#1f5fa8", "#c2410c", "#15803d", "#7e22ce",
                                                    "#b91c1c", "#0e7490", "#854d0e", "#475569"};
  std::map<std::string, std::map<Index, std::pair<Index, double>>> curves;  // species, context: epochs and loss
  double low = 0, high = 0, first = 0, last = 0;
  bool any = false;
  for (const Row& r : rows) {
    if (!r.place || !r.perplexity || !std::isfinite(r.perplexity->mean_nll)) continue;
    const double loss = r.perplexity->mean_nll, x = std::log2(static_cast<double>(r.place->context));
    low = any ? std::min(low, loss) : loss, high = any ? std::max(high, loss) : loss;
    first = any ? std::min(first, x) : x, last = any ? std::max(last, x) : x;
    any = true;
    auto& at = curves[r.place->species()];
    const auto there = at.find(r.place->context);
    if (there == at.end() || there->second.first <= r.place->epochs) at[r.place->context] = {r.place->epochs, loss};
  }
  if (!(high > low)) high = low + 1;
  if (!(last > first)) last = first + 1;
  const evaluate::SvgPlot plot{{70, 50, 560, 300}, {first, last}, {low, high}};
  std::string out = plot.title("Loss by training context");
  for (int i = 0; i <= 4; ++i) {
    const double y = low + (high - low) * i / 4;
    std::array<char, 32> label{};
    std::snprintf(label.data(), label.size(), "%.3f", y);
    out += plot.row(y, label.data());
  }
  for (double x = std::ceil(first); x <= last; x += 1) out += plot.column(x, std::to_string(std::llround(std::exp2(x))));
  out += plot.x_name("training context (tokens)");
  std::size_t place = 0;
  for (const auto& [species, points] : curves) {
    const std::string_view colour = colours[place % colours.size()];
    std::vector<std::array<double, 2>> line;
    for (const auto& [context, at] : points) line.push_back({std::log2(static_cast<double>(context)), at.second});
    out += plot.curve(line, colour);
    for (const auto& point : line) out += plot.mark(point, place, colour);
    out += plot.legend(place, place, colour, species);
    ++place;
  }
  return evaluate::svg_page({660, 430 + 20 * static_cast<double>(place), "loss by training context", true}, out);
}

void add_grid_options(CLI::App& app, TrainedGrid& g) {
  app.add_option("--train", g.base, "A model with float weights: every cell of the grid is trained from it, saved and evaluated")
      ->type_name("MODEL");
  const auto grid_option = [&](const char* name, auto& to, const char* what) {
    return app.add_option(name, to, what)->needs("--train")->capture_default_str();
  };
  grid_option("--text", g.text, "What is trained on, cut into pieces of the context")->type_name("FILE");
  grid_option("--folder", g.folder, "Where cells are saved. Those that are there are not trained again")->type_name("FOLDER");
  grid_option("--contexts", g.contexts, "Tokens of a piece, several")
      ->delimiter(',')
      ->check(CLI::Range(Index{2}, Index{1} << 24));
  grid_option("--species", g.species,
              "sf{bits}_{method}, several: methods as anybit train --wasq has them; with -published behind it as published")
      ->delimiter(',');
  grid_option("--epochs", g.epochs, "Passes over the text; a model is saved behind each")
      ->check(CLI::Range(Index{1}, Index{10000}));
  grid_option("--step-tokens", g.step_tokens, "Tokens of a step, for every context")->check(CLI::Range(Index{2}, Index{1} << 30));
  grid_option("--lr", g.rate, "The constant learning rate")->check(CLI::PositiveNumber);
  grid_option("--teacher", g.teacher, "The loss is the KL divergence from its predictions")->type_name("MODEL");
  grid_option("--checkpoint-every", g.checkpoint_every, "Steps between checkpoints; 0: only behind a run")
      ->check(CLI::NonNegativeNumber);
  grid_option("--seed", g.seed, "Of the order of pieces");
}

/// What the options of training lack; empty: nothing.
std::string contradiction(const TrainedGrid& g) {
  if (g.base.empty()) return {};
  if (g.text.empty() || g.folder.empty()) return "--train needs --text, what to learn, and --folder, where to save";
  std::set<std::string> known;
  for (const std::string& s : g.species) {
    if (const auto species = species_of(s); !species) return species.error().message;
    if (!known.insert(s).second) return "--species names " + s + " twice";
  }
  if (std::set<Index>(g.contexts.begin(), g.contexts.end()).size() != g.contexts.size()) return "--contexts has a length twice";
  return {};
}

int evaluate_models(int argc, const char* const* argv) {
  WasqCommand o;
  CLI::App app(
      "Saved models side by side, by the protocols of the WASQ evaluation. Models whose files are called\n"
      "sf{bits}_{context}_{epochs}_{method} are placed in the grid of training context, epochs and species. With --train the\n"
      "grid is trained first.",
      "anybit wasq");
  app.add_option("MODEL", o.models, readable_models);
  app.add_option("--prompts", o.prompts,
                 "A text, one prompt per line. Of each model the mean of the prompts' perplexities, as published, and\n"
                 "the exponential of the mean loss per token")
      ->type_name("FILE");
  app.add_option("--prompt-tokens", o.most_tokens, "Longer prompts are cut; default: the model's context")
      ->type_name("N")
      ->check(CLI::Range(Index{2}, Index{1} << 24));
  app.add_option("--generate", o.prompt, "Every model continues this text with its most likely tokens")->type_name("TEXT");
  app.add_option("--tokens", o.continue_tokens, "Most tokens of a continuation")
      ->type_name("N")
      ->check(CLI::Range(Index{1}, Index{1} << 24))
      ->capture_default_str();
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  add_grid_options(app, o.grid);
  app.add_option("--svg", o.svg, "Loss against training context, a curve per species")->type_name("FILE")->needs("--prompts");
  add_json(app, o.json, "the results", "the text");
  if (const auto end = parse(app, argc, argv, "anybit wasq sf4_128_3_fpm.safetensors model.gguf --prompts prompts.txt"))
    return *end;
  const bool trains = !o.grid.base.empty();
  if (o.models.empty() && !trains) return wrong_use("wasq", "no model: name some, or give --train");
  if (o.prompts.empty() && o.prompt.empty() && !trains)
    return wrong_use("wasq", "nothing to do: give --prompts, --generate or both");
  if (const std::string wrong = contradiction(o.grid); !wrong.empty()) return wrong_use("wasq", wrong);
  std::vector<FileRole> inputs{{"--prompts", o.prompts}};
  for (const std::string& m : o.models)
    for (FileRole& role : model_inputs(m, o.tokenizer)) inputs.push_back(std::move(role));
  std::vector<FileRole> outputs{{"--json", o.json}, {"--svg", o.svg}};
  if (trains) {
    o.grid.tokenizer = o.tokenizer;
    for (FileRole& role : model_inputs(o.grid.base, o.tokenizer)) inputs.push_back(std::move(role));
    inputs.insert(inputs.end(), {{"--text", o.grid.text}, {"--teacher", o.grid.teacher}});
    for (const std::string& cell : cell_files(o.grid)) outputs.push_back({"a cell of the grid", cell});
  }
  if (const auto end = check_files("wasq", inputs, outputs)) return *end;
  std::vector<std::string> prompts;
  if (!o.prompts.empty()) {
    const auto text = read_text(o.prompts);
    if (!text) return fail("wasq", bad_input, text.error());
    for (const TextLine& line : lines_of(*text)) prompts.emplace_back(line.text);
    if (prompts.empty()) return fail("wasq", bad_input, o.prompts + ": holds no prompt: give one per line");
  }
  ThreadPool pool(thread_count(o.threads));
  if (trains) {
    if (const auto trained = train_cells(o.grid, pool); !trained)
      return fail("wasq", exit_code_of_training(trained.error()), trained.error());
    for (const std::string& cell : cell_files(o.grid)) o.models.push_back(cell);
    if (o.prompts.empty() && o.prompt.empty()) return success;
  }
  std::vector<Row> rows;
  for (const std::string& path : o.models) {
    auto row = evaluate_model(path, prompts, o, pool);
    if (!row) return fail("wasq", bad_input, in_context(row.error(), path));
    rows.push_back(*std::move(row));
  }
  if (o.json != "-") print(rows, o);
  if (!o.svg.empty())
    if (const auto written = write_text(o.svg, picture(rows)); !written) return fail("wasq", cannot_write, written.error());
  return write_json("wasq", o.json, to_json(rows));
}

}  // namespace

int run_wasq(int argc, const char* const* argv) {
  return run_command([&] { return evaluate_models(argc, argv); });
}

}  // namespace tool
