#include "statements.hpp"

#include <algorithm>
#include <vector>

#include "shared/text.hpp"

namespace tool {

using namespace anybit;

namespace {

/// Takes one record off `text`; an error for a quote that is not closed.
Result<std::vector<std::string>> take_record(std::string_view& text, std::size_t& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  const std::size_t first_line = line;
  std::size_t i = 0;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    line += c == '\n';
    if (quoted) {
      if (c != '"')
        fields.back() += c;
      else if (i + 1 < text.size() && text[i + 1] == '"')
        fields.back() += text[++i];
      else
        quoted = false;
    } else if (c == '"' && fields.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      break;
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  if (quoted) return Error{ErrorCode::corrupt_data, "line " + std::to_string(first_line) + ": a quote is not closed: close it"};
  text.remove_prefix(std::min(i + 1, text.size()));
  return fields;
}

/// The columns of a file that have these names, in this order, record by record.
class Records {
 public:
  static Result<Records> open(const std::string& path, std::vector<std::string> names) {
    Records t;
    t.path_ = path;
    ANYBIT_TRY(t.bytes_, read_text(path));
    t.at_ = t.bytes_.starts_with("\xEF\xBB\xBF") ? 3 : 0;
    std::string_view rest = std::string_view(t.bytes_).substr(t.at_);
    auto header = take_record(rest, t.line_);
    if (!header) return in_context(header.error(), path);
    t.at_ = t.bytes_.size() - rest.size(), t.width_ = header->size();
    for (const std::string& name : names) {
      const auto found = std::find(header->begin(), header->end(), name);
      if (found == header->end()) {
        std::string all;
        for (const std::string& n : names) all += (all.empty() ? "" : &n == &names.back() ? " and " : ", ") + n;
        return Error{ErrorCode::corrupt_data, path + ": the first line does not name the columns " + all + ": add it"};
      }
      t.columns_.push_back(static_cast<std::size_t>(found - header->begin()));
    }
    return t;
  }

  /// The next record that is not empty; nothing at the end.
  Result<std::vector<std::string>> next() {
    while (at_ < bytes_.size()) {
      record_line_ = line_;
      std::string_view rest = std::string_view(bytes_).substr(at_);
      auto record = take_record(rest, line_);
      if (!record) return in_context(record.error(), path_);
      at_ = bytes_.size() - rest.size();
      if (record->size() == 1 && record->front().empty()) continue;
      std::vector<std::string> out;
      for (const std::size_t c : columns_) {
        if (c >= record->size())
          return error("has " + std::to_string(record->size()) + " fields, the first line " + std::to_string(width_) +
                       ": quote texts that hold commas");
        out.push_back(std::move((*record)[c]));
      }
      return out;
    }
    return std::vector<std::string>{};
  }
  /// About the record that next() gave last.
  Error error(const std::string& what) const {
    return {ErrorCode::corrupt_data, path_ + ": line " + std::to_string(record_line_) + ": " + what};
  }

 private:
  std::string path_, bytes_;
  std::size_t at_ = 0, line_ = 1, record_line_ = 1, width_ = 0;
  std::vector<std::size_t> columns_;
};

/// "a; b" as {"a.", "b."}.
std::vector<std::string> answers_in(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    std::string_view one = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    while (one.starts_with(' ')) one.remove_prefix(1);
    while (one.ends_with(' ')) one.remove_suffix(1);
    if (!one.empty()) out.push_back(std::string(one) + (one.ends_with('.') ? "" : "."));
  }
  return out;
}

}  // namespace

Result<steer::Stimuli> read_statements(const std::string& path) {
  ANYBIT_TRY(Records table, Records::open(path, {"statement", "label"}));
  steer::Stimuli out;
  for (;;) {
    ANYBIT_TRY(const std::vector<std::string> record, table.next());
    if (record.empty()) return out;
    if (record[1] != "0" && record[1] != "1")
      return table.error("the label is " + io::detail::shown(record[1]) + ": it must be 0 or 1");
    out.texts.push_back(record[0]);
    out.labels.push_back(record[1] == "1");
  }
}

Result<std::vector<Question>> read_questions(const std::string& path) {
  ANYBIT_TRY(Records table, Records::open(path, {"Question", "Best Answer", "Correct Answers", "Incorrect Answers"}));
  std::vector<Question> out;
  for (;;) {
    ANYBIT_TRY(const std::vector<std::string> record, table.next());
    if (record.empty()) return out;
    Question q{.text = record[0], .best = {}, .correct = answers_in(record[2]), .incorrect = answers_in(record[3])};
    const std::vector<std::string> best = answers_in(record[1]);
    if (q.text.empty() || best.size() != 1 || q.correct.empty() || q.incorrect.empty())
      return table.error("a question needs a text, one best answer, and correct and incorrect answers: add what is missing");
    q.best = best.front();
    out.push_back(std::move(q));
  }
}

steer::Stimuli first_of_each(const steer::Stimuli& all, Index most) {
  if (most == 0) return all;
  steer::Stimuli out;
  Index taken[2] = {0, 0};
  for (std::size_t i = 0; i < all.size(); ++i)
    if (taken[all.labels[i]]++ < most) out.texts.push_back(all.texts[i]), out.labels.push_back(all.labels[i]);
  return out;
}

Result<steer::SplitStimuli> read_pairs(const std::string& path, Index most, double train, std::uint64_t seed) {
  ANYBIT_TRY(const steer::Stimuli all, read_statements(path));
  return steer::pair_statements(first_of_each(all, most), train, seed);
}

}  // namespace tool
