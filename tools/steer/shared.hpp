#pragma once
// Options and figures that the parts of `anybit steer`, and `anybit generate --steer`, share.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/model.hpp>
#include <anybit/steer/contrast.hpp>
#include <anybit/steer/mechanism.hpp>
#include <anybit/steer/steering_file.hpp>

namespace CLI {
class App;
}

namespace tool {

/// What stimuli are made of and how the model runs.
struct StimuliOptions {
  std::string model, data, tokenizer, pattern, json;
  double train = 0.5;
  anybit::Index position = -1, most = 0, threads = 0;
  std::uint64_t seed = 42;
};
/// The part's name is for errors. `share`: of pairs or statements that fit.
void add_stimuli_options(CLI::App& app, StimuliOptions& o);
/// The error in these options, or empty.
std::string error_in(StimuliOptions& o);

/// "0.512 [0.42, 0.60]": a share of `count` and its 95 % interval (Wilson).
std::string with_interval(double share, std::size_t count);

/// The first tokens of two texts, whose logits are compared; an error where one is empty or both begin alike.
anybit::Result<anybit::steer::TokenPair> token_pair(const anybit::model::Tokenizer& t, const std::string& wanted,
                                                    const std::string& other);

/// How a file steers.
struct SteerOptions {
  std::string file, op = "linear", blocks;
  std::string with, without;            ///< contrast vectors in place of a file
  std::optional<double> coefficient{};  ///< absent: 15 for an intervention; a direction that is not taken out has no default
  bool keep_norm = false;
};
void add_steer_options(CLI::App& app, SteerOptions& o, bool with_coefficient = true);

/// The error in these options, or empty.
std::string error_in(const SteerOptions& o);

/// The file, checked against the model.
anybit::Result<anybit::steer::SteeringFile> open_steering(const std::string& path, const anybit::model::Decoder& d);

/// "A-B" or "A", both ends counted; empty: the middle half. `option` is for the error.
struct BlockRange {
  anybit::Index first = 0, last = 0;
};
anybit::Result<BlockRange> block_range(std::string_view option, const std::string& text, anybit::Index blocks);

/// Taps of one file. Directions act at all positions, an intervention from `prompt_tokens - 1` on.
anybit::Result<std::vector<anybit::model::Tap>> steering_taps(const anybit::model::Decoder& d,
                                                              const anybit::steer::SteeringFile& file, const SteerOptions& o,
                                                              double coefficient, anybit::Index prompt_tokens);
/// Steers one text as the options say: by a file, whose taps stay, or by contrast vectors, which are computed for every piece.
class Steering {
 public:
  /// `prompt`: the first tokens of a text of at most `tokens`.
  static anybit::Result<Steering> start(const anybit::model::Model& m, const SteerOptions& o,
                                        std::span<const anybit::model::TokenId> prompt, anybit::Index tokens,
                                        anybit::ExecutorRef executor);
  /// For the run of the next tokens of the text.
  anybit::Result<std::vector<anybit::model::Tap>> next(std::span<const anybit::model::TokenId> ids);

 private:
  std::vector<anybit::model::Tap> fixed_;
  std::optional<anybit::steer::ContrastControl> contrast_;
  anybit::Index skipped_ = 0;
};

}  // namespace tool
