#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>

#include "integer_methods.hpp"
#include "integer_schemes.hpp"

namespace reproduce {

Method gptq(int bits, int group, bool act_order, anybit::Search search) {
  return for_scheme(bits, group,
                    [&]<class S>() { return one_by_one(anybit::Gptq<S>{.act_order = act_order, .search = search}, true); });
}

Experiment gptq_experiment() {
  Experiment e{"gptq", "GPTQ against rounding to nearest, by bits and groups", {}};
  for (const int bits : {4, 3}) {
    const std::string b = std::to_string(bits);
    e.settings.push_back(setting("rtn-" + b, b + " bits, one grid a row, nearest", round_to_nearest(bits, whole_row)));
    e.settings.push_back(setting("gptq-" + b, b + " bits, one grid a row, GPTQ", gptq(bits, whole_row)));
    e.settings.push_back(
        setting("gptq-" + b + "-act-order", b + " bits, one grid a row, GPTQ with act-order", gptq(bits, whole_row, true)));
  }
  // Not in the paper's tables: is it the grids, from the smallest to the largest weight of a row, that ruin 3 bits?
  constexpr auto mse = anybit::Search::mse;
  const std::string searched = "3 bits, one grid a row, searched, ";
  e.settings.push_back(setting("rtn-3-search", searched + "nearest", round_to_nearest(3, whole_row, anybit::Range::format, mse)));
  e.settings.push_back(setting("gptq-3-search", searched + "GPTQ", gptq(3, whole_row, false, mse)));
  e.settings.push_back(setting("gptq-3-search-act-order", searched + "GPTQ with act-order", gptq(3, whole_row, true, mse)));
  e.settings.push_back(setting("gptq-3-best", "3 bits, one grid a row, Gptq::best()",
                               for_scheme(3, whole_row, []<class S>() { return one_by_one(anybit::Gptq<S>::best(), true); })));
  e.settings.push_back(setting("gptq-3-g128", "3 bits, groups of 128, GPTQ", gptq(3, 128)));
  e.settings.push_back(setting("rtn-2-g128", "2 bits, groups of 128, nearest", round_to_nearest(2, 128)));
  e.settings.push_back(setting("gptq-2-g128", "2 bits, groups of 128, GPTQ", gptq(2, 128)));
  e.settings.push_back(setting("gptq-2-g32", "2 bits, groups of 32, GPTQ", gptq(2, 32)));
  return e;
}

}  // namespace reproduce
