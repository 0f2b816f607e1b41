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

}  // namespace

Result<steer::Stimuli> read_statements(const std::string& path) {
  ANYBIT_TRY(const std::string bytes, read_text(path));
  std::string_view text = bytes;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  std::size_t line = 1;
  const auto in_file = [&](Error e) { return in_context(std::move(e), path); };
  auto header = take_record(text, line);
  if (!header) return in_file(header.error());
  const auto column = [&](std::string_view name) {
    return static_cast<std::size_t>(std::find(header->begin(), header->end(), name) - header->begin());
  };
  const std::size_t statement = column("statement"), label = column("label");
  if (statement == header->size() || label == header->size())
    return in_file({ErrorCode::corrupt_data, "the first line does not name the columns statement and label: add it"});
  steer::Stimuli out;
  while (!text.empty()) {
    const std::size_t at = line;
    auto record = take_record(text, line);
    if (!record) return in_file(record.error());
    if (record->size() == 1 && record->front().empty()) continue;
    const std::string where = "line " + std::to_string(at) + ": ";
    if (record->size() <= std::max(statement, label))
      return in_file({ErrorCode::corrupt_data, where + "has " + std::to_string(record->size()) + " fields, the first line " +
                                                   std::to_string(header->size()) + ": quote texts that hold commas"});
    const std::string& l = (*record)[label];
    if (l != "0" && l != "1")
      return in_file({ErrorCode::corrupt_data, where + "the label is " + io::detail::shown(l) + ": it must be 0 or 1"});
    out.texts.push_back((*record)[statement]);
    out.labels.push_back(l == "1");
  }
  return out;
}

steer::Stimuli first_of_each(const steer::Stimuli& all, Index most) {
  if (most == 0) return all;
  steer::Stimuli out;
  Index taken[2] = {0, 0};
  for (std::size_t i = 0; i < all.size(); ++i)
    if (taken[all.labels[i]]++ < most) out.texts.push_back(all.texts[i]), out.labels.push_back(all.labels[i]);
  return out;
}

}  // namespace tool
