#include "shared.hpp"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

#include "shared/parse.hpp"

namespace tool {

using namespace anybit;

void add_stimuli_options(CLI::App& app, StimuliOptions& o) {
  o.pattern = steer::truth_template;
  add_model(app, o.model);
  app.add_option("DATA", o.data, "CSV with the columns statement and label (0 or 1)")->required();
  app.add_option("--template", o.pattern, "Text around each statement, which stands at {}; \\n is a new line")->type_name("TEXT");
  app.add_option("--position", o.position, "Token that is read; negative counts from the end")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--train", o.train, "Share of the statements that fits, the rest tests")
      ->type_name("SHARE")
      ->capture_default_str();
  app.add_option("--most", o.most, "Only the first N statements of each label; 0: all")->type_name("N")->capture_default_str();
  app.add_option("--seed", o.seed, "Of the split and of the order inside pairs")->type_name("N")->capture_default_str();
  add_tokenizer(app, o.tokenizer);
  add_threads(app, o.threads);
  add_json(app, o.json, "the figures", "the text");
}

std::string error_in(StimuliOptions& o) {
  for (std::size_t at; (at = o.pattern.find("\\n")) != std::string::npos;) o.pattern.replace(at, 2, "\n");
  if (!(o.train > 0 && o.train < 1)) return "--train is " + std::to_string(o.train) + "; it must be above 0 and below 1";
  if (o.most < 0) return "--most is " + std::to_string(o.most) + "; it must be 1 or more, or 0 for all";
  if (const auto filled = steer::fill_template(o.pattern, ""); !filled) return filled.error().message;
  return {};
}

std::string with_interval(double share, std::size_t count) {
  const auto n = static_cast<double>(count);
  constexpr double z = 1.96;
  const double middle = (share + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  char out[64];
  std::snprintf(out, sizeof out, "%.3f [%.2f, %.2f]", share, middle - half, middle + half);
  return out;
}

Result<steer::TokenPair> token_pair(const model::Tokenizer& t, const std::string& wanted, const std::string& other) {
  steer::TokenPair pair;
  for (const auto& [text, to] : {std::pair(&wanted, &pair.wanted), std::pair(&other, &pair.other)}) {
    ANYBIT_TRY(const auto tokens, t.encode(*text));
    if (tokens.empty()) return Error{ErrorCode::invalid_argument, "--wanted and --other must not be empty"};
    *to = tokens.front();
  }
  if (pair.wanted == pair.other)
    return Error{ErrorCode::invalid_argument, "--wanted " + io::detail::shown(wanted) + " and --other " +
                                                  io::detail::shown(other) +
                                                  " begin with the same token: give texts that differ at once"};
  return pair;
}

void add_steer_options(CLI::App& app, SteerOptions& o, bool with_coefficient) {
  app.add_option("--steer", o.file, "Directions or an intervention of `anybit steer`")->type_name("FILE");
  if (with_coefficient) {
    app.add_option("--steer-coefficient", o.coefficient,
                   "Length of what a direction adds; alpha of an intervention (default 15); share of a contrast (default 1).\n"
                   "Negative steers away")
        ->type_name("C");
    app.add_option("--steer-with", o.with, "Contrast vectors in place of a file: every token's activations behind this text ...")
        ->type_name("TEXT");
    app.add_option("--steer-without", o.without, "... less those behind this one are added. Every token costs three runs")
        ->type_name("TEXT");
  }
  app.add_option("--steer-operator", o.op, "What a direction does: adds, adds by its side, or is taken out")
      ->check(CLI::IsMember({"linear", "piecewise", "projection"}))
      ->capture_default_str();
  app.add_option("--steer-blocks", o.blocks, "Blocks whose directions act, as 10-20; default: the middle half")->type_name("A-B");
  app.add_flag("--steer-keep-norm", o.keep_norm, "Activations keep their length");
}

std::string error_in(const SteerOptions& o) {
  if (o.with.empty() != o.without.empty()) return "--steer-with and --steer-without belong together";
  if (!o.file.empty() && !o.with.empty()) return "--steer and --steer-with exclude each other";
  if (!o.with.empty() && (o.keep_norm || o.op != "linear")) return "--steer-keep-norm and --steer-operator are for --steer FILE";
  if (o.file.empty() && o.with.empty() && (o.coefficient || o.keep_norm || !o.blocks.empty()))
    return "options of --steer need --steer FILE, or --steer-with and --steer-without";
  if (o.coefficient && !is_finite(*o.coefficient)) return "--steer-coefficient must be finite";
  return {};
}

Result<steer::SteeringFile> open_steering(const std::string& path, const model::Decoder& d) {
  ANYBIT_TRY(steer::SteeringFile file, steer::load_steering(path));
  if (const auto belongs = steer::check_belongs(file, d); !belongs) return in_context(belongs.error(), path);
  return file;
}

namespace {

/// The number at the start of `text`, which it takes off; -1 where there is none.
Index take_number(std::string_view& text) {
  Index n = -1;
  const std::from_chars_result r = std::from_chars(text.data(), text.data() + text.size(), n);
  if (r.ec != std::errc{}) return -1;
  text.remove_prefix(static_cast<std::size_t>(r.ptr - text.data()));
  return n;
}

}  // namespace

Result<BlockRange> block_range(std::string_view option, const std::string& text, Index blocks) {
  if (text.empty()) return BlockRange{blocks / 4, std::max(blocks / 4, 3 * blocks / 4 - 1)};
  std::string_view rest = text;
  BlockRange r{take_number(rest), 0};
  r.last = r.first;
  if (rest.starts_with('-')) {
    rest.remove_prefix(1);
    r.last = take_number(rest);
  }
  if (!rest.empty() || r.first < 0 || r.last < r.first || r.last >= blocks)
    return Error{ErrorCode::invalid_argument, std::string(option) + " is " + io::detail::shown(text) +
                                                  "; it must be A-B within 0-" + std::to_string(blocks - 1)};
  return r;
}

Result<std::vector<model::Tap>> steering_taps(const model::Decoder& d, const steer::SteeringFile& file, const SteerOptions& o,
                                              double coefficient, Index prompt_tokens) {
  if (!file.intervention.heads.empty())
    return steer::intervention_taps(d, file.intervention, coefficient, std::max<Index>(prompt_tokens - 1, 0));
  if (file.directions.empty())
    return Error{ErrorCode::invalid_argument, "the file holds probes alone: steer by directions or an intervention"};
  ANYBIT_TRY(const BlockRange range, block_range("--steer-blocks", o.blocks, d.config.blocks));
  std::vector<steer::BlockDirection> chosen;
  for (const steer::BlockDirection& b : file.directions)
    if (b.block >= range.first && b.block <= range.last) chosen.push_back(b);
  const steer::ControlOptions how{.op = o.op == "linear"      ? steer::Operator::linear
                                        : o.op == "piecewise" ? steer::Operator::piecewise
                                                              : steer::Operator::projection,
                                  .coefficient = coefficient,
                                  .keep_norm = o.keep_norm,
                                  .point = file.point};
  return steer::control_taps(d, chosen, how);
}

namespace {

/// Of the file and coefficient that the options name.
Result<std::vector<model::Tap>> taps_of_file(const model::Decoder& d, const SteerOptions& o, Index prompt_tokens) {
  ANYBIT_TRY(const steer::SteeringFile file, open_steering(o.file, d));
  const bool needs_length = file.intervention.heads.empty() && o.op != "projection";
  if (needs_length && !o.coefficient)
    return Error{ErrorCode::invalid_argument, o.file +
                                                  ": holds directions, which have no usual length: give --steer-coefficient "
                                                  "(anybit steer apply shows the effect of several)"};
  return steering_taps(d, file, o, o.coefficient.value_or(15), prompt_tokens);
}

}  // namespace

Result<Steering> Steering::start(const model::Model& m, const SteerOptions& o, std::span<const model::TokenId> prompt,
                                 Index tokens, ExecutorRef executor) {
  Steering out;
  if (!o.file.empty()) {
    ANYBIT_TRY(out.fixed_, taps_of_file(m.decoder, o, static_cast<Index>(prompt.size())));
  } else if (!o.with.empty()) {
    ANYBIT_TRY(const BlockRange range, block_range("--steer-blocks", o.blocks, m.decoder.config.blocks));
    std::vector<Index> blocks;
    for (Index b = range.first; b <= range.last; ++b) blocks.push_back(b);
    ANYBIT_TRY(const auto with, steer::encode_prompt(m.tokenizer, o.with));
    ANYBIT_TRY(const auto without, steer::encode_prompt(m.tokenizer, o.without));
    ANYBIT_TRY(out.contrast_, steer::ContrastControl::start(m.decoder, with, without, tokens, std::move(blocks),
                                                            o.coefficient.value_or(1), executor));
    const model::Vocabulary& v = m.tokenizer.vocabulary();
    out.skipped_ = v.add_bos && v.bos && !prompt.empty() && prompt.front() == *v.bos ? 1 : 0;
  }
  return out;
}

Result<std::vector<model::Tap>> Steering::next(std::span<const model::TokenId> ids) {
  if (!contrast_) return fixed_;
  return contrast_->taps(ids, std::exchange(skipped_, 0));
}

}  // namespace tool
