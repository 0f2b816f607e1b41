#include "claims.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>

#include <nlohmann/json.hpp>

namespace reproduce {

using namespace anybit;
using nlohmann::json;

namespace {

/// Fields of one entry of the file; the first fault is kept, with the place where it is.
class Entry {
 public:
  Entry(const json& j, std::string where, Status& status) : json_(j), where_(std::move(where)), status_(status) {
    if (!j.is_object()) fail("is not an object");
  }
  bool has(const char* key) const { return json_.is_object() && json_.contains(key); }
  std::string text(const char* key) const {
    const json* const v = get(key);
    if (!v) return {};
    if (!v->is_string() || v->get_ref<const std::string&>().empty()) return fail(std::string(key) + " is not a text"), "";
    return v->get<std::string>();
  }
  double number(const char* key, double least) const {
    const json* const v = get(key);
    if (!v) return least;
    if (!v->is_number() || !(v->get<double>() >= least))
      return fail(std::string(key) + " is not a number of at least " + std::to_string(least)), least;
    return v->get<double>();
  }
  const json& list(const char* key) const {
    static const json none = json::array();
    const json* const v = get(key);
    if (!v) return none;
    if (!v->is_array() || v->empty()) return fail(std::string(key) + " is not a list of at least one"), none;
    return *v;
  }
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> out;
    for (const json& v : list(key)) {
      if (!v.is_string()) return fail(std::string(key) + " holds what is not a text"), out;
      out.push_back(v.get<std::string>());
    }
    return out;
  }
  void only(std::initializer_list<const char*> keys) const {
    if (!json_.is_object()) return;
    for (const auto& [key, value] : json_.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) fail("has a field '" + key + "' that nobody knows");
  }
  void fail(const std::string& what) const {
    if (status_) status_ = Error{ErrorCode::corrupt_data, where_ + ": " + what};
  }

 private:
  const json* get(const char* key) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(key);
    if (found != json_.end()) return &*found;
    fail(std::string("lacks '") + key + "'");
    return nullptr;
  }
  const json& json_;
  std::string where_;
  Status& status_;
};

ClaimTable table_of(const Entry& e, const std::string& where, Status& status) {
  e.only({"name", "experiment", "paper", "table", "measure", "models", "not_at_hand", "baseline", "rows"});
  ClaimTable t{e.text("name"),        e.text("experiment"), e.text("paper"),
               e.text("table"),       e.text("measure"),    e.texts("models"),
               e.text("not_at_hand"), e.text("baseline"),   {}};
  for (const json& j : e.list("rows")) {
    const Entry row(j, where + ", row " + std::to_string(t.rows.size() + 1), status);
    row.only({"setting", "values", "not_run"});
    ClaimRow r{row.text("setting"), {}, row.has("not_run") ? row.text("not_run") : ""};
    for (const json& v : row.list("values")) {
      if (!v.is_number() && !v.is_null()) row.fail("a value is neither a number nor null");
      r.values.push_back(v.is_number() ? std::optional(v.get<double>()) : std::nullopt);
    }
    if (r.values.size() != t.models.size())
      row.fail(std::to_string(r.values.size()) + " values for " + std::to_string(t.models.size()) + " models");
    t.rows.push_back(std::move(r));
  }
  return t;
}

Statement statement_of(const Entry& e) {
  e.only({"name", "experiment", "paper", "text", "lower", "than", "by", "equal", "to", "within", "best", "among"});
  Statement s;
  s.name = e.text("name"), s.experiment = e.text("experiment"), s.paper = e.text("paper"), s.text = e.text("text");
  if (e.has("lower")) {
    s.lower = e.text("lower"), s.than = e.text("than");
    if (e.has("by")) s.by = e.number("by", 1);
  } else if (e.has("equal")) {
    s.equal = e.text("equal"), s.to = e.text("to"), s.within = e.number("within", 0);
  } else if (e.has("best")) {
    s.best = e.texts("best"), s.among = e.texts("among");
    for (const std::string& b : s.best)
      if (std::find(s.among.begin(), s.among.end(), b) == s.among.end()) e.fail("'" + b + "' of best is not in among");
  } else {
    e.fail("has neither lower, equal nor best");
  }
  return s;
}

Status check_settings(const std::vector<Experiment>& known, const std::string& experiment, std::vector<std::string> settings,
                      const std::string& where) {
  const auto found = std::find_if(known.begin(), known.end(), [&](const Experiment& e) { return e.name == experiment; });
  if (found == known.end()) return Error{ErrorCode::corrupt_data, where + ": there is no experiment '" + experiment + "'"};
  for (const std::string& s : settings)
    if (s != float_setting &&
        std::none_of(found->settings.begin(), found->settings.end(), [&](const Setting& k) { return k.name == s; }))
      return Error{ErrorCode::corrupt_data, where + ": experiment " + experiment + " has no setting '" + s + "'"};
  return Ok{};
}

}  // namespace

std::vector<std::string> Statement::settings() const {
  if (!lower.empty()) return {lower, than};
  if (!equal.empty()) return {equal, to};
  return among;
}

Result<Claims> read_claims(const std::string& path, const std::vector<Experiment>& known) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{ErrorCode::io, path + ": cannot be read"};
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const json whole = json::parse(text, nullptr, false);
  if (whole.is_discarded()) return Error{ErrorCode::corrupt_data, path + ": is not JSON"};
  Status status = Ok{};
  const Entry top(whole, path, status);
  top.only({"tables", "statements"});
  Claims claims;
  std::set<std::string> names;
  const auto new_name = [&](const Entry& e, const std::string& name) {
    if (!names.insert(name).second) e.fail("the name " + name + " is taken");
  };
  for (const json& j : top.list("tables")) {
    const std::string where = path + ": table " + std::to_string(claims.tables.size() + 1);
    const Entry e(j, where, status);
    ClaimTable t = table_of(e, where, status);
    new_name(e, t.name);
    ANYBIT_TRY_STATUS(status);
    std::vector<std::string> run{t.baseline};
    for (const ClaimRow& r : t.rows)
      if (r.not_run.empty()) run.push_back(r.setting);
    ANYBIT_TRY_STATUS(check_settings(known, t.experiment, run, where + " (" + t.name + ")"));
    if (std::none_of(t.rows.begin(), t.rows.end(), [&](const ClaimRow& r) { return r.setting == t.baseline; }))
      e.fail("the baseline '" + t.baseline + "' is not among the rows");
    claims.tables.push_back(std::move(t));
  }
  for (const json& j : top.list("statements")) {
    const std::string where = path + ": statement " + std::to_string(claims.statements.size() + 1);
    const Entry e(j, where, status);
    Statement s = statement_of(e);
    new_name(e, s.name);
    ANYBIT_TRY_STATUS(status);
    ANYBIT_TRY_STATUS(check_settings(known, s.experiment, s.settings(), where + " (" + s.name + ")"));
    claims.statements.push_back(std::move(s));
  }
  ANYBIT_TRY_STATUS(status);
  return claims;
}

}  // namespace reproduce
