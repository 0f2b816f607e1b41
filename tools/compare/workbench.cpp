#include "workbench.hpp"

#include <algorithm>
#include <array>
#include <set>

#include <anybit/evaluate/routing.hpp>
#include <anybit/model/container.hpp>
#include <anybit/model/rotate.hpp>
#include <anybit/quantize/calibration_check.hpp>

#include "shared/conversations.hpp"
#include "shared/outputs.hpp"
#include "shared/printable.hpp"
#include "shared/source_tree.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;
using model::ModelRecipe;
using model::TokenId;

namespace {

constexpr Index longest_window = 512;
constexpr Index layer_error_samples = 128;

Index window_length(const model::DecoderConfig& c, Index tokens) {
  return std::min({longest_window, c.context, std::max<Index>(tokens / 2, 1)});
}

}  // namespace

Result<std::vector<const ModelRecipe*>> find_recipes(RecipeBook& book, const std::vector<std::string>& names) {
  std::vector<const ModelRecipe*> recipes;
  for (const std::string& name : names) {
    ANYBIT_TRY(const ModelRecipe* const recipe, book.find(name));
    if (std::find(recipes.begin(), recipes.end(), recipe) == recipes.end()) recipes.push_back(recipe);
  }
  if (names.empty())
    for (const ModelRecipe& r : book.all()) recipes.push_back(&r);
  return recipes;
}

Result<OwnRecipes> find_own_recipes(RecipeBook& book, const Options& options) {
  const auto find = [&](const std::string& option, const std::string& name) -> Result<const ModelRecipe*> {
    if (name.empty()) return static_cast<const ModelRecipe*>(nullptr);
    ANYBIT_TRY(const ModelRecipe* const recipe, book.find(name));
    if (recipe->needs != Needs::none)
      return Error{ErrorCode::invalid_argument, option + " " + recipe->name + " learns from calibration; give a nearest recipe"};
    return recipe;
  };
  OwnRecipes own;
  ANYBIT_TRY(own.embedding, find("--embedding", options.embedding));
  ANYBIT_TRY(own.head, find("--head", options.head));
  return own;
}

Result<std::unique_ptr<Workbench>> Workbench::open(const Options& options, const std::vector<const ModelRecipe*>& recipes,
                                                   const OwnRecipes& own, Progress& progress) {
  std::unique_ptr<Workbench> bench(new Workbench(options, progress));
  bench->recipes_ = recipes;
  bench->own_recipes_ = own;
  bench->count_work(recipes);
  progress.begin("loading " + options.model, 300, bench->work_);
  model::LoadOptions load;
  load.tokenizer = options.tokenizer;
  if (const auto saved = io::AnybitFile::open(options.model))
    for (const io::TensorInfo& t : saved->tensors())
      if (saved->is_packed(t.name))
        return Error{ErrorCode::unsupported,
                     options.model + ": holds a model that is quantized already; give the file that it was made from"};
  ANYBIT_TRY(model::Model loaded, model::load_model(options.model, load));
  ANYBIT_TRY_STATUS(check(options.kv, cache_shape(loaded.decoder.config)));
  loaded.name = utf8(loaded.name);  // it stands in what is written
  bench->model_ = std::make_unique<model::Model>(std::move(loaded));
  progress.end();

  ANYBIT_TRY_STATUS(bench->load_texts());
  bench->source_.decoder = bench->model_->decoder;
  return bench;
}

Result<std::unique_ptr<Workbench>> Workbench::prepare(const Options& options, const std::vector<const ModelRecipe*>& recipes,
                                                      const OwnRecipes& own, Progress& progress) {
  ANYBIT_TRY(std::unique_ptr<Workbench> bench, open(options, recipes, own, progress));
  ANYBIT_TRY_STATUS(bench->check_targets());
  ANYBIT_TRY_STATUS(bench->calibrate());
  if (options.evaluates) {
    ANYBIT_TRY_STATUS(bench->run_reference());
  }
  ANYBIT_TRY_STATUS(bench->pack_embedding());
  if (options.quick) bench->speed_ = {64, 8, 2};
  return bench;
}

/// The work of quantizing, in tokens of a forward pass that take as long; only for the time that is left.
double Workbench::quantization_share(Needs needs) const {
  const double streams = covers(needs, Needs::input_drift) ? 6 : 3;
  const double calibration = options_.sequential ? streams * static_cast<double>(options_.calibration_tokens_wanted()) : 0;
  if (covers(needs, Needs::samples)) return calibration + 6000;
  if (covers(needs, Needs::hessian)) return calibration + 3000;
  return calibration + 300;
}

void Workbench::count_work(const std::vector<const ModelRecipe*>& recipes) {
  const double evaluation = options_.evaluates ? static_cast<double>(options_.tokens_wanted()) : 0,
               calibration = static_cast<double>(options_.calibration_tokens_wanted());
  work_ = 300 + (options_.sequential ? 0 : (options_.guided > 0 ? 2 + guided_share : 2) * calibration) + evaluation + 700;
  if (options_.kv.quantized()) work_ += evaluation + 1000;
  if (by_size()) {
    std::set<const ModelRecipe*> probes;
    for (const double bits : options_.target_bpw) probes.insert(probe_for(bits));
    work_ += candidates_share + probe_share * static_cast<double>(probes.size());
  }
  const std::size_t models = by_size() ? options_.target_bpw.size() : recipes.size();
  std::optional<model::RotationOptions> rotation;
  for (std::size_t i = 0; i < models; ++i) {
    const ModelRecipe& r = *recipes[by_size() ? 0 : i];
    work_ += evaluation + 1000 + quantization_share(r.needs);
    if (r.rotation != rotation) work_ += 2 * calibration + evaluation + 700;
    rotation = r.rotation;
  }
}

Result<std::vector<TokenId>> Workbench::tokens_of(const std::string& text, const std::string& name, Index wanted, bool asked_for,
                                                  const char* option) {
  ANYBIT_TRY(std::vector<TokenId> ids,
             domain_tokens(text, name, model_->tokenizer, {options_.chat_template, options_.model},
                           options_.parse_special ? model::Specials::parsed : model::Specials::as_text));
  const Index has = static_cast<Index>(ids.size()), least = asked_for ? wanted : std::min<Index>(wanted, 64);
  if (has < least)
    return Error{ErrorCode::insufficient_data, name + ": has " + std::to_string(has) + " tokens, " + std::to_string(least) +
                                                   " are needed; give a longer text" +
                                                   (asked_for ? std::string(" or a smaller ") + option : std::string())};
  if (has < wanted)
    remarks_.push_back(name + " has only " + std::to_string(has) + " tokens, fewer than the usual " + std::to_string(wanted) +
                       ".");
  ids.resize(static_cast<std::size_t>(std::min(has, wanted)));
  return ids;
}

bool Workbench::learns() const {
  return by_size() || options_.sequential ||
         std::any_of(recipes_.begin(), recipes_.end(), [](const ModelRecipe* r) { return r->needs != Needs::none; });
}

Status Workbench::load_pairs() {
  if (options_.evaluates || by_size())
    return Error{
        ErrorCode::unsupported,
        options_.model + ": is an encoder-decoder: give one recipe to `anybit quantize`, and pairs to `anybit perplexity`"};
  if (!learns()) return Ok{};
  if (options_.calibrate.empty())
    return Error{ErrorCode::insufficient_data, options_.model +
                                                   ": is an encoder-decoder, which calibrates by pairs of source and text: give "
                                                   "--calibrate a JSON list of {\"src\": [..], \"ids\": [..]}"};
  ANYBIT_TRY(calibration_pairs_, read_prompts(options_.calibrate));
  for (const Prompt& p : calibration_pairs_) calibration_text_.insert(calibration_text_.end(), p.ids.begin(), p.ids.end());
  return Ok{};
}

Status Workbench::load_texts() {
  if (!model_->decoder.config.encoder.empty()) return load_pairs();
  if (options_.evaluates || by_size()) ANYBIT_TRY_STATUS(model::check_is_decoder(model_->decoder, options_.model));
  if (!options_.evaluates && !learns()) return Ok{};
  std::string calibration_name = options_.calibrate, evaluation_name = options_.evaluate;
  TwoTexts texts;
  if (calibration_name.empty() || (evaluation_name.empty() && options_.evaluates)) {
    ANYBIT_TRY(texts, documentation(source_tree()));
  }
  if (calibration_name.empty()) {
    calibration_name = "the documentation's first half";
  } else {
    ANYBIT_TRY(texts.calibrate, read_text(calibration_name));
  }
  if (!options_.evaluates) {
    texts.evaluate.clear();
  } else if (evaluation_name.empty()) {
    evaluation_name = "the documentation's second half";
  } else {
    ANYBIT_TRY(texts.evaluate, read_text(evaluation_name));
  }
  if (texts.calibrate == texts.evaluate)
    remarks_.push_back("Calibration and evaluation text are the same: the calibrated recipes look better than they are.");
  ANYBIT_TRY(calibration_text_, tokens_of(texts.calibrate, calibration_name, options_.calibration_tokens_wanted(),
                                          options_.calibration_tokens.has_value(), "--calibration-tokens"));
  if (options_.evaluates) {
    ANYBIT_TRY(const std::vector<TokenId> evaluation,
               tokens_of(texts.evaluate, evaluation_name, options_.tokens_wanted(), options_.tokens.has_value(), "--tokens"));
    ANYBIT_TRY(windows_, windows_of(evaluation));
  }
  ANYBIT_TRY(calibration_windows_, windows_of(calibration_text_));
  for (std::string& line : text_warnings(calibration_windows_, calibration_tokens())) remarks_.push_back(std::move(line));
  return Ok{};
}

Result<evaluate::Windows> Workbench::windows_of(const std::vector<TokenId>& tokens) const {
  const model::Vocabulary& v = model_->tokenizer.vocabulary();
  return evaluate::llama_cpp_windows(tokens, window_length(model_->decoder.config, static_cast<Index>(tokens.size())),
                                     v.add_bos ? v.bos : std::nullopt);
}

Status Workbench::calibrate() {
  const evaluate::Windows& windows = calibration_windows_;
  if (options_.sequential && !by_size()) return Ok{};  // each recipe calibrates as it goes
  Needs needs = Needs::none;
  for (const ModelRecipe* r : recipes_)
    if (r->rotation == source_.decoder.rotation) needs = needs | r->needs;
  progress_.begin("calibrating", 2 * static_cast<double>(calibration_text_.size()), work_);
  source_.calibration =
      std::make_unique<model::ModelStats>(source_.decoder, needs, Stats::default_sample_cap, by_size() ? needs : Needs::none);
  for (Index i = 0; i < windows.count(); ++i) {
    ANYBIT_TRY(const Matrix hidden, source_.calibration->accumulate(source_.decoder, windows.window(i), executor_));
    progress_.update(i + 1, windows.count());
  }
  for (std::size_t i = 0; i < calibration_pairs_.size(); ++i) {
    const model::Source source = calibration_pairs_[i].as_source();
    const auto added = source_.calibration->accumulate(source_.decoder, calibration_pairs_[i].ids, executor_, &source);
    if (!added) return in_context(added.error(), options_.calibrate + ": pair " + std::to_string(i));
    progress_.update(static_cast<Index>(i) + 1, static_cast<Index>(calibration_pairs_.size()));
  }
  if (learns())
    for (const std::string& line : model::warnings(model::check_sites(*source_.decoder.blueprint, *source_.calibration)))
      remarks_.push_back(line);
  progress_.end();
  return guide();
}

Status Workbench::rotate(const std::optional<model::RotationOptions>& rotation) {
  if (rotation == source_.decoder.rotation) return Ok{};
  source_ = {};  // statistics are large: the old go before the new come
  source_.decoder = model_->decoder;
  if (rotation) {
    ANYBIT_TRY(source_.decoder, model::rotate(model_->decoder, *rotation, executor_));
  }
  ANYBIT_TRY_STATUS(calibrate());
  progress_.begin("running the float model", static_cast<double>(evaluation_tokens()), work_);
  source_.held_out = std::make_unique<model::ModelStats>(source_.decoder, Needs::samples, layer_error_samples);
  for (Index i = 0; i < windows_.count(); ++i) {
    ANYBIT_TRY(const Matrix hidden, source_.held_out->accumulate(source_.decoder, windows_.window(i), executor_));
    progress_.update(i + 1, windows_.count());
  }
  progress_.end();
  return pack_embedding();
}

Status Workbench::run_reference() {
  const model::Decoder& d = model_->decoder;
  progress_.begin("running the float model", static_cast<double>(evaluation_tokens()), work_);
  source_.held_out = std::make_unique<model::ModelStats>(d, Needs::samples, layer_error_samples);
  ANYBIT_TRY(reference_, evaluate::reference_logits(d, windows_, executor_, source_.held_out.get(),
                                                    [&](Index done, Index total) { progress_.update(done, total); }));
  for (const double nll : reference_.nll())
    if (!std::isfinite(nll))
      return Error{
          ErrorCode::not_finite,
          options_.model + ": the float model's predictions are not finite; the file is damaged or of another architecture"};
  progress_.end();
  return Ok{};
}

Status Workbench::pack_embedding() {
  const model::Decoder& d = source_.decoder;
  model::ModelPlan plan;
  plan.embedding = own_recipes_.embedding, plan.head = own_recipes_.head;
  progress_.begin("quantizing the embedding", 700, work_);
  ANYBIT_TRY(source_.embedding, model::pack_embedding(d, plan, nullptr, {.strict = options_.strict, .executor = executor_}));
  if (plan.embedding) {
    char bits[32];
    std::snprintf(bits, sizeof bits, "%.4g bits", source_.embedding.embedding.bits_per_weight());
    embedding_ = plan.embedding->name + " (" + std::string(plan.embedding->scheme->name) + ", " + bits;
  }
  if (plan.head) head_ = plan.head->name + " (" + std::string(plan.head->scheme->name) + ")";
  RelativeError e;
  std::vector<float> row(static_cast<std::size_t>(d.config.dim));
  for (Index r = 0; r < d.config.vocabulary; ++r) {
    source_.embedding.embedding.dequantize_row(r, row);
    e.add(d.token_embedding().dense()->view().row(r), row);
  }
  embedding_error_ = e.value();
  progress_.end();
  return Ok{};
}

void Workbench::measure_size(const model::Decoder& d, evaluate::ReportRow& row) const {
  Index linear_bytes = 0, linear_weights = 0, bytes = 0, weights = 0;
  const std::set<std::string_view> outside{"token_embd.weight", "output.weight"};
  model::for_each_linear(d, [&](const std::string& name, const nn::Linear& linear) {
    const Index size = linear.extents().size(), taken = linear.payload_bytes();
    bytes += taken;
    weights += size;
    if (outside.contains(name)) return;
    linear_bytes += taken;
    linear_weights += size;
  });
  Index gains = 0;
  for (std::size_t i = 0; i < d.weights.size(); ++i)
    gains += static_cast<Index>(d.weights[i].values.size() + d.weights[i].linear.bias().size());
  bytes += gains * static_cast<Index>(sizeof(float));
  weights += gains;
  row.bytes = bytes;
  row.bits_per_weight_linears = 8.0 * static_cast<double>(linear_bytes) / static_cast<double>(linear_weights);
  row.bits_per_weight_file = 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

Result<evaluate::ReportRow> Workbench::reference_row() {
  evaluate::ReportRow row;
  row.recipe = "reference";
  measure_size(model_->decoder, row);
  const evaluate::Perplexity p = evaluate::perplexity(reference_.nll());
  row.perplexity = p.value;
  row.perplexity_plus_minus = p.plus_minus;
  ANYBIT_TRY(const evaluate::Speed speed, evaluate::measure_speed(model_->decoder, executor_, speed_));
  row.prompt_tokens_per_s = speed.prompt_tokens_per_s;
  row.decode_tokens_per_s = speed.decode_tokens_per_s;
  return row;
}

namespace {

/// The decoder as an engine would run it: packed weights are prepared for `compute`, unless the recipe says otherwise. Those
/// that would go on in float, as codebooks do, stay as they are.
model::Decoder with_activations(model::Decoder d, Compute compute) {
  model::for_each_linear(d, [compute](const std::string&, nn::Linear& l) {
    if (!l.packed() || l.compute() != Compute::f32 || compute == Compute::f32) return;
    nn::Linear other(*l.packed(), compute);
    const kernel::Prepared& made = other.packed()->prepared();
    if (compute == Compute::bf16 || made || made.in_place) l = l.with_weights(std::move(other));
  });
  return d;
}

/// How its packed linears multiply: "int8_per_token", or several names.
std::string activations_of(const model::Decoder& d) {
  std::array<bool, compute_names.size()> used{};
  model::Decoder copy = d;  // shares all weights
  model::for_each_linear(copy, [&used](const std::string&, const nn::Linear& l) {
    if (l.packed()) used[static_cast<std::size_t>(l.compute())] = true;
  });
  std::string names;
  for (std::size_t i = 0; i < used.size(); ++i)
    if (used[i]) names.append(names.empty() ? "" : " + ").append(compute_names[i]);
  return names.empty() ? std::string(name(Compute::f32)) : names;
}

}  // namespace

/// How far `d`, with the KV cache that was asked for, is from the reference, and how fast it is.
Status Workbench::compare(const model::Decoder& d, evaluate::ReportRow& row) {
  const auto update = [&](Index done, Index total) { progress_.update(done, total); };
  ANYBIT_TRY(const auto tokens, evaluate::compare(reference_, d, windows_, executor_, update, options_.kv));
  row.activations = activations_of(d);
  const evaluate::KlStatistics statistics = evaluate::kl_statistics(tokens);
  row.perplexity = statistics.perplexity;
  row.perplexity_ratio = statistics.perplexity_ratio.value;
  row.kl_mean = statistics.kl.value;
  row.kl_plus_minus = statistics.kl.plus_minus;
  row.same_top_percent = statistics.same_top_percent.value;
  if (options_.verbose) row.remarks.push_back("KL statistics\n" + evaluate::to_text(statistics));
  evaluate::SpeedOptions speed_options = speed_;
  speed_options.kv = options_.kv;
  ANYBIT_TRY(const evaluate::Speed speed, evaluate::measure_speed(d, executor_, speed_options));
  row.prompt_tokens_per_s = speed.prompt_tokens_per_s;
  row.decode_tokens_per_s = speed.decode_tokens_per_s;
  return Ok{};
}

Result<evaluate::ReportRow> Workbench::cache_row() {
  evaluate::ReportRow row;
  row.recipe = "reference, kv" + std::to_string(options_.kv.bits) + (options_.kv.hadamard ? " rotated" : "");
  measure_size(model_->decoder, row);
  progress_.begin(row.recipe + ": evaluating", static_cast<double>(evaluation_tokens()) + 1000, work_);
  ANYBIT_TRY_STATUS(compare(model_->decoder, row));
  progress_.end();
  return row;
}

Result<Made> Workbench::make(const ModelRecipe& recipe, const std::string& save) {
  ANYBIT_TRY_STATUS(rotate(recipe.rotation));
  const std::string guided =
      source_.guided && model::takes_guidance(recipe) ? "guided(groups=" + std::to_string(options_.guided) + ") | " : "";
  return make(uniform_plan(recipe, source_.decoder), source_.embedding, guided + recipe.description, save);
}

Result<Made> Workbench::make(const model::ModelPlan& plan, const model::PackedEmbedding& embedding,
                             const std::string& description, const std::string& save) {
  Made made;
  made.plan = plan;
  made.description = description;
  progress_.begin(plan.name + ": quantizing", quantization_share(needs(plan)), work_);
  const Stopwatch watch;
  auto quantized = quantize(plan, embedding, made.remarks);
  made.quantize_s = watch.seconds();
  progress_.end();
  if (!quantized) return quantized.error();
  made.model = *std::move(quantized);

  std::size_t fallbacks = 0;
  std::string example;
  for (const model::QuantizedLayer& layer : made.model.layers)
    if (!layer.report.as_requested()) {
      if (fallbacks++ == 0) example = layer.name + ": " + layer.report.fallbacks.front();
    }
  if (fallbacks > 0)
    made.remarks.push_back(std::to_string(fallbacks) + " of " + std::to_string(made.model.layers.size()) +
                           " layers not exactly as asked, for example " + example);
  if (options_.verbose)
    for (const model::QuantizedLayer& layer : made.model.layers)
      for (const std::string& remark : layer.report.remarks) made.remarks.push_back(layer.name + ": " + remark);
  if (!save.empty()) {
    const Uninterrupted guard;
    const model::Model saved{model_->name, made.model.decoder, model_->tokenizer};
    ANYBIT_TRY_STATUS(model::save_model(save, saved, {.recipe = description, .source = utf8(options_.model)}));
  }
  return made;
}

evaluate::ReportRow Workbench::size_of(const Made& made) const {
  evaluate::ReportRow row;
  measure_size(made.model.decoder, row);
  return row;
}

Result<evaluate::ReportRow> Workbench::row(const ModelRecipe& recipe, const std::string& save) {
  ANYBIT_TRY(const Made made, make(recipe, save));
  return evaluated(made);
}

Result<evaluate::ReportRow> Workbench::evaluated(const Made& made) {
  evaluate::ReportRow row = size_of(made);
  row.recipe = made.plan.name;
  row.quantize_s = made.quantize_s;
  row.remarks = made.remarks;
  progress_.begin(made.plan.name + ": evaluating", static_cast<double>(evaluation_tokens()) + 1000, work_);
  const std::vector<double> errors = evaluate::layer_errors(source_.decoder, made.model, *source_.held_out, executor_);
  for (std::size_t i = 0; i < errors.size(); ++i) {
    row.layer_error_mean += errors[i] / static_cast<double>(errors.size());
    if (i == 0 || !(errors[i] <= row.layer_error_worst)) {
      row.layer_error_worst = errors[i];
      row.layer_error_worst_name = made.model.layers[i].name;
    }
  }
  if (row.layer_error_worst_name.ends_with(".weight"))
    row.layer_error_worst_name.resize(row.layer_error_worst_name.size() - std::string_view(".weight").size());
  const model::Decoder as_run = with_activations(made.model.decoder, options_.activations);
  ANYBIT_TRY_STATUS(compare(as_run, row));
  if (source_.decoder.config.form.experts.count > 0) {
    constexpr Index most = 4;  // windows: each runs both models
    evaluate::Windows some = windows_;
    some.tokens.resize(static_cast<std::size_t>(std::min(most, windows_.count()) * windows_.length));
    ANYBIT_TRY(const auto blocks, evaluate::routing_agreement(source_.decoder, as_run, some, executor_));
    const evaluate::RoutingAgreement all = evaluate::total(blocks);
    char text[160];
    std::snprintf(text, sizeof text,
                  "routing: the experts of %.1f %% of %lld choices are those of the float model, %.1f %% of single experts",
                  100 * all.share(), static_cast<long long>(all.choices), 100 * all.overlap());
    row.remarks.push_back(text);
  }
  progress_.end();
  return row;
}

std::vector<std::string> Workbench::notes() const {
  std::vector<std::string> notes = remarks_;
  const Index scored = windows_.scored();
  char error[48];
  std::snprintf(error, sizeof error, "; weight error %.2e).", embedding_error_);
  const std::string with_embedding = !head_.empty()                ? ""
                                     : !model_->decoder.has_head() ? " and the head tied to it"
                                     : own_recipes_.embedding      ? ""
                                                                   : " and output head";
  const std::string embedding = "Embedding" + with_embedding + " of every quantized row: " + embedding_ + error;
  if (source_.guided)
    notes.push_back("Hessians: weighted by the gradient of the end loss, in " + std::to_string(options_.guided) +
                    " group(s) of rows per matrix, where a recipe reads one.");
  notes.push_back("bits/w: linear layers; file: all tensors, embedding and norms included." +
                  (by_size() ? std::string() : " " + embedding) + (head_.empty() ? "" : " Output head: " + head_ + "."));
  notes.push_back("layer err: ||(W - Q) X|| / ||W X|| on inputs from the evaluation text, mean over layers, and the worst.");
  notes.push_back(
      "activations: how they enter products with packed weights; quality and speed are of rows as they run so. "
      "--activations f32 keeps floats where the recipe does not round.");
  notes.push_back("perplexity, KL (nats), same top: " + std::to_string(scored) + " predictions, the second halves of " +
                  std::to_string(windows_.count()) + " windows of " + std::to_string(windows_.length) +
                  " tokens (llama.cpp's protocol).");
  notes.push_back("t/s: " + std::to_string(speed_.prompt_tokens) + "-token random prompt; " +
                  std::to_string(speed_.decode_tokens) + " random tokens one by one; median of " +
                  std::to_string(speed_.repetitions) + " (llama-bench uses 512, 128, mean of 5).");
  if (const auto& kv = options_.kv; kv.quantized()) {
    const auto& c = model_->decoder.config;
    const nn::KvCache cache(cache_shape(c), windows_.length, kv), floats(cache_shape(c), windows_.length);
    char text[320];
    std::snprintf(text, sizeof text,
                  "KV cache of every row but the reference: %d bits, %.3g a value with scales and offsets, the last %lld to %lld "
                  "positions as floats%s; %.2f MB for %lld positions (floats: %.2f MB).",
                  kv.bits, cache.bits_per_value(), static_cast<long long>(kv.residual + 1),
                  static_cast<long long>(kv.residual + nn::kv_block), kv.hadamard ? ", rotated" : "",
                  static_cast<double>(cache.bytes()) * 1e-6, static_cast<long long>(windows_.length),
                  static_cast<double>(floats.bytes()) * 1e-6);
    notes.emplace_back(text);
  }
  return notes;
}

}  // namespace tool
