#include "prompts.hpp"

#include <cstdint>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>

namespace tool {

using namespace anybit;

namespace {

/// Whether `from` is a list of ids, which go into `to`.
bool read_ids(const nlohmann::json& from, std::vector<model::TokenId>& to) {
  if (!from.is_array()) return false;
  for (const auto& id : from) {
    const auto value = id.is_number_integer() ? id.get<std::int64_t>() : std::int64_t{-1};
    if (value < 0 || value > std::numeric_limits<model::TokenId>::max()) return false;
    to.push_back(static_cast<model::TokenId>(value));
  }
  return true;
}

/// Whether `from` is a list of equally long lists of numbers, (bins, frames); `to` is turned to (frames, bins).
bool read_features(const nlohmann::json& from, Matrix& to) {
  if (!from.is_array() || from.empty() || !from[0].is_array()) return false;
  to = Matrix(static_cast<Index>(from[0].size()), static_cast<Index>(from.size()));
  for (Index bin = 0; bin < to.cols(); ++bin) {
    const auto& row = from[static_cast<std::size_t>(bin)];
    if (!row.is_array() || static_cast<Index>(row.size()) != to.rows()) return false;
    for (Index frame = 0; frame < to.rows(); ++frame) {
      const auto& value = row[static_cast<std::size_t>(frame)];
      if (!value.is_number()) return false;
      to(frame, bin) = value.get<float>();
    }
  }
  return true;
}

}  // namespace

Result<std::vector<Prompt>> read_prompts(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return Error{ErrorCode::io, path + ": cannot be read: check the path and its permissions"};
  const auto bad = [&](const std::string& why) {
    return Error{ErrorCode::corrupt_data, path + ": " + why + R"(: give a list of prompts, each {"ids": [1, 2, 3]})"};
  };
  const auto json = nlohmann::json::parse(text.str(), nullptr, false);
  if (!json.is_array()) return bad(json.is_discarded() ? "is not JSON" : "is not a list");
  std::vector<Prompt> prompts;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const std::string which = "prompt " + std::to_string(i);
    if (!json[i].is_object() || !json[i].contains("ids") || !json[i]["ids"].is_array()) return bad(which + " has no list of ids");
    Prompt& p = prompts.emplace_back();
    for (const auto& [key, to] : {std::pair{"ids", &p.ids}, std::pair{"types", &p.types}, std::pair{"src", &p.source}})
      if (json[i].contains(key) && !read_ids(json[i][key], *to))
        return bad(which + ": " + key + " holds something else than whole numbers from 0 on");
    if (json[i].contains("features") && !read_features(json[i]["features"], p.features))
      return bad(which + ": features are not bins of equally many frames");
    if (p.ids.empty()) return bad(which + " has no ids");
  }
  return prompts;
}

}  // namespace tool
