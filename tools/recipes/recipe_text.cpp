#include "recipe_text.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <vector>

namespace tool {

using namespace anybit;

namespace {

/// "damp=0.01", "act_order", "search(steps=50, norm=2)", "50% of the matrix".
struct Option {
  std::string_view name, value;
  std::size_t at = 0, value_at = 0;
  std::vector<Option> inner;
};

struct Term {
  std::string_view name;
  std::size_t at = 0;
  std::vector<Option> options;
};

/// What stands between the marks of the grammar: | ( ) , = and, outside parentheses, blanks.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  std::string_view text() const { return text_; }
  std::size_t place() {
    skip_blanks();
    return at_;
  }
  bool at_end() { return place() == text_.size(); }
  bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::string_view word() { return until("|(),= \t"); }
  Error error(std::string message) { return recipe_error(text_, place(), std::move(message)); }

  Result<Term> term(std::string_view expected) {
    Term t;
    t.at = place();
    t.name = word();
    if (t.name.empty()) return error("here must stand " + std::string(expected));
    if (take('(')) {
      ANYBIT_TRY(t.options, options());
    }
    return t;
  }

 private:
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  std::string_view until(std::string_view marks) {
    const std::size_t begin = place();
    at_ = std::min(text_.find_first_of(marks, begin), text_.size());
    std::string_view found = text_.substr(begin, at_ - begin);
    while (found.ends_with(' ')) found.remove_suffix(1);
    return found;
  }
  /// Behind the opening parenthesis, to the closing one. `depth`: search(...) is the deepest that there is.
  Result<std::vector<Option>> options(int depth = 0) {
    std::vector<Option> out;
    if (take(')')) return out;
    do {
      Option o;
      o.at = place();
      o.name = until("|(),=");
      if (o.name.empty()) return error("here must stand an option");
      if (take('=')) {
        o.value_at = place();
        o.value = until("|(),=");
        if (o.value.empty()) return error("here must stand the value of " + std::string(o.name));
      }
      if (depth == 0 && take('(')) {
        ANYBIT_TRY(o.inner, options(1));
      }
      out.push_back(std::move(o));
    } while (take(','));
    if (!take(')')) return error("here must stand a comma or a closing parenthesis");
    return out;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

/// Takes the options of one term, each by its name; what is left over at the end is an error that lists the names.
class OptionReader {
 public:
  OptionReader(std::string_view text, std::string_view of, const std::vector<Option>& options) : text_(text), of_(of) {
    for (const Option& o : options) left_.push_back(&o);
  }

  /// The first option for which `accepts(option)`, taken; null if there is none. `shown` is how errors call it.
  template <class Accepts>
  const Option* take(const std::string& shown, Accepts accepts) {
    known_ += (known_.empty() ? "" : ", ") + shown;
    const auto found = std::find_if(left_.begin(), left_.end(), [&](const Option* o) { return accepts(*o); });
    if (found == left_.end()) return nullptr;
    const Option* const o = *found;
    left_.erase(found);
    return o;
  }
  const Option* take(const std::string& name) {
    return take(name, [&](const Option& o) { return o.name == name; });
  }
  void flag(const std::string& name, bool& to, bool value = true) {
    if (const Option* const o = take(name, [&](const Option& x) { return x.name == name && x.value.empty(); })) {
      static_cast<void>(o);
      to = value;
    }
  }
  template <class Number>
  void number(const std::string& name, Number& to) {
    const Option* const o = take(name + "=N", [&](const Option& x) { return x.name == name; });
    if (!o) return;
    Number value{};
    const auto [end, failed] = std::from_chars(o->value.data(), o->value.data() + o->value.size(), value);
    if (failed != std::errc{} || end != o->value.data() + o->value.size()) {
      const bool whole = std::is_integral_v<Number>;
      fail(recipe_error(text_, o->value.empty() ? o->at : o->value_at,
                        name + " needs " + (whole ? "an integer" : "a number") + ", as in " + name + (whole ? "=1" : "=0.5")));
      return;
    }
    to = value;
  }
  void fail(Error e) {
    if (status_) status_ = std::move(e);
  }
  std::string_view text() const { return text_; }
  /// After all known options were asked for.
  Status finish() const {
    if (!status_ || left_.empty()) return status_;
    return recipe_error(text_, left_.front()->at,
                        std::string(of_) + " has no option '" + std::string(left_.front()->name) + "'" +
                            (known_.empty() ? " and no others" : "; it has " + known_));
  }

 private:
  std::string_view text_, of_;
  std::vector<const Option*> left_;
  std::string known_;
  Status status_ = Ok{};
};

/// What GridFit::describe() writes.
void read_grid(OptionReader& from, GridFit& fit, bool* weighted) {
  bool symmetric = false, min_max = false;
  from.flag("symmetric range", symmetric);
  from.flag("min_max range", min_max);
  if (symmetric) fit.range = Range::symmetric;
  if (min_max) fit.range = Range::min_max;
  constexpr std::pair<std::string_view, Search> searches[] = {{"search", Search::mse},
                                                              {"least squares", Search::least_squares},
                                                              {"half-quadratic search", Search::half_quadratic},
                                                              {"neuqi", Search::neuqi}};
  const std::string_view prefix = "weighted ";
  for (const auto& entry : searches) {
    const std::string_view name = entry.first;
    const Search search = entry.second;
    const Option* const o = from.take(std::string(name), [&](const Option& x) {
      return x.name == name || (weighted && x.name.starts_with(prefix) && x.name.substr(prefix.size()) == name);
    });
    if (!o) continue;
    fit.search = search;
    if (weighted) *weighted = o->name.starts_with(prefix);
    OptionReader inner(from.text(), o->name, o->inner);
    inner.number("shrink", fit.shrink.shrink);
    inner.number("steps", fit.shrink.steps);
    if (search == Search::mse) inner.number("norm", fit.shrink.norm);
    if (search == Search::half_quadratic) {
      inner.number("norm", fit.half_quadratic.norm);
      inner.number("beta", fit.half_quadratic.beta);
      inner.number("growth", fit.half_quadratic.growth);
      inner.number("rounds", fit.half_quadratic.rounds);
    }
    if (auto done = inner.finish(); !done) from.fail(done.error());
  }
}

/// "50%", "2:4", and with `compare` also what follows a percentage.
bool read_sparsity(const Option& o, Sparsity& sparsity, Compare* compare) {
  const char *begin = o.name.data(), *end = begin + o.name.size();
  double percent = 0;
  if (const auto [rest, failed] = std::from_chars(begin, end, percent); failed == std::errc{} && rest != end && *rest == '%') {
    const std::string_view more(rest + 1, static_cast<std::size_t>(end - rest - 1));
    sparsity.share = percent / 100;
    if (more.empty()) return true;
    if (!compare) return false;
    if (more == " of each row")
      *compare = Compare::row;
    else if (more == " of the matrix")
      *compare = Compare::matrix;
    else if (more == " by row shares")
      *compare = Compare::row_share;
    else
      return false;
    return true;
  }
  int keep = 0, of = 0;
  const auto [middle, failed] = std::from_chars(begin, end, keep);
  if (failed != std::errc{} || middle == end || *middle != ':') return false;
  const auto [last, failed_too] = std::from_chars(middle + 1, end, of);
  if (failed_too != std::errc{} || last != end) return false;
  sparsity = Sparsity::n_of_m(keep, of);
  return true;
}

void read_sparsity(OptionReader& from, Sparsity& sparsity, Compare* compare) {
  from.take(compare ? "50%, 50% of each row, 50% of the matrix, 50% by row shares, 2:4" : "50%, 2:4",
            [&](const Option& o) { return o.value.empty() && read_sparsity(o, sparsity, compare); });
}

void read_feedback(OptionReader& from, float& damp, Index& block, float& dead_diagonal) {
  from.number("damp", damp);
  from.number("block", block);
  from.number("dead_diagonal", dead_diagonal);
}

gptq::Options gptq_defaults(bool best) {
  gptq::Options o{.damp = 0.01f,
                  .block = 128,
                  .dead_diagonal = 0,
                  .act_order = false,
                  .static_groups = false,
                  .fit = {},
                  .group_aware = best,
                  .fresh_grids = best,
                  .weighted = best,
                  .refine = best ? 10 : 0,
                  .drift = 0,
                  .whole_drift = false};
  if (best) o.fit.search = Search::mse, o.fit.shrink = {0.8f, 50, 2};
  return o;
}

Result<gptq::Options> read_gptq(std::string_view text, const Term& t) {
  OptionReader from(text, t.name, t.options);
  bool best = false;
  from.flag("best", best);
  gptq::Options o = gptq_defaults(best);
  read_feedback(from, o.damp, o.block, o.dead_diagonal);
  from.flag("act_order", o.act_order);
  from.flag("static_groups", o.static_groups);
  from.flag("group_aware", o.group_aware);
  from.flag("fresh_grids", o.fresh_grids);
  read_grid(from, o.fit, &o.weighted);
  from.number("refine", o.refine);
  from.number("drift", o.drift);
  from.flag("whole_drift", o.whole_drift);
  ANYBIT_TRY_STATUS(from.finish());
  return o;
}

Result<learned::Options> read_learned(std::string_view text, const Term& t) {
  learned::Options o;
  OptionReader from(text, t.name, t.options);
  from.number("iterations", o.iterations);
  from.number("rate", o.rate);
  from.number("ends_rate", o.ends_rate);
  from.flag("ends as found", o.learn_ends, false);
  from.flag("from gptq", o.from_gptq);
  from.number("drift", o.drift);
  read_grid(from, o.fit, nullptr);
  ANYBIT_TRY_STATUS(from.finish());
  return o;
}

/// How trellis codes are searched.
void read_search(OptionReader& from, ldlq::Options& to) {
  from.number("gain", to.gain);
  from.flag("exact", to.exact);
}

Result<NearestOptions> read_nearest(std::string_view text, const Term& t) {
  NearestOptions n;
  OptionReader from(text, t.name, t.options);
  read_grid(from, n.fit, &n.weighted);
  read_search(from, n.trellis);
  ANYBIT_TRY_STATUS(from.finish());
  for (const Option& o : t.options) (o.name == "gain" || o.name == "exact" ? n.of_trellis : n.grids) = true;
  return n;
}

Result<ldlq::Options> read_ldlq(std::string_view text, const Term& t) {
  ldlq::Options o;
  OptionReader from(text, t.name, t.options);
  from.number("damp", o.damp);
  from.flag("unweighted", o.weighted, false);
  from.flag("scales as found", o.refine_scales, false);
  read_search(from, o);
  ANYBIT_TRY_STATUS(from.finish());
  return o;
}

Result<SparseGptqOptions> read_sparse_gptq(std::string_view text, const Term& t) {
  SparseGptqOptions s;
  OptionReader from(text, t.name, t.options);
  read_sparsity(from, s.pruner.sparsity, nullptr);
  read_feedback(from, s.pruner.damp, s.pruner.block, s.pruner.dead_diagonal);
  from.flag("pruned_grids", s.pruned_grids);
  read_grid(from, s.fit, nullptr);
  ANYBIT_TRY_STATUS(from.finish());
  return s;
}

Result<PrunedNearestOptions> read_pruned(std::string_view text, const Term& pruner, const Term& nearest) {
  PrunedNearestOptions p;
  OptionReader from(text, pruner.name, pruner.options);
  if (pruner.name == "sparsegpt") {
    SparseGpt s;
    read_sparsity(from, s.sparsity, nullptr);
    read_feedback(from, s.damp, s.block, s.dead_diagonal);
    p.pruner = s;
  } else if (pruner.name == "wanda") {
    Wanda w;
    read_sparsity(from, w.sparsity, &w.compare);
    p.pruner = w;
  } else {
    Magnitude m;
    read_sparsity(from, m.sparsity, &m.compare);
    p.pruner = m;
  }
  ANYBIT_TRY_STATUS(from.finish());
  OptionReader grids(text, nearest.name, nearest.options);
  read_grid(grids, p.fit, nullptr);
  ANYBIT_TRY_STATUS(grids.finish());
  return p;
}

Result<Awq> read_awq(std::string_view text, const Term& t) {
  Awq a;
  OptionReader from(text, t.name, t.options);
  bool duo = false, both = false;
  from.flag("duo", duo);
  from.flag("duo or not", both);
  if (duo) a.scaling = AwqScaling::duo;
  if (both) a.scaling = AwqScaling::both;
  from.flag("for rounding", a.for_algorithm, false);
  from.flag("block output", a.block_output);
  from.flag("no clip", a.clip, false);
  from.number("ratios", a.ratios);
  from.number("clip_steps", a.clip_steps);
  ANYBIT_TRY_STATUS(from.finish());
  return a;
}

Status read_smooth_quant(const Term& t, RecipeText& to) {
  OptionReader from(to.text, t.name, t.options);
  bool searched = false;
  from.flag("searched", searched);
  if (searched) {
    SmoothQuantSearch s;
    from.flag("static", s.static_activations);
    from.number("steps", s.steps);
    from.number("tokens", s.tokens);
    to.transform = s;
  } else {
    SmoothQuant s;
    from.number("alpha", s.alpha);
    to.transform = s;
  }
  return from.finish();
}

Result<model::RotationOptions> read_rotation(std::string_view text, const Term& t) {
  model::RotationOptions r;
  if (t.options.empty()) return r;
  OptionReader from(text, t.name, t.options);
  r.residual = r.values = r.ffn_down = false;
  from.flag("residual", r.residual);
  from.flag("values", r.values);
  from.flag("attn_output", r.attn_output);
  from.flag("ffn_down", r.ffn_down);
  from.number("seed", r.seed);
  ANYBIT_TRY_STATUS(from.finish());
  return r;
}

Result<train::LearnedBlocks> read_blocks_learned(std::string_view text, const Term& t) {
  train::LearnedBlocks b;
  OptionReader from(text, t.name, t.options);
  from.number("iterations", b.iterations);
  from.number("rate", b.rate);
  from.number("ends_rate", b.ends_rate);
  from.flag("ends as found", b.learn_ends, false);
  from.number("batch", b.batch);
  from.number("seed", b.seed);
  ANYBIT_TRY_STATUS(from.finish());
  return b;
}

constexpr std::string_view algorithms =
                               "exact, nearest, gptq, learned, ldlq, sparsegptq, or a pruner (magnitude, wanda, sparsegpt) then "
                               "nearest",
                           transforms = "blocks_learned, rotated, smooth_quant, awq";

Status read_transform(const Term& t, RecipeText& to) {
  const auto misplaced = [&](std::string message) { return recipe_error(to.text, t.at, std::move(message)); };
  if (t.name == "blocks_learned") {
    if (to.blocks || to.rotation || to.transform.index() != 0)
      return misplaced("blocks_learned stands once, before all others: it changes what they leave of each block");
    to.blocks_at = t.at;
    ANYBIT_TRY(to.blocks, read_blocks_learned(to.text, t));
    return Ok{};
  }
  if (t.name == "rotated") {
    if (to.rotation || to.transform.index() != 0)
      return misplaced("rotated stands once, before all others: it changes the whole model");
    ANYBIT_TRY(to.rotation, read_rotation(to.text, t));
    return Ok{};
  }
  if (t.name == "guided") {
    Index groups = 4;
    OptionReader from(to.text, t.name, t.options);
    from.number("groups", groups);
    ANYBIT_TRY_STATUS(from.finish());
    return misplaced("guided applies to a whole run: leave it out here and give --guided " + std::to_string(groups));
  }
  if (t.name != "awq" && t.name != "smooth_quant")
    return misplaced("'" + std::string(t.name) + "' is no transform; those are " + std::string(transforms));
  if (to.transform.index() != 0) return misplaced("this program has recipes of one transform beside rotated and blocks_learned");
  to.transform_at = t.at;
  if (t.name == "smooth_quant") return read_smooth_quant(t, to);
  ANYBIT_TRY(to.transform, read_awq(to.text, t));
  return Ok{};
}

/// The algorithm whose first term has been read.
Status read_algorithm(const Term& t, Reader& reader, RecipeText& to) {
  to.algorithm_at = t.at;
  if (t.name == "exact") {
    to.algorithm = ExactOptions{};
    ANYBIT_TRY_STATUS(OptionReader(to.text, t.name, t.options).finish());
  } else if (t.name == "nearest") {
    ANYBIT_TRY(to.algorithm, read_nearest(to.text, t));
  } else if (t.name == "gptq") {
    ANYBIT_TRY(to.algorithm, read_gptq(to.text, t));
  } else if (t.name == "learned") {
    ANYBIT_TRY(to.algorithm, read_learned(to.text, t));
  } else if (t.name == "ldlq") {
    ANYBIT_TRY(to.algorithm, read_ldlq(to.text, t));
  } else if (t.name == "sparsegptq") {
    ANYBIT_TRY(to.algorithm, read_sparse_gptq(to.text, t));
  } else if (t.name == "magnitude" || t.name == "wanda" || t.name == "sparsegpt") {
    const std::size_t at = reader.place();
    if (reader.word() != "then")
      return recipe_error(to.text, at, "here must stand 'then nearest': " + std::string(t.name) + " only prunes");
    ANYBIT_TRY(const Term nearest, reader.term("nearest"));
    if (nearest.name != "nearest") return recipe_error(to.text, nearest.at, "behind 'then' only nearest can stand");
    ANYBIT_TRY(to.algorithm, read_pruned(to.text, t, nearest));
  } else {
    const bool transform = transforms.find(t.name) != std::string_view::npos;
    return recipe_error(to.text, t.at,
                        transform ? "'" + std::string(t.name) + "' is a transform: a bar and an algorithm must follow"
                                  : "'" + std::string(t.name) + "' is no algorithm; those are " + std::string(algorithms));
  }
  return Ok{};
}

}  // namespace

Error recipe_error(std::string_view text, std::size_t at, std::string message) {
  return {ErrorCode::invalid_argument, "recipe, character " + std::to_string(at + 1) + ": " + std::move(message) + "\n  " +
                                           std::string(text) + "\n  " + std::string(at, ' ') + "^"};
}

bool is_recipe_text(std::string_view text) { return text.find_first_of(" |/(") != std::string_view::npos; }

Result<RecipeText> parse_recipe(std::string_view text) {
  RecipeText out;
  out.text = std::string(text);
  Reader reader(out.text);
  for (;;) {
    ANYBIT_TRY(const Term t,
               reader.term("a transform (" + std::string(transforms) + ") or an algorithm (" + std::string(algorithms) + ")"));
    if (!reader.take('|')) {
      ANYBIT_TRY_STATUS(read_algorithm(t, reader, out));
      break;
    }
    ANYBIT_TRY_STATUS(read_transform(t, out));
  }
  out.scheme_at = reader.place();
  out.scheme = std::string(reader.word());
  if (out.scheme.empty()) return reader.error("here must stand a scheme, such as uint4/g128/f16");
  if (reader.at_end()) return out;
  const std::size_t at = reader.place();
  const std::string_view activations = reader.word();
  const auto* const known = std::find(compute_names.begin(), compute_names.end(), activations);
  if (known == compute_names.end() || !reader.at_end()) {
    std::string all;
    for (const std::string_view n : compute_names) all += (all.empty() ? "" : ", ") + std::string(n);
    return recipe_error(out.text, known == compute_names.end() ? at : reader.place(),
                        "here the recipe can end; behind the scheme may stand how activations are computed with: " + all);
  }
  out.compute = static_cast<Compute>(known - compute_names.begin());
  return out;
}

}  // namespace tool
