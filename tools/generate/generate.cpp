#include "generate.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include "sampler.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "shared/prompts.hpp"
#include "shared/text.hpp"
#include "steer/shared.hpp"

namespace tool {

using namespace anybit;

namespace {

struct GenerateOptions {
  std::string model, tokenizer, prompt, prompt_file, source, json;
  Index tokens = 64, threads = 0;
  SamplerOptions sampler;
  SteerOptions steer;
  nn::KvCacheConfig kv{};
  bool int8_activations = false, ignore_end = false;
};

struct Generated {
  std::vector<model::TokenId> tokens;
  std::string text;
  Index prompt_tokens = 0;
  bool ended = false;
  double prompt_s = 0, decode_s = 0;
};

std::optional<int> parse_options(int argc, const char* const* argv, GenerateOptions& o) {
  CLI::App app("Continues a text with a model, quantized or not, and prints it as it comes.", "anybit generate");
  add_model(app, o.model);
  app.add_option("--prompt", o.prompt, "The text; names of control tokens in it are these tokens")->type_name("TEXT");
  app.add_option("--prompt-file", o.prompt_file, "A file with the text")->type_name("FILE");
  app.add_option(
         "--source", o.source,
         "Of an encoder-decoder: JSON as `anybit logits --ids` reads it, one {\"src\": [..]} or {\"features\": [[..]]} with the\n"
         "decoder's first tokens as \"ids\". T5 and BART take a text by --prompt too")
      ->type_name("FILE");
  app.add_option("--tokens", o.tokens, "Most tokens to make")->type_name("N")->capture_default_str();
  app.add_option("--temperature", o.sampler.temperature, "0 takes the most likely token always")
      ->type_name("T")
      ->capture_default_str();
  app.add_option("--top-k", o.sampler.top_k, "Choose among the K most likely; 0: among all")
      ->type_name("K")
      ->capture_default_str();
  app.add_option("--top-p", o.sampler.top_p, "Choose among the most likely that have probability P together")
      ->type_name("P")
      ->capture_default_str();
  app.add_option("--seed", o.sampler.seed, "The same seed gives the same text")->type_name("N")->capture_default_str();
  app.add_flag("--ignore-end", o.ignore_end, "Go on after the token that ends a text");
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  add_int8_activations(app, o.int8_activations);
  app.add_option("--kv-bits", o.kv.bits, "Bits of keys and values in the cache: 16, 8, 4, 3 or 2; default: floats")
      ->type_name("N");
  app.add_flag("--kv-hadamard", o.kv.hadamard, "Rotate keys and values, head by head, before they are quantized");
  add_steer_options(app, o.steer);
  add_json(app, o.json, "the text and its tokens", "the text");
  if (const auto end =
          parse(app, argc, argv,
                "anybit generate model.safetensors --prompt 'Once upon a time' --temperature 0.8 --top-p 0.95 --seed 1"))
    return end;
  if (int{!o.prompt.empty()} + int{!o.prompt_file.empty()} + int{!o.source.empty()} != 1)
    return wrong_use("generate", "give one of --prompt, --prompt-file and --source");
  if (o.tokens < 1) return wrong_use("generate", "--tokens is " + std::to_string(o.tokens) + "; it must be at least 1");
  if (const auto possible = check(o.sampler); !possible) return wrong_use("generate", possible.error().message);
  if (const std::string error = error_in(o.steer); !error.empty()) return wrong_use("generate", error);
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"--prompt-file", o.prompt_file}), inputs.push_back({"--steer", o.steer.file});
  inputs.push_back({"--source", o.source});
  return check_files("generate", inputs, {{"--json", o.json}});
}

/// The whole prompt through the model, some tokens at a time; the last one's logits.
Result<Matrix> read_prompt(const model::Model& m, std::span<const model::TokenId> ids, nn::KvCache& cache, Steering& steering,
                           model::Encoded* encoded, ExecutorRef executor, Progress& progress) {
  constexpr std::size_t some = 256;
  progress.begin("reading the prompt", 1, 1);
  Matrix logits;
  for (std::size_t t = 0; t < ids.size(); t += some) {
    const auto part = ids.subspan(t, std::min(some, ids.size() - t));
    ANYBIT_TRY(const std::vector<model::Tap> taps, steering.next(part));
    ANYBIT_TRY(logits, model::forward(m.decoder, part, cache,
                                      {.executor = executor, .taps = taps, .last_only = true, .encoded = encoded}));
    progress.update(static_cast<Index>(t + part.size()), static_cast<Index>(ids.size()));
  }
  progress.end();
  progress.clear();
  return logits;
}

/// The tokens that the decoder reads first, and the source of an encoder-decoder in the form that its encoder reads.
Result<Prompt> prompt_of(const model::Model& m, const std::string& text, const GenerateOptions& o) {
  const model::Vocabulary& v = m.tokenizer.vocabulary();
  const bool paired = !m.decoder.config.encoder.empty();
  if (!o.source.empty()) {
    if (!paired)
      return Error{ErrorCode::invalid_argument, "--source is for models with an encoder in front of a decoder: give --prompt"};
    ANYBIT_TRY(std::vector<Prompt> prompts, read_prompts(o.source));
    if (prompts.size() != 1)
      return Error{ErrorCode::invalid_argument,
                   o.source + ": holds " + std::to_string(prompts.size()) + " prompts, one is generated from: give one"};
    return std::move(prompts.front());
  }
  Prompt out;
  ANYBIT_TRY(std::vector<model::TokenId> ids, m.tokenizer.encode(text, model::Specials::parsed));
  if (v.add_bos && v.bos && (ids.empty() || ids.front() != *v.bos)) ids.insert(ids.begin(), *v.bos);
  if (!paired) {
    out.ids = std::move(ids);
    return out;
  }
  if (m.decoder.config.encoder.front().form.feature_bins > 0)
    return Error{ErrorCode::unsupported, o.model +
                                             ": its encoder reads features of sound, not text: give them by --source, as "
                                             "{\"features\": [[..]] (bins x frames), \"ids\": [..]}"};
  if (v.eos && (ids.empty() || ids.back() != *v.eos)) ids.push_back(*v.eos);
  out.source = std::move(ids);
  // T5 starts its text with the padding token, which is 0 in every vocabulary of it; BART with the end of a text.
  const bool t5 = m.decoder.blueprint->architecture->name == "t5";
  if (!t5 && !v.eos)
    return Error{ErrorCode::insufficient_data,
                 o.model + ": its tokenizer has no end of text, with which the decoder starts: give the tokens by --source"};
  out.ids = {t5 ? model::TokenId{0} : *v.eos};
  return out;
}

Result<Generated> generate(const model::Model& m, const std::string& prompt, const GenerateOptions& o) {
  const model::Vocabulary& v = m.tokenizer.vocabulary();
  ANYBIT_TRY_STATUS(check(o.kv, cache_shape(m.decoder.config)));
  ANYBIT_TRY(const Prompt start, prompt_of(m, prompt, o));
  const std::vector<model::TokenId>& ids = start.ids;
  const Index room = m.decoder.config.context - static_cast<Index>(ids.size());
  if (room < 1)
    return Error{ErrorCode::invalid_argument, "the prompt has " + std::to_string(ids.size()) +
                                                  " tokens, the model's context holds " +
                                                  std::to_string(m.decoder.config.context) + ": shorten the prompt"};
  const Index wanted = std::min(o.tokens, room);
  if (wanted < o.tokens)
    std::fprintf(stderr, "anybit generate: the model's context has room for %lld of %lld tokens\n",
                 static_cast<long long>(wanted), static_cast<long long>(o.tokens));

  ThreadPool pool(thread_count(o.threads));
  std::optional<model::Encoded> source;
  if (!m.decoder.config.encoder.empty()) {
    ANYBIT_TRY(source, model::encode(m.decoder, start.as_source(), {.executor = pool}));
  }
  model::Encoded* const encoded = source ? &*source : nullptr;
  ANYBIT_TRY(Steering steering, Steering::start(m, o.steer, ids, static_cast<Index>(ids.size()) + wanted, pool));
  Progress progress;
  nn::KvCache cache(cache_shape(m.decoder.config), static_cast<Index>(ids.size()) + wanted, o.kv);
  Generated g;
  g.prompt_tokens = static_cast<Index>(ids.size());
  const Stopwatch prompt_watch;
  ANYBIT_TRY(Matrix logits, read_prompt(m, ids, cache, steering, encoded, pool, progress));
  g.prompt_s = prompt_watch.seconds();

  const bool streams = o.json != "-", terminal = is_terminal(stdout);
  Utf8Stream stream;
  const auto show = [&](const std::string& text) {
    g.text += text;
    if (!streams) return;
    std::fputs((terminal ? printable(text) : text).c_str(), stdout);
    std::fflush(stdout);
  };
  if (streams && !encoded) std::fputs(printable(prompt).c_str(), stdout), std::fflush(stdout);
  Sampler sampler(o.sampler);
  const Stopwatch watch;
  for (;;) {
    for (const float l : logits.view().row(0))
      if (std::isnan(l))
        return Error{ErrorCode::not_finite, o.model + ": the model's predictions are no numbers; the file is damaged"};
    const auto id = static_cast<model::TokenId>(sampler.next(logits.view().row(0)));
    if (v.eos && id == *v.eos && !o.ignore_end) {
      g.ended = true;
      break;
    }
    g.tokens.push_back(id);
    if (v.kinds[static_cast<std::size_t>(id)] != model::TokenKind::control) show(stream.feed(m.tokenizer.token(id)));
    if (static_cast<Index>(g.tokens.size()) == wanted) break;
    ANYBIT_TRY(const std::vector<model::Tap> taps, steering.next(std::span(&id, 1)));
    ANYBIT_TRY(logits, model::forward(m.decoder, std::span(&id, 1), cache,
                                      {.executor = pool, .taps = taps, .last_only = true, .encoded = encoded}));
  }
  g.decode_s = watch.seconds();
  show(stream.finish());
  if (streams) std::fputs("\n", stdout);
  return g;
}

double rate(std::size_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

nlohmann::ordered_json to_json(const model::Model& m, const std::string& prompt, const GenerateOptions& o, const Generated& g) {
  using nlohmann::ordered_json;
  return ordered_json{{"model", m.name},
                      {"prompt", prompt},
                      {"text", g.text},
                      {"tokens", g.tokens},
                      {"prompt_tokens", g.prompt_tokens},
                      {"stopped", g.ended ? "end" : "length"},
                      {"temperature", o.sampler.temperature},
                      {"top_k", o.sampler.top_k},
                      {"top_p", o.sampler.top_p},
                      {"seed", o.sampler.seed},
                      {"prompt_tokens_per_s", rate(static_cast<std::size_t>(g.prompt_tokens), g.prompt_s)},
                      {"decode_tokens_per_s", rate(g.tokens.size(), g.decode_s)}};
}

int generate(int argc, const char* const* argv) {
  GenerateOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  if (!o.prompt_file.empty()) {
    auto text = read_text(o.prompt_file);
    if (!text) return fail("generate", bad_input, text.error());
    o.prompt = *std::move(text);
  }
  auto m = open_model(o.model, o.tokenizer, Runs::encoder_decoders_too);
  if (!m) return fail("generate", bad_input, m.error());
  if (!m->decoder.config.encoder.empty() && !o.steer.file.empty())
    return wrong_use("generate", "--steer is for decoders: " + o.model + " has an encoder");
  if (o.int8_activations) round_activations(m->decoder);
  const auto g = generate(*m, o.prompt, o);
  if (!g) return fail("generate", bad_input, g.error());
  if (is_terminal(stderr))
    std::fprintf(stderr, "\n%lld prompt tokens (%.1f per s), %zu tokens (%.1f per s)\n", static_cast<long long>(g->prompt_tokens),
                 rate(static_cast<std::size_t>(g->prompt_tokens), g->prompt_s), g->tokens.size(),
                 rate(g->tokens.size(), g->decode_s));
  return write_json("generate", o.json, to_json(*m, o.prompt, o, *g));
}

}  // namespace

int run_generate(int argc, const char* const* argv) {
  return run_command([&] { return generate(argc, argv); });
}

}  // namespace tool
