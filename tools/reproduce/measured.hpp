#pragma once

#include <vector>

namespace reproduce {

/// A model on the evaluation text.
struct Measured {
  std::vector<double> nll;  ///< of every prediction, so that two models can be compared prediction by prediction
  double perplexity = 0, plus_minus = 0;
  double kl = 0, kl_plus_minus = 0;  ///< from the float model
  double bits_per_weight = 0;        ///< of the linears; 0: not counted
};

}  // namespace reproduce
