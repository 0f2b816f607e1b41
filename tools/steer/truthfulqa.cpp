// `anybit steer truthfulqa`: inference-time intervention measured as in its paper (arXiv:2306.03341): multiple choice with
// two-fold cross-validation by question, and what the shift costs in cross entropy and KL.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>
#include <random>

#include <nlohmann/json.hpp>

#include <anybit/evaluate/model.hpp>
#include <anybit/steer/bootstrap.hpp>
#include <anybit/steer/intervention.hpp>
#include <anybit/steer/multiple_choice.hpp>

#include "shared/file_roles.hpp"
#include "shared/open_model.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/progress.hpp"
#include "shared/source_tree.hpp"
#include "shared/text.hpp"
#include "steer/shared.hpp"
#include "steer/statements.hpp"
#include "steer/steer.hpp"

namespace tool {

using namespace anybit;
using steer::MeanInterval;

namespace {

struct TruthOptions {
  std::string model, data, tokenizer, pattern = "Q: {}\\nA:", text, json;
  std::vector<double> alphas{15};
  std::vector<std::string> directions{"mass_mean", "random"};
  double validation = 0.2, c = 1;
  Index heads = 48, most = 0, ce_tokens = 2048, threads = 0;
  std::uint64_t seed = 42;
};

std::optional<int> parse_options(int argc, const char* const* argv, TruthOptions& o) {
  CLI::App app("Answers the questions of TruthfulQA by probabilities, without and with shifted heads (ITI, arXiv:2306.03341).",
               "anybit steer truthfulqa");
  add_model(app, o.model);
  app.add_option("DATA", o.data, "TruthfulQA.csv: Question, Best Answer, Correct Answers, Incorrect Answers")->required();
  app.add_option("--template", o.pattern, "Text around each question, which stands at {}; \\n is a new line")->type_name("TEXT");
  app.add_option("--heads", o.heads, "Heads that are shifted")->type_name("K")->capture_default_str();
  app.add_option("--alpha", o.alphas, "Strengths, in standard deviations")->type_name("A")->capture_default_str();
  app.add_option("--direction", o.directions, "mass_mean, probe_weight, random")
      ->check(CLI::IsMember({"mass_mean", "probe_weight", "random"}))
      ->capture_default_str();
  app.add_option("--C", o.c, "Inverse strength of the L2 penalty of the probes")->type_name("C")->capture_default_str();
  app.add_option("--validation", o.validation, "Share of the fitting questions that rank heads")
      ->type_name("SHARE")
      ->capture_default_str();
  app.add_option("--most", o.most, "Only N questions, chosen by the seed; 0: all")->type_name("N")->capture_default_str();
  app.add_option("--text", o.text, "A UTF-8 text for cross entropy and KL, in windows of 128; default: the documentation")
      ->type_name("FILE");
  app.add_option("--text-tokens", o.ce_tokens, "Of that text; 0: no cross entropy and KL")->type_name("N")->capture_default_str();
  app.add_option("--seed", o.seed, "Of the folds and of random directions")->type_name("N")->capture_default_str();
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  add_json(app, o.json, "the figures", "the text");
  if (const auto end =
          parse(app, argc, argv, "anybit steer truthfulqa model.gguf TruthfulQA.csv --most 200 --heads 16 --alpha 5 15"))
    return end;
  const auto wrong = [](const std::string& what) { return wrong_use("steer truthfulqa", what); };
  for (std::size_t at; (at = o.pattern.find("\\n")) != std::string::npos;) o.pattern.replace(at, 2, "\n");
  if (const auto filled = steer::fill_template(o.pattern, ""); !filled) return wrong(filled.error().message);
  if (!(o.validation > 0 && o.validation < 1))
    return wrong("--validation is " + std::to_string(o.validation) + "; it must be above 0 and below 1");
  if (o.heads < 1) return wrong("--heads is " + std::to_string(o.heads) + "; it must be at least 1");
  if (o.most != 0 && o.most < 8) return wrong("--most is " + std::to_string(o.most) + "; it must be at least 8, or 0 for all");
  if (o.ce_tokens != 0 && o.ce_tokens < 128)
    return wrong("--text-tokens is " + std::to_string(o.ce_tokens) + "; it must be at least 128, or 0");
  for (const double a : o.alphas)
    if (!is_finite(a)) return wrong("--alpha must be finite");
  std::vector<FileRole> inputs = model_inputs(o.model, o.tokenizer);
  inputs.push_back({"DATA", o.data}), inputs.push_back({"--text", o.text});
  return check_files("steer truthfulqa", inputs, {{"--json", o.json}});
}

/// A question as tokens: the best answer, the correct ones, the incorrect ones.
struct Asked {
  std::vector<model::TokenId> prompt;
  std::vector<std::vector<model::TokenId>> answers;
  std::size_t correct = 0;

  steer::AnswerScores scores(const std::vector<double>& log_p) const {
    const auto first = log_p.begin() + 1, middle = first + static_cast<std::ptrdiff_t>(correct);
    return {.best = log_p.front(), .correct = {first, middle}, .incorrect = {middle, log_p.end()}};
  }
};

/// Head outputs at the last token of each answer, of each block (answers, width); the best answer is not counted twice.
struct Activations {
  std::vector<Matrix> blocks;
  std::vector<steer::Label> labels;
  std::vector<std::size_t> question;
};

class Truth {
 public:
  Truth(const TruthOptions& o, const model::Model& m, ExecutorRef executor) : o_(o), m_(m), d_(m.decoder), executor_(executor) {}

  Status ask(std::span<const Question> questions) {
    for (const Question& q : questions) {
      Asked a;
      ANYBIT_TRY(const std::string prompt, steer::fill_template(o_.pattern, q.text));
      ANYBIT_TRY(a.prompt, steer::encode_prompt(m_.tokenizer, prompt));
      a.correct = q.correct.size();
      std::vector<std::string> texts{q.best};
      texts.insert(texts.end(), q.correct.begin(), q.correct.end());
      texts.insert(texts.end(), q.incorrect.begin(), q.incorrect.end());
      for (const std::string& t : texts) {
        ANYBIT_TRY(a.answers.emplace_back(), m_.tokenizer.encode(" " + t));
      }
      asked_.push_back(std::move(a));
    }
    std::vector<std::size_t> order(asked_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::mt19937_64 random(o_.seed);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[steer::random_below(random, i)]);
    fold_.resize(order.size()), split_.resize(order.size(), steer::Split::train);
    for (std::size_t i = 0; i < order.size(); ++i) fold_[order[i]] = static_cast<int>(i % 2);
    // Of each fold's questions a share ranks the heads of the other.
    for (const int fold : {0, 1}) {
      std::size_t of_fold = 0, ranking = 0;
      for (const int f : fold_) of_fold += f == fold;
      const auto wanted = static_cast<std::size_t>(std::lround(o_.validation * static_cast<double>(of_fold)));
      for (const std::size_t q : order)
        if (fold_[q] == fold && ranking < wanted) split_[q] = steer::Split::validation, ++ranking;
    }
    return Ok{};
  }

  /// Scores of all questions without a shift, and what heads put out on the way.
  Result<std::vector<steer::AnswerScores>> baseline(Progress& progress) {
    const auto blocks = static_cast<std::size_t>(d_.config.blocks);
    std::vector<std::vector<float>> rows(blocks), last(blocks);
    std::vector<model::Tap> taps;
    for (std::size_t b = 0; b < blocks; ++b)
      taps.push_back({static_cast<Index>(b), model::Point::head_out, [&last, b](MutableMatrix x, model::TokenRange) {
                        const auto row = x.row(x.rows - 1);
                        last[b].assign(row.begin(), row.end());
                      }});
    std::vector<steer::AnswerScores> out;
    for (std::size_t q = 0; q < asked_.size(); ++q) {
      const Asked& a = asked_[q];
      const auto keep = [&](std::size_t answer) {
        if (answer == 0) return;  // the best one comes again among the correct ones
        for (std::size_t b = 0; b < blocks; ++b) rows[b].insert(rows[b].end(), last[b].begin(), last[b].end());
        seen_.labels.push_back(answer <= a.correct);
        seen_.question.push_back(q);
      };
      ANYBIT_TRY(const std::vector<double> log_p,
                 steer::answer_log_probabilities(d_, a.prompt, a.answers, taps, executor_, keep));
      out.push_back(a.scores(log_p));
      progress.update(static_cast<Index>(q) + 1, static_cast<Index>(asked_.size()));
    }
    const Index width = d_.config.query_width();
    for (std::size_t b = 0; b < blocks; ++b) {
      seen_.blocks.emplace_back(static_cast<Index>(seen_.labels.size()), width);
      std::copy(rows[b].begin(), rows[b].end(), seen_.blocks.back().data());
    }
    return out;
  }

  /// Probes of the questions that are not in `fold`.
  Status fit(int fold) {
    Activations& fitting = fitting_[fold];
    std::vector<std::size_t> rows;
    for (std::size_t i = 0; i < seen_.labels.size(); ++i)
      if (fold_[seen_.question[i]] != fold) rows.push_back(i);
    for (const std::size_t r : rows) {
      fitting.labels.push_back(seen_.labels[r]);
      fitting.question.push_back(seen_.question[r]);
      splits_[fold].push_back(split_[seen_.question[r]]);
    }
    for (const Matrix& all : seen_.blocks) {
      Matrix& m = fitting.blocks.emplace_back(static_cast<Index>(rows.size()), all.cols());
      for (std::size_t i = 0; i < rows.size(); ++i)
        std::copy_n(all.view().row(static_cast<Index>(rows[i])).data(), all.cols(), m.view().row(static_cast<Index>(i)).data());
    }
    ANYBIT_TRY(probes_[fold], steer::fit_head_probes(fitting.blocks, fitting.labels, splits_[fold], d_.config.head_dim, o_.c));
    return Ok{};
  }
  Result<steer::Intervention> intervention(int fold, steer::ShiftKind kind) const {
    return steer::fit_intervention(fitting_[fold].blocks, fitting_[fold].labels, splits_[fold], probes_[fold], d_.config.head_dim,
                                   {.heads = o_.heads, .kind = kind, .c = o_.c, .seed = o_.seed});
  }
  /// Every question with the shift that was fitted on the other fold.
  Result<std::vector<steer::AnswerScores>> shifted(const steer::Intervention (&shifts)[2], double alpha,
                                                   Progress& progress) const {
    std::vector<steer::AnswerScores> out;
    for (std::size_t q = 0; q < asked_.size(); ++q) {
      const Asked& a = asked_[q];
      ANYBIT_TRY(const auto taps, steer::intervention_taps(d_, shifts[fold_[q]], alpha, static_cast<Index>(a.prompt.size()) - 1));
      ANYBIT_TRY(const std::vector<double> log_p, steer::answer_log_probabilities(d_, a.prompt, a.answers, taps, executor_));
      out.push_back(a.scores(log_p));
      progress.update(static_cast<Index>(q) + 1, static_cast<Index>(asked_.size()));
    }
    return out;
  }
  /// Validation accuracy of the best head, by fold.
  double best_head(int fold) const {
    double best = 0;
    for (const steer::HeadProbe& p : probes_[fold]) best = std::max(best, p.accuracy);
    return best;
  }

 private:
  const TruthOptions& o_;
  const model::Model& m_;
  const model::Decoder& d_;
  ExecutorRef executor_;
  std::vector<Asked> asked_;
  std::vector<int> fold_;            ///< by question
  std::vector<steer::Split> split_;  ///< by question, where it fits
  Activations seen_, fitting_[2];    ///< fitting_[f]: of the questions that are not in fold f
  std::vector<steer::Split> splits_[2];
  std::vector<steer::HeadProbe> probes_[2];
};

/// Cross entropy and KL of a text with the shift at all positions, baked into biases; as the paper measures them.
struct TextCost {
  double cross_entropy = 0, kl = 0;
};

Result<TextCost> text_cost(const model::Decoder& d, const evaluate::ReferenceLogits& reference, const evaluate::Windows& windows,
                           const steer::Intervention* shift, double alpha, ExecutorRef executor) {
  model::Decoder baked = d;
  if (shift) ANYBIT_TRY_STATUS(steer::bake(baked, *shift, alpha));
  ANYBIT_TRY(const auto tokens, evaluate::compare(reference, baked, windows, executor));
  TextCost out;
  for (const evaluate::TokenComparison& t : tokens) {
    out.cross_entropy += t.nll / static_cast<double>(tokens.size());
    out.kl += t.kl / static_cast<double>(tokens.size());
  }
  return out;
}

struct TruthRow {
  std::string name;
  double alpha = 0;
  MeanInterval mc1, mc2;
  std::optional<TextCost> cost;
};

TruthRow row_of(const std::string& name, double alpha, const std::vector<steer::AnswerScores>& scores) {
  std::vector<double> one, two;
  for (const steer::AnswerScores& s : scores) one.push_back(s.mc1()), two.push_back(s.mc2());
  return {.name = name, .alpha = alpha, .mc1 = steer::bootstrap_mean(one), .mc2 = steer::bootstrap_mean(two), .cost = {}};
}

void print(const TruthRow& r) {
  std::printf("%-14s %6g  %.3f [%.3f, %.3f]   %.3f [%.3f, %.3f]", r.name.c_str(), r.alpha, r.mc1.mean, r.mc1.low, r.mc1.high,
              r.mc2.mean, r.mc2.low, r.mc2.high);
  if (r.cost)
    std::printf("   %6.3f %8.4f\n", r.cost->cross_entropy, r.cost->kl);
  else
    std::printf("   %6s %8s\n", "-", "-");
  std::fflush(stdout);
}

int truthfulqa(int argc, const char* const* argv) {
  TruthOptions o;
  if (const auto end = parse_options(argc, argv, o)) return *end;
  const auto failed = [](ExitCode code, const Error& e) { return fail("steer truthfulqa", code, e); };
  auto questions = read_questions(o.data);
  if (!questions) return failed(bad_input, questions.error());
  if (questions->size() < 8)
    return failed(bad_input, {ErrorCode::insufficient_data, o.data + ": " + std::to_string(questions->size()) +
                                                                " questions: two folds that fit and rank need at least 8"});
  std::mt19937_64 random(o.seed + 1);
  for (std::size_t i = questions->size(); i > 1; --i)
    std::swap((*questions)[i - 1], (*questions)[steer::random_below(random, i)]);
  if (o.most > 0 && static_cast<std::size_t>(o.most) < questions->size()) questions->resize(static_cast<std::size_t>(o.most));
  const auto m = open_model(o.model, o.tokenizer);
  if (!m) return failed(bad_input, m.error());
  const Index all_heads = m->decoder.config.blocks * m->decoder.config.heads;
  if (o.heads > all_heads)
    return wrong_use("steer truthfulqa",
                     "--heads is " + std::to_string(o.heads) + "; the model has " + std::to_string(all_heads) + " heads");

  ThreadPool pool(thread_count(o.threads));
  Progress progress;
  const bool prints = o.json != "-";
  const auto total = static_cast<double>(1 + o.alphas.size() * o.directions.size());
  std::vector<TruthRow> rows;
  Truth truth(o, *m, pool);
  if (const auto done = truth.ask(*questions); !done) return failed(bad_input, done.error());
  progress.begin("without a shift", 1, total);
  const auto plain = truth.baseline(progress);
  progress.end(), progress.clear();
  if (!plain) return failed(bad_input, plain.error());
  evaluate::Windows windows;
  evaluate::ReferenceLogits reference;
  if (o.ce_tokens > 0) {
    auto text = o.text.empty() ? Result<std::string>(std::string()) : read_text(o.text);
    if (!text) return failed(bad_input, text.error());
    if (o.text.empty()) {
      auto both = documentation(source_tree());
      if (!both) return failed(bad_input, both.error());
      *text = both->evaluate;
    }
    auto ids = m->tokenizer.encode(*text);
    if (!ids) return failed(bad_input, ids.error());
    ids->resize(std::min(ids->size(), static_cast<std::size_t>(o.ce_tokens)));
    auto cut = evaluate::gptq_windows(*ids, 128);
    if (!cut) return failed(bad_input, cut.error());
    windows = *std::move(cut);
    auto made = evaluate::reference_logits(m->decoder, windows, pool);
    if (!made) return failed(bad_input, made.error());
    reference = *std::move(made);
  }
  const auto add = [&](TruthRow r) {
    if (prints) print(r);
    rows.push_back(std::move(r));
  };
  for (const int fold : {0, 1})
    if (const auto fitted = truth.fit(fold); !fitted) return failed(bad_input, fitted.error());
  if (prints)
    std::printf(
        "%zu questions in two folds, %lld heads; best head right on %.3f and %.3f of the validation answers\n"
        "%-14s %6s  %-22s  %-22s  %6s %8s\n",
        questions->size(), static_cast<long long>(o.heads), truth.best_head(0), truth.best_head(1), "direction", "alpha",
        "MC1, 95 % bootstrap", "MC2, 95 % bootstrap", "CE", "KL");
  TruthRow base = row_of("none", 0, *plain);
  if (windows.count() > 0) {
    const auto cost = text_cost(m->decoder, reference, windows, nullptr, 0, pool);
    if (!cost) return failed(bad_input, cost.error());
    base.cost = *cost;
  }
  add(std::move(base));
  for (const std::string& name : o.directions) {
    const auto kind = name == "mass_mean"      ? steer::ShiftKind::mass_mean
                      : name == "probe_weight" ? steer::ShiftKind::probe_weight
                                               : steer::ShiftKind::random;
    steer::Intervention shifts[2];
    for (const int fold : {0, 1}) {
      auto fitted = truth.intervention(fold, kind);
      if (!fitted) return failed(bad_input, fitted.error());
      shifts[fold] = *std::move(fitted);
    }
    for (const double alpha : o.alphas) {
      progress.begin(name, 1, total);
      const auto scores = truth.shifted(shifts, alpha, progress);
      progress.end(), progress.clear();
      if (!scores) return failed(bad_input, scores.error());
      TruthRow r = row_of(name, alpha, *scores);
      for (int fold = 0; fold < 2 && windows.count() > 0; ++fold) {
        const auto cost = text_cost(m->decoder, reference, windows, &shifts[fold], alpha, pool);
        if (!cost) return failed(bad_input, cost.error());
        if (!r.cost) r.cost.emplace();
        r.cost->cross_entropy += cost->cross_entropy / 2, r.cost->kl += cost->kl / 2;
      }
      add(std::move(r));
    }
  }
  using nlohmann::ordered_json;
  ordered_json out = ordered_json::array();
  const auto interval = [](const MeanInterval& i) { return ordered_json{{"mean", i.mean}, {"low", i.low}, {"high", i.high}}; };
  for (const TruthRow& r : rows) {
    out.push_back({{"direction", r.name}, {"alpha", r.alpha}, {"mc1", interval(r.mc1)}, {"mc2", interval(r.mc2)}});
    if (r.cost) out.back()["cross_entropy"] = r.cost->cross_entropy, out.back()["kl"] = r.cost->kl;
  }
  return write_json("steer truthfulqa", o.json,
                    ordered_json{{"model", m->name},
                                 {"data", o.data},
                                 {"questions", questions->size()},
                                 {"heads", o.heads},
                                 {"best_head_validation_accuracy", {truth.best_head(0), truth.best_head(1)}},
                                 {"rows", std::move(out)}});
}

}  // namespace

int run_steer_truthfulqa(int argc, const char* const* argv) {
  return run_command([&] { return truthfulqa(argc, argv); });
}

}  // namespace tool
