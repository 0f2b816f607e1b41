#include "by_turn.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include <nlohmann/json.hpp>

#include <anybit/evaluate/by_turn.hpp>

#include "shared/command.hpp"
#include "shared/conversations.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/printable.hpp"
#include "shared/progress.hpp"

namespace tool {

using namespace anybit;

namespace {

constexpr int reference_bits = 16;

struct EncodedConversations {
  const model::ChatTemplate* form = nullptr;
  std::vector<model::ChatTokens> all;
  Index longest = 0;  ///< tokens that a conversation may have
  Index cut = 0;      ///< conversations that have more
};

struct ByTurn {
  std::vector<Index> conversations;                                     ///< that reach each turn
  std::vector<std::vector<std::vector<evaluate::TokenComparison>>> of;  ///< by width, by turn
};

void keep_first(model::ChatTokens& c, Index count) {
  const auto n = static_cast<std::size_t>(count);
  if (c.ids.size() > n) c.ids.resize(n), c.learned.resize(n), c.turns.resize(n);
}

Result<EncodedConversations> encode_conversations(const model::Model& m, const ByTurnOptions& o) {
  ANYBIT_TRY(const std::vector<Conversation> conversations, read_conversations(o.text));
  EncodedConversations out;
  ANYBIT_TRY(out.form, find_template({o.chat_template, o.model}, m.tokenizer));
  const Index context = m.decoder.config.context;
  if (o.window > context)
    return Error{ErrorCode::invalid_argument,
                 "--window is " + std::to_string(o.window) + ", more than the model's context of " + std::to_string(context)};
  out.longest = o.window > 0 ? o.window : context;
  Index left = o.tokens;
  for (const Conversation& c : conversations) {
    auto encoded = model::encode_chat(m.tokenizer, c.turns, *out.form);
    if (!encoded) return in_context(encoded.error(), o.text + ": line " + std::to_string(c.line));
    if (static_cast<Index>(encoded->ids.size()) > out.longest) ++out.cut, keep_first(*encoded, out.longest);
    if (o.tokens > 0) keep_first(*encoded, left);
    if (encoded->ids.size() < 2) continue;  // nothing is predicted
    left -= static_cast<Index>(encoded->ids.size());
    out.all.push_back(*std::move(encoded));
    if (o.tokens > 0 && left <= 0) break;
  }
  if (out.all.empty())
    return Error{ErrorCode::insufficient_data, o.text + ": no conversation has the two tokens that a prediction needs"};
  return out;
}

Result<ByTurn> compare_by_turn(const model::Decoder& d, const EncodedConversations& c, const ByTurnOptions& o) {
  std::vector<nn::KvCacheConfig> caches;
  for (const int bits : o.bits) caches.push_back({.bits = bits, .hadamard = o.hadamard && bits < reference_bits});
  ByTurn out;
  out.of.resize(caches.size());
  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  progress.begin("predicting", 1, 1);
  for (std::size_t i = 0; i < c.all.size(); ++i) {
    ANYBIT_TRY(const auto compared, evaluate::compare_caches(d, c.all[i].ids, {.bits = reference_bits}, caches, pool));
    for (std::size_t w = 0; w < caches.size(); ++w) evaluate::add_by_turn(compared[w], c.all[i].turns, out.of[w]);
    std::vector<Index> reached(c.all[i].turns.begin() + 1, c.all[i].turns.end());
    reached.erase(std::unique(reached.begin(), reached.end()), reached.end());
    for (const Index turn : reached) {
      const auto t = static_cast<std::size_t>(turn);
      if (t >= out.conversations.size()) out.conversations.resize(t + 1);
      ++out.conversations[t];
    }
    progress.update(static_cast<Index>(i + 1), static_cast<Index>(c.all.size()));
  }
  progress.end();
  progress.clear();
  return out;
}

double mean_loss(const evaluate::KlStatistics& s) { return std::log(s.perplexity); }

/// All turns of one width.
evaluate::KlStatistics whole(const std::vector<std::vector<evaluate::TokenComparison>>& by_turn) {
  std::vector<evaluate::TokenComparison> all;
  for (const auto& turn : by_turn) all.insert(all.end(), turn.begin(), turn.end());
  return evaluate::kl_statistics(all);
}

void print_row(const std::string& name, Index conversations, const std::vector<evaluate::KlStatistics>& widths) {
  std::printf("%4s  %13lld  %8lld", name.c_str(), static_cast<long long>(conversations),
              static_cast<long long>(widths.front().count));
  for (const evaluate::KlStatistics& s : widths) std::printf("  %8.4f %9.3g", mean_loss(s), s.kl.value);
  std::printf("\n");
}

void print_by_turn(const model::Model& m, const EncodedConversations& c, const ByTurn& by_turn, const ByTurnOptions& o) {
  std::printf(
      "%s, template %s: loss, and KL from the same model with a cache of %d bits, in nats per token, by bits of the cache\n",
      printable(m.name).c_str(), std::string(c.form->name).c_str(), reference_bits);
  std::printf("%4s  %13s  %8s", "turn", "conversations", "tokens");
  for (const int bits : o.bits) std::printf("  %8s %9s", ("loss " + std::to_string(bits)).c_str(), "KL");
  std::printf("\n");
  for (std::size_t t = 0; t < by_turn.conversations.size(); ++t) {
    if (by_turn.conversations[t] == 0) continue;
    std::vector<evaluate::KlStatistics> widths;
    for (const auto& of_width : by_turn.of) widths.push_back(evaluate::kl_statistics(of_width[t]));
    print_row(std::to_string(t + 1), by_turn.conversations[t], widths);
  }
  std::vector<evaluate::KlStatistics> all;
  for (const auto& of_width : by_turn.of) all.push_back(whole(of_width));
  print_row("all", static_cast<Index>(c.all.size()), all);
}

nlohmann::ordered_json to_json(const model::Model& m, const EncodedConversations& c, const ByTurn& by_turn,
                               const ByTurnOptions& o, double seconds) {
  using nlohmann::ordered_json;
  const auto number = [](double v) { return std::isfinite(v) ? ordered_json(v) : ordered_json(nullptr); };
  const auto add_figures = [&](ordered_json& to, const evaluate::KlStatistics& s) {
    to["predictions"] = s.count;
    to["mean_nll"] = number(mean_loss(s));
    to["kl_mean"] = number(s.kl.value);
    to["kl_plus_minus"] = number(s.kl.plus_minus);
    to["same_top_percent"] = number(s.same_top_percent.value);
  };
  ordered_json out{{"model", m.name},
                   {"file", o.model},
                   {"text", o.text},
                   {"template", std::string(c.form->name)},
                   {"conversations", c.all.size()},
                   {"longest", c.longest},
                   {"cut", c.cut},
                   {"reference_bits", reference_bits},
                   {"hadamard", o.hadamard},
                   {"caches", ordered_json::array()}};
  for (std::size_t w = 0; w < o.bits.size(); ++w) {
    ordered_json cache{{"bits", o.bits[w]}};
    add_figures(cache, whole(by_turn.of[w]));
    cache["turns"] = ordered_json::array();
    for (std::size_t t = 0; t < by_turn.conversations.size(); ++t) {
      if (by_turn.conversations[t] == 0) continue;
      ordered_json turn{{"turn", t + 1}, {"conversations", by_turn.conversations[t]}};
      add_figures(turn, evaluate::kl_statistics(by_turn.of[w][t]));
      cache["turns"].push_back(std::move(turn));
    }
    out["caches"].push_back(std::move(cache));
  }
  out["seconds"] = seconds;
  return out;
}

}  // namespace

int perplexity_by_turn(const model::Model& m, const ByTurnOptions& o) {
  const Stopwatch watch;
  const auto conversations = encode_conversations(m, o);
  if (!conversations) return fail("perplexity", bad_input, conversations.error());
  if (conversations->cut > 0)
    std::fprintf(stderr, "anybit perplexity: %lld of %zu conversations are longer than %lld tokens: only these count\n",
                 static_cast<long long>(conversations->cut), conversations->all.size(),
                 static_cast<long long>(conversations->longest));
  const auto by_turn = compare_by_turn(m.decoder, *conversations, o);
  if (!by_turn) return fail("perplexity", bad_input, by_turn.error());
  if (o.json != "-") print_by_turn(m, *conversations, *by_turn, o);
  return write_json("perplexity", o.json, to_json(m, *conversations, *by_turn, o, watch.seconds()));
}

}  // namespace tool
