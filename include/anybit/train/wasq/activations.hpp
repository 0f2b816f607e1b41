#pragma once
// Activations on Superfloat's grid while a model trains or runs: taps at the inputs of linears, through which gradients pass
// straight.

#include <anybit/core/macros_begin.hpp>

#include <vector>

#include <anybit/model/architecture.hpp>
#include <anybit/train/wasq/datapath.hpp>

namespace anybit::train::wasq {
inline namespace ANYBIT_CODE {

/// For LossOptions::taps and Run::taps. `scale` is none (as published: whatever exceeds 1 is clipped) or token.
inline std::vector<model::Tap> activation_taps(int bits, SiteScale scale) {
  ANYBIT_CHECK(scale == SiteScale::none || scale == SiteScale::token, "activation_taps: other scales need calibration");
  std::vector<model::Tap> out;
  for (const model::Point point : {model::Point::attn_in, model::Point::head_out, model::Point::mlp_in, model::Point::mlp_hidden})
    out.push_back({model::Tap::every_block, point,
                   [site = Site(SuperfloatGrid{bits}, scale)](MutableMatrix x, model::TokenRange) { site.round(x); }});
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::wasq

#include <anybit/core/macros_end.hpp>
