#include "id_lists.hpp"

#include <fstream>
#include <limits>
#include <sstream>

#include <nlohmann/json.hpp>

namespace tool {

using namespace anybit;

Result<std::vector<std::vector<model::TokenId>>> read_id_lists(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return Error{ErrorCode::io, path + ": cannot be read: check the path and its permissions"};
  const auto bad = [&](const std::string& why) {
    return Error{ErrorCode::corrupt_data, path + ": " + why + ": give a list of lists of ids, [[1, 2, 3], [4, 5]]"};
  };
  const auto lists = nlohmann::json::parse(text.str(), nullptr, false);
  if (!lists.is_array()) return bad(lists.is_discarded() ? "is not JSON" : "is not a list");
  if (lists.empty()) return bad("holds no example");
  std::vector<std::vector<model::TokenId>> out;
  for (std::size_t i = 0; i < lists.size(); ++i) {
    const std::string which = "example " + std::to_string(i);
    if (!lists[i].is_array()) return bad(which + " is no list of ids");
    std::vector<model::TokenId>& ids = out.emplace_back();
    for (const auto& id : lists[i]) {
      const auto value = id.is_number_integer() ? id.get<std::int64_t>() : std::int64_t{-1};
      if (value < 0 || value > std::numeric_limits<model::TokenId>::max()) return bad(which + " has the id " + id.dump());
      ids.push_back(static_cast<model::TokenId>(value));
    }
  }
  return out;
}

std::vector<train::Example> examples_of(const std::vector<std::vector<model::TokenId>>& ids) {
  std::vector<train::Example> out;
  for (const auto& one : ids) out.push_back({one, {}});
  return out;
}

}  // namespace tool
