#pragma once
// Texts that evoke a concept: a template around each statement, and pairs of one text with the concept and one without.

#include <anybit/core/macros_begin.hpp>

#include <cstddef>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/steer/labelled.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

/// Texts and a label for each. In pairs texts 2i and 2i+1 belong together.
struct Stimuli {
  std::vector<std::string> texts{};
  std::vector<Label> labels{};

  std::size_t size() const { return texts.size(); }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// A template for truth, after those of LAT (Zou et al.): it asks for the amount of the concept.
inline constexpr std::string_view truth_template =
    "Consider the amount of truthfulness in the following statement.\nStatement: {}\nThe amount of truthfulness is";

/// `pattern` with the text in place of its only "{}".
inline Result<std::string> fill_template(std::string_view pattern, std::string_view text) {
  const std::size_t at = pattern.find("{}");
  if (at == std::string_view::npos || pattern.find("{}", at + 2) != std::string_view::npos)
    return {ErrorCode::invalid_argument,
            "steer: the template " + io::detail::shown(pattern) + " must hold {} once, for the text"};
  return std::string(pattern.substr(0, at)).append(text).append(pattern.substr(at + 2));
}

/// A number below `end`, the same on every machine.
inline std::size_t random_below(std::mt19937_64& random, std::size_t end) { return static_cast<std::size_t>(random() % end); }

/// Each text of `with` and the text of `without` at the same place as a pair, in an order that is mixed by `seed`: half of the
/// pairs, give or take one, begin with the concept.
inline Result<Stimuli> make_pairs(std::span<const std::string> with, std::span<const std::string> without,
                                  std::uint64_t seed = 42) {
  if (with.size() != without.size())
    return {ErrorCode::shape_mismatch, io::detail::text("steer: ", with.size(), " texts with the concept and ", without.size(),
                                                        " without it: pairs need as many of each")};
  std::vector<Label> first;
  for (std::size_t i = 0; i < with.size(); ++i) first.push_back(static_cast<Label>(i % 2));
  std::mt19937_64 random(seed);
  for (std::size_t i = first.size(); i > 1; --i) std::swap(first[i - 1], first[random_below(random, i)]);
  Stimuli out;
  for (std::size_t i = 0; i < with.size(); ++i) {
    out.texts.push_back(first[i] == 1 ? with[i] : without[i]);
    out.texts.push_back(first[i] == 1 ? without[i] : with[i]);
    out.labels.push_back(first[i]), out.labels.push_back(1 - first[i]);
  }
  return out;
}

/// Pairs of labelled statements that belong to nothing: both labels are shuffled by `seed` and paired as far as the rarer one
/// reaches. The first `train` share of the pairs is for fitting, the rest for testing: no statement is in both.
struct SplitStimuli {
  Stimuli train, test;
};
inline Result<SplitStimuli> pair_statements(const Stimuli& statements, double train = 0.5, std::uint64_t seed = 42) {
  std::vector<std::string> texts[2];
  for (std::size_t i = 0; i < statements.size(); ++i) {
    if (statements.labels[i] != 0 && statements.labels[i] != 1)
      return {ErrorCode::invalid_argument,
              io::detail::text("steer: label ", i, " is ", statements.labels[i], ": a label is 0 or 1")};
    texts[statements.labels[i]].push_back(statements.texts[i]);
  }
  std::mt19937_64 random(seed);
  for (auto& of_label : texts)
    for (std::size_t i = of_label.size(); i > 1; --i) std::swap(of_label[i - 1], of_label[random_below(random, i)]);
  const std::size_t pairs = std::min(texts[0].size(), texts[1].size());
  const auto cut = static_cast<std::size_t>(train * static_cast<double>(pairs));
  if (cut < 2 || pairs - cut < 1)
    return {ErrorCode::insufficient_data,
            io::detail::text("steer: ", texts[1].size(), " statements with label 1 and ", texts[0].size(),
                             " with label 0: a split needs two pairs to fit and one to test, give more of both labels")};
  for (auto& of_label : texts) of_label.resize(pairs);
  const auto part = [&](std::size_t begin, std::size_t end) {
    return make_pairs(std::span(texts[1]).subspan(begin, end - begin), std::span(texts[0]).subspan(begin, end - begin), seed + 1);
  };
  ANYBIT_TRY(Stimuli fit, part(0, cut));
  ANYBIT_TRY(Stimuli test, part(cut, pairs));
  return SplitStimuli{std::move(fit), std::move(test)};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
