#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>

#include "integer_methods.hpp"
#include "integer_schemes.hpp"

namespace reproduce {

Method gptq(int bits, int group, bool act_order) {
  return for_scheme(bits, group, [&]<class S>() { return one_by_one(anybit::Gptq<S>{.act_order = act_order}, true); });
}

Experiment gptq_experiment() {
  Experiment e{"gptq", "GPTQ against rounding to nearest, by bits and groups", {}};
  for (const int bits : {4, 3}) {
    const std::string b = std::to_string(bits);
    e.settings.push_back(setting("rtn-" + b, b + " bits, one grid a row, nearest", round_to_nearest(bits, row)));
    e.settings.push_back(setting("gptq-" + b, b + " bits, one grid a row, GPTQ", gptq(bits, row)));
    e.settings.push_back(
        setting("gptq-" + b + "-act-order", b + " bits, one grid a row, GPTQ with act-order", gptq(bits, row, true)));
  }
  e.settings.push_back(setting("gptq-3-g128", "3 bits, groups of 128, GPTQ", gptq(3, 128)));
  e.settings.push_back(setting("rtn-2-g128", "2 bits, groups of 128, nearest", round_to_nearest(2, 128)));
  e.settings.push_back(setting("gptq-2-g128", "2 bits, groups of 128, GPTQ", gptq(2, 128)));
  e.settings.push_back(setting("gptq-2-g32", "2 bits, groups of 32, GPTQ", gptq(2, 32)));
  return e;
}

}  // namespace reproduce
