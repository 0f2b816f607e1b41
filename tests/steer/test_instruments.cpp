// Attention patterns, contrast vectors, multiple choice and bootstrap intervals against what the forward pass itself does.

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <anybit/model/arch/llama.hpp>
#include <anybit/steer/attention_pattern.hpp>
#include <anybit/steer/bootstrap.hpp>
#include <anybit/steer/contrast.hpp>
#include <anybit/steer/multiple_choice.hpp>

#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "train/small_decoder.hpp"

using namespace anybit;
using namespace anybit::steer;
using model::Point;
using model::Tap;
using test_support::largest_difference;
using train_tests::small_decoder;

namespace {

std::vector<model::TokenId> tokens_of(Index count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<model::TokenId> out(static_cast<std::size_t>(count));
  for (auto& id : out) id = static_cast<model::TokenId>(random() % 11);
  return out;
}

Matrix logits_of(const model::Decoder& d, std::span<const model::TokenId> ids, std::span<const Tap> taps = {}) {
  nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
  return forward(d, ids, cache, {.taps = taps}).value();
}

std::vector<model::TokenId> joined(std::vector<model::TokenId> a, const std::vector<model::TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("attention patterns mix the values to the heads' outputs, in every form of attention") {
  using model::HeadNorm;
  model::DecoderForm plain, gemma, alibi, qwen3, bloom, learned;
  gemma.attention_cap = 1.5f, gemma.attention_scale = 0.7f, gemma.window = 3, gemma.windowed = {1, 0};
  gemma.head_norm = HeadNorm::rms, gemma.order = model::BlockOrder::sandwich;
  alibi.norm = model::NormKind::layer, alibi.positions = model::Positions::alibi, alibi.alibi_scale = 0.5f;
  qwen3.head_norm = HeadNorm::rms;
  bloom.head_norm = HeadNorm::layer, bloom.norm = model::NormKind::layer;
  learned.norm = model::NormKind::layer, learned.positions = model::Positions::learned, learned.scale_by_layer = true;
  for (const auto* form : {&plain, &gemma, &alibi, &qwen3, &bloom, &learned}) {
    CAPTURE(static_cast<int>(form->positions), static_cast<int>(form->head_norm));
    const model::Decoder d = small_decoder(model::llama_architecture, true, 6, *form);
    const auto ids = tokens_of(9, 3);
    for (const Index block : {Index{0}, Index{1}}) {
      const std::vector<Matrix> patterns = attention_patterns(d, ids, block).value();
      REQUIRE(patterns.size() == 4);
      Matrix values, mixed;
      const Tap taps[] = {{block, Point::v, [&](MutableMatrix x, model::TokenRange) { values = Matrix(x); }},
                          {block, Point::head_out, [&](MutableMatrix x, model::TokenRange) { mixed = Matrix(x); }}};
      logits_of(d, ids, taps);
      for (Index h = 0; h < 4; ++h) {
        const Matrix& a = patterns[static_cast<std::size_t>(h)];
        for (Index t = 0; t < 9; ++t) {
          double sum = 0;
          for (Index p = 0; p < 9; ++p) {
            sum += static_cast<double>(a(t, p));
            if (p > t || (form->window_of(block) > 0 && p <= t - form->window_of(block))) CHECK(a(t, p) == 0);
          }
          CHECK(sum == Approx(1).margin(1e-6));
          for (Index j = 0; j < 4; ++j) {
            double out = 0;
            for (Index p = 0; p < 9; ++p) out += static_cast<double>(a(t, p)) * static_cast<double>(values(p, h / 2 * 4 + j));
            CHECK(out == Approx(static_cast<double>(mixed(t, h * 4 + j))).margin(1e-4));
          }
        }
      }
    }
  }
  const model::Decoder d = small_decoder(model::llama_architecture, true);
  CHECK(attention_patterns(d, tokens_of(3, 1), 2).error().message ==
        "steer: block 2, the model has 2, counted from 0: choose one of these");
  CHECK(attention_patterns(d, tokens_of(33, 1), 0).error().message ==
        "steer: a prompt of 33 tokens, the model's context holds 32: shorten the text");
}

TEST_CASE("contrast vectors are the differences behind two prefixes and grow with the text") {
  const model::Decoder d = small_decoder(model::llama_architecture, true);
  const auto with = tokens_of(4, 1), without = tokens_of(3, 2), text = tokens_of(6, 3);
  // The truth: whole runs behind the prefixes.
  std::vector<Matrix> of_with(2), of_without(2), plain(2), steered(2);
  const auto keep = [](std::vector<Matrix>& to) {
    std::vector<Tap> taps;
    for (Index b = 0; b < 2; ++b)
      taps.push_back(
          {b, Point::residual, [&to, b](MutableMatrix x, model::TokenRange) { to[static_cast<std::size_t>(b)] = Matrix(x); }});
    return taps;
  };
  logits_of(d, joined(with, text), keep(of_with));
  logits_of(d, joined(without, text), keep(of_without));
  logits_of(d, text, keep(plain));
  ContrastControl control = ContrastControl::start(d, with, without, 6, {1}, 0.5).value();
  std::vector<Tap> taps = control.taps(text).value();
  for (Tap& t : keep(steered)) taps.push_back(std::move(t));
  const Matrix whole = logits_of(d, text, taps);
  CHECK(largest_difference(steered[0].view(), plain[0].view()) == 0);
  for (Index t = 0; t < 6; ++t)
    for (Index j = 0; j < 6; ++j)
      CHECK(steered[1](t, j) == Approx(plain[1](t, j) + 0.5f * (of_with[1](t + 4, j) - of_without[1](t + 3, j))).margin(1e-5));
  CHECK(largest_difference(whole.view(), logits_of(d, text).view()) > 1e-3);

  // Token by token, and the first one skipped.
  ContrastControl steps = ContrastControl::start(d, with, without, 6, {1}, 0.5).value();
  nn::KvCache cache(cache_shape(d.config), 6);
  for (Index t = 0; t < 6; ++t) {
    const auto one = std::span(text).subspan(static_cast<std::size_t>(t), 1);
    const auto step = steps.taps(one).value();
    const Matrix logits = forward(d, one, cache, {.taps = step}).value();
    CHECK(largest_difference(logits.view(), whole.view().row_range(t, t + 1)) < 1e-4);
  }
  ContrastControl late = ContrastControl::start(d, with, without, 6, {1}, 0.5).value();
  const auto skipping = late.taps(text, 6).value();
  CHECK(largest_difference(logits_of(d, text, skipping).view(), logits_of(d, text).view()) == 0);
  // Equal prefixes change nothing.
  ContrastControl same = ContrastControl::start(d, with, with, 6, {0, 1}, 3).value();
  const auto nothing = same.taps(text).value();
  CHECK(largest_difference(logits_of(d, text, nothing).view(), logits_of(d, text).view()) == 0);

  const auto message = [&](std::span<const model::TokenId> prefix, Index capacity, Index block, double c) {
    return ContrastControl::start(d, prefix, without, capacity, {block}, c).error().message;
  };
  CHECK(message({}, 6, 0, 1) == "steer: a prefix of contrast vectors is empty: give a text");
  CHECK(message(with, 29, 0, 1) ==
        "steer: a prefix of 4 tokens and a text of 29 need 33 positions, the model's context holds 32: shorten them");
  CHECK(message(with, 6, 2, 1) == "steer: contrast in block 2, the model has 2, counted from 0: choose one of these");
  CHECK(message(with, 6, 0, std::nan("")) == "steer: the coefficient is nan: give a finite number");
}

TEST_CASE("answers have the probabilities of the whole text and taps act from the prompt's last token") {
  const model::Decoder d = small_decoder(model::llama_architecture, true);
  const auto prompt = tokens_of(5, 7);
  const std::vector<std::vector<model::TokenId>> answers{tokens_of(1, 1), tokens_of(4, 2), tokens_of(3, 3)};
  const Tap shift{1, Point::residual, [](MutableMatrix x, model::TokenRange at) {
                    for (Index t = 0; t < x.rows; ++t)
                      if (at.begin + t >= 4) x(t, 2) += 1;
                  }};
  for (const bool with_tap : {false, true}) {
    const std::span<const Tap> taps(&shift, with_tap ? 1 : 0);
    std::size_t called = 0;
    const auto got = answer_log_probabilities(d, prompt, answers, taps, {}, [&](std::size_t i) { CHECK(i == called++); }).value();
    CHECK(called == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      const Matrix logits = logits_of(d, joined(prompt, answers[i]), taps);
      double sum = 0;
      for (std::size_t t = 0; t < answers[i].size(); ++t) {
        const auto row = std::as_const(logits).view().row(static_cast<Index>(4 + t));
        double all = 0;
        for (const float l : row) all += std::exp(static_cast<double>(l));
        sum += static_cast<double>(row[static_cast<std::size_t>(answers[i][t])]) - std::log(all);
      }
      CHECK(got[i] == Approx(sum).margin(1e-4));
    }
  }
  const std::vector<std::vector<model::TokenId>> empty{{}};
  CHECK(answer_log_probabilities(d, prompt, empty).error().message == "steer: answer 0 is empty: give a text");
  CHECK(answer_log_probabilities(d, {}, answers).error().code == ErrorCode::insufficient_data);
  const std::vector<std::vector<model::TokenId>> far{tokens_of(28, 1)};
  CHECK(answer_log_probabilities(d, prompt, far).error().message ==
        "steer: a question and an answer of 33 tokens, the model's context holds 32: shorten them");
}

TEST_CASE("multiple choice by hand") {
  const AnswerScores s{.best = -2, .correct = {-2, -3}, .incorrect = {-2.5, -4}};
  CHECK(s.mc1() == 1);
  const double right = std::exp(-2) + std::exp(-3), wrong = std::exp(-2.5) + std::exp(-4);
  CHECK(s.mc2() == Approx(right / (right + wrong)));
  CHECK(AnswerScores{.best = -2, .correct = {-2}, .incorrect = {-2}}.mc1() == 0);  // a tie is no choice
  CHECK(AnswerScores{.best = -2000, .correct = {-2000}, .incorrect = {-2001}}.mc2() == Approx(1 / (1 + std::exp(-1))));
}

TEST_CASE("bootstrap: the mean and an interval as wide as the standard error says") {
  std::vector<double> values(200);
  std::mt19937 random(5);
  for (double& v : values) v = static_cast<double>(random() % 1000) / 1000;
  const MeanInterval m = bootstrap_mean(values);
  double mean = 0, square = 0;
  for (const double v : values) mean += v / 200;
  for (const double v : values) square += (v - mean) * (v - mean) / 200;
  CHECK(m.mean == Approx(mean));
  const double error = std::sqrt(square / 200);
  CHECK(m.low == Approx(mean - 1.96 * error).margin(0.2 * error));
  CHECK(m.high == Approx(mean + 1.96 * error).margin(0.2 * error));
  const MeanInterval half = bootstrap_mean(values, {.level = 0.5});
  CHECK((half.low > m.low && half.high < m.high));
  CHECK(bootstrap_mean(values).low == m.low);
  const std::vector<double> equal(7, 0.25), one{3};
  CHECK((bootstrap_mean(equal).low == 0.25 && bootstrap_mean(equal).high == 0.25));
  CHECK((bootstrap_mean(one).mean == 3 && bootstrap_mean(one).high == 3));
  CHECK(bootstrap_mean({}).mean == 0);
}
