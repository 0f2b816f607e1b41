#pragma once
// Shared by all experiments: the model at hand, what it was seen to do on the calibration text, and the yardstick, perplexity
// on the evaluation text by the papers' protocol.

#include <memory>
#include <string>

#include <anybit/evaluate/model.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/load.hpp>

#include "lab_options.hpp"
#include "measured.hpp"
#include "method.hpp"
#include "shared/progress.hpp"

namespace reproduce {

/// A float model with the statistics of its inputs.
struct Source {
  anybit::model::Decoder decoder;
  anybit::model::ModelStats stats;
};

struct Changed {
  anybit::model::Decoder decoder;
  double bits_per_weight = 0;  ///< of the linears; 0: not counted
};

class Lab {
 public:
  /// Loads the model, cuts the texts into windows, and runs the float model over both.
  /// `settings` is how many will follow, for the time that is left.
  static anybit::Result<std::unique_ptr<Lab>> open(const LabOptions& options, std::size_t settings, tool::Progress& progress);

  const Source& source() const { return source_; }
  const Measured& float_model() const { return float_model_; }
  const std::string& model_name() const { return name_; }
  anybit::Index evaluated() const { return windows_.scored(); }
  anybit::Index window() const { return windows_.length; }
  anybit::Index calibrated() const { return calibration_.count() * calibration_.length; }
  void begin(std::string step) const { progress_.begin(std::move(step), 1, steps_); }
  void end() const { progress_.end(); }

  /// The same for another decoder of this shape, on the same texts.
  anybit::Result<Source> calibrate(anybit::model::Decoder d) const;
  /// `source` with every linear of its blocks treated by `method`. Embedding, head and norms stay as they are.
  anybit::Result<Changed> change(const Source& source, const Method& method) const;
  anybit::Result<Measured> measure(const Changed& changed) const;

 private:
  Lab(const LabOptions& options, std::size_t settings, tool::Progress& progress);

  double steps_;  ///< of the progress, all of about one length
  tool::Progress& progress_;
  anybit::ThreadPool pool_;
  anybit::ExecutorRef executor_;
  std::string name_;
  Source source_;
  anybit::evaluate::Windows windows_, calibration_;
  anybit::evaluate::ReferenceLogits reference_;
  Measured float_model_;
};

}  // namespace reproduce
