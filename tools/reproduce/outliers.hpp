#pragma once
// A model that computes the same, but whose activations have outliers as OPT's do.

#include <anybit/model/run.hpp>

namespace reproduce {

struct Outliers {
  double share = 0.01;  ///< of the channels, the same in every block
  float factor = 64;    ///< how much larger they become
};

/// Multiplies the gains of some channels of every norm before a linear, and divides the columns that they meet. Our construction:
/// the products stay the same, so the weights that meet an outlier are small, which OPT's are not.
anybit::model::Decoder with_outliers(const anybit::model::Decoder& d, const Outliers& o = {});

}  // namespace reproduce
