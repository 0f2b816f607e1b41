#pragma once
// The texts that calibrate and evaluate.

#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/evaluate/perplexity.hpp>

namespace tool {

/// The whole file, which must be UTF-8 and hold something.
anybit::Result<std::string> read_text(const std::string& path);

/// A line that is not blank, and its number from 1 on.
struct TextLine {
  std::string_view text;
  anybit::Index number = 0;
};
std::vector<TextLine> lines_of(std::string_view text);

struct TwoTexts {
  std::string calibrate, evaluate;
};

/// The pages below docs/ in `folder`, in alphabetical order, but for docs/results/, whose tables are made from this text; none if
/// they cannot be listed.
std::vector<std::string> documentation_files(const std::string& folder);

/// The project's own documentation, cut at the blank line nearest to the middle.
anybit::Result<TwoTexts> documentation(const std::string& folder);

/// Cut at the blank line nearest to the middle, or in the middle of a text without one.
TwoTexts cut_in_two(std::string_view text);

/// What of a text of so many tokens is not in windows, or is in them twice: one line each.
std::vector<std::string> text_warnings(const anybit::evaluate::Windows& windows, anybit::Index tokens);

}  // namespace tool
