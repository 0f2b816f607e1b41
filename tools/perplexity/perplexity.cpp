#include "perplexity.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include <nlohmann/json.hpp>

#include <anybit/evaluate/losses.hpp>
#include <anybit/evaluate/paired.hpp>

#include "by_turn.hpp"
#include "shared/conversations.hpp"
#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"
#include "shared/prompts.hpp"
#include "shared/text.hpp"

namespace tool {

using namespace anybit;

namespace {

struct PerplexityOptions {
  std::string model, tokenizer, text, protocol = "llama.cpp", json, chat_template;
  Index tokens = 0, window = 0, threads = 0;
  nn::KvCacheConfig kv{};
  std::vector<int> by_turn_bits{16, 8, 4, 3};
  bool int8_activations = false, parse_special = false, by_turn = false;
};

std::optional<int> parse_options(int argc, const char* const* argv, PerplexityOptions& o) {
  CLI::App app("Measures how well a model, quantized or not, predicts a text.", "anybit perplexity");
  add_model(app, o.model);
  app.add_option("TEXT", o.text,
                 "A UTF-8 text, such as the test set of WikiText-2; for an encoder-decoder JSON, a list of pairs of token ids:\n"
                 "{\"src\": [..] or \"features\": [[..]], \"ids\": [..]}, ids with the start token first")
      ->required();
  app.add_option("--tokens", o.tokens, "Only so many of the text")->type_name("N");
  app.add_option("--window", o.window, "Tokens of a window, at most the model's context; default 512 (llama.cpp), 2048 (gptq)")
      ->type_name("N");
  CLI::Option* const protocol =
      app.add_option("--protocol", o.protocol,
                     "llama.cpp: the second half of each window counts; gptq: every prediction. Figures of one\n"
                     "cannot be compared with those of the other")
          ->check(CLI::IsMember({"llama.cpp", "gptq"}))
          ->capture_default_str();
  CLI::Option* const special = add_parse_special(app, o.parse_special, "the text");
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  add_int8_activations(app, o.int8_activations);
  CLI::Option* const kv_bits =
      app.add_option("--kv-bits", o.kv.bits, "Bits of keys and values in the cache: 16, 8, 4, 3 or 2; default: floats")
          ->type_name("N");
  app.add_flag("--kv-hadamard", o.kv.hadamard, "Rotate keys and values, head by head, before they are quantized");
  CLI::Option* const by_turn =
      app.add_flag(
             "--by-turn", o.by_turn,
             "TEXT is conversations in JSON lines: loss, and KL from the same model with a KV cache of 16 bits, by number of\n"
             "the turn, for each width in --kv. Every prediction counts; --window is the most tokens of a conversation,\n"
             "default the model's context")
          ->excludes(protocol)
          ->excludes(special)
          ->excludes(kv_bits);
  app.add_option("--kv", o.by_turn_bits, "Bits of the cache, separated by commas: 32 (floats), 16, 8, 4, 3 or 2")
      ->type_name("N,..")
      ->delimiter(',')
      ->needs(by_turn)
      ->capture_default_str();
  add_chat_template(app, o.chat_template)->needs(by_turn);
  add_json(app, o.json, "the result", "the text");
  if (const auto end = parse(app, argc, argv, "anybit perplexity model.safetensors wikitext2-test.txt --tokens 8192")) return end;
  if (o.tokens < 0) return wrong_use("perplexity", "--tokens is " + std::to_string(o.tokens) + "; it must be at least 1");
  if (o.window < 0) return wrong_use("perplexity", "--window is " + std::to_string(o.window) + "; it must be at least 1");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"the text", o.text});
  return check_files("perplexity", inputs, {{"--json", o.json}});
}

Result<evaluate::Windows> windows_of(const model::Model& m, const PerplexityOptions& o) {
  ANYBIT_TRY(const std::string text, read_text(o.text));
  auto encoded = m.tokenizer.encode(text, o.parse_special ? model::Specials::parsed : model::Specials::as_text);
  if (!encoded) return in_context(encoded.error(), o.text);
  std::vector<model::TokenId> ids = *std::move(encoded);
  if (o.tokens > static_cast<Index>(ids.size()))
    return Error{ErrorCode::insufficient_data, o.text + ": has " + std::to_string(ids.size()) + " tokens, fewer than --tokens " +
                                                   std::to_string(o.tokens) + "; give a longer text or ask for fewer"};
  if (o.tokens > 0) ids.resize(static_cast<std::size_t>(o.tokens));
  const bool llama_cpp = o.protocol == "llama.cpp";
  const auto count = static_cast<Index>(ids.size());
  const Index context = m.decoder.config.context;
  const Index length =
      o.window > 0 ? o.window : std::min({Index{llama_cpp ? 512 : 2048}, context, llama_cpp ? count / 2 : count});
  if (length > context)
    return Error{ErrorCode::invalid_argument,
                 "--window is " + std::to_string(length) + ", more than the model's context of " + std::to_string(context)};
  const model::Vocabulary& v = m.tokenizer.vocabulary();
  return llama_cpp ? evaluate::llama_cpp_windows(ids, length, v.add_bos ? v.bos : std::nullopt)
                   : evaluate::gptq_windows(ids, length);
}

/// The losses of all scored predictions; logits of 64 positions at a time.
Result<std::vector<double>> losses_of(const model::Decoder& d, const evaluate::Windows& windows, const PerplexityOptions& o,
                                      Progress& progress) {
  ThreadPool pool(thread_count(o.threads));
  progress.begin("predicting", 1, 1);
  auto nll = evaluate::losses(d, windows, pool, [&](Index done, Index total) { progress.update(done, total); }, o.kv);
  progress.end();
  progress.clear();
  return nll;
}

/// Of an encoder-decoder: every token but the first of each text, from its source and the tokens before.
int paired_perplexity(const model::Model& m, const PerplexityOptions& o) {
  const auto prompts = read_prompts(o.text);
  if (!prompts) return fail("perplexity", bad_input, prompts.error());
  std::vector<evaluate::PairedText> pairs;
  for (const Prompt& p : *prompts) pairs.push_back({p.as_source(), p.ids});
  ThreadPool pool(thread_count(o.threads));
  const Stopwatch watch;
  const auto nll = evaluate::losses(m.decoder, pairs, pool);
  if (!nll) return fail("perplexity", bad_input, in_context(nll.error(), o.text));
  const evaluate::Perplexity p = evaluate::perplexity(*nll);
  if (o.json != "-")
    std::printf("%s: perplexity %.4f +/- %.4f (%lld predictions, %zu pairs)\n", printable(m.name).c_str(), p.value, p.plus_minus,
                static_cast<long long>(p.scored), pairs.size());
  using nlohmann::ordered_json;
  const auto number = [](double v) { return std::isfinite(v) ? ordered_json(v) : ordered_json(nullptr); };
  return write_json("perplexity", o.json,
                    ordered_json{{"model", m.name},
                                 {"file", o.model},
                                 {"pairs", pairs.size()},
                                 {"predictions", p.scored},
                                 {"perplexity", number(p.value)},
                                 {"plus_minus", number(p.plus_minus)},
                                 {"mean_nll", number(p.mean_nll)},
                                 {"seconds", watch.seconds()}});
}

nlohmann::ordered_json to_json(const model::Model& m, const PerplexityOptions& o, const evaluate::Windows& w,
                               const evaluate::Perplexity& p, double seconds) {
  using nlohmann::ordered_json;
  const auto number = [](double v) { return std::isfinite(v) ? ordered_json(v) : ordered_json(nullptr); };
  return ordered_json{{"model", m.name},
                      {"file", o.model},
                      {"text", o.text},
                      {"protocol", o.protocol},
                      {"window", w.length},
                      {"windows", w.count()},
                      {"predictions", p.scored},
                      {"perplexity", number(p.value)},
                      {"plus_minus", number(p.plus_minus)},
                      {"mean_nll", number(p.mean_nll)},
                      {"seconds", seconds}};
}

int perplexity(int argc, const char* const* argv) {
  PerplexityOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  auto m = open_model(o.model, o.tokenizer, Runs::encoder_decoders_too);
  if (!m) return fail("perplexity", bad_input, m.error());
  if (o.int8_activations) round_activations(m->decoder);
  if (const auto possible = check(o.kv, cache_shape(m->decoder.config)); !possible)
    return wrong_use("perplexity", "--kv-bits: " + possible.error().message);
  for (const int bits : o.by_turn_bits)
    if (const auto possible = check({.bits = bits}, cache_shape(m->decoder.config)); !possible)
      return wrong_use("perplexity", "--kv: " + possible.error().message);
  if (!m->decoder.config.encoder.empty())
    return o.by_turn ? wrong_use("perplexity", "--by-turn is for decoders; " + o.model + " has an encoder")
                     : paired_perplexity(*m, o);
  if (o.by_turn)
    return perplexity_by_turn(*m, {.model = o.model,
                                   .text = o.text,
                                   .chat_template = o.chat_template,
                                   .json = o.json,
                                   .bits = o.by_turn_bits,
                                   .hadamard = o.kv.hadamard,
                                   .tokens = o.tokens,
                                   .window = o.window,
                                   .threads = o.threads});
  const auto windows = windows_of(*m, o);
  if (!windows) return fail("perplexity", bad_input, windows.error());
  Progress progress;
  const Stopwatch watch;
  const auto nll = losses_of(m->decoder, *windows, o, progress);
  if (!nll) return fail("perplexity", bad_input, nll.error());
  const evaluate::Perplexity p = evaluate::perplexity(*nll);
  if (o.json != "-")
    std::printf("%s: perplexity %.4f +/- %.4f (%lld predictions, %lld windows of %lld tokens, protocol of %s)\n",
                printable(m->name).c_str(), p.value, p.plus_minus, static_cast<long long>(p.scored),
                static_cast<long long>(windows->count()), static_cast<long long>(windows->length), o.protocol.c_str());
  return write_json("perplexity", o.json, to_json(*m, o, *windows, p, watch.seconds()));
}

}  // namespace

int run_perplexity(int argc, const char* const* argv) {
  return run_command([&] { return perplexity(argc, argv); });
}

}  // namespace tool
