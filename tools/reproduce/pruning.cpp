#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/sparse_gpt.hpp>
#include <anybit/prune/wanda.hpp>

#include "method.hpp"

namespace reproduce {

using namespace anybit;

namespace {
template <class P>
Method pruned(const P& pruner) {
  return [pruner](const Group& g) -> Result<Replaced> {
    Replaced r;
    for (const ConstMatrix& w : g.weights) {
      ANYBIT_TRY(auto p, pruner.prune(w, covers(P::needs, Needs::hessian) ? g.hessian : g.sums));
      r.weights.push_back(std::move(p.weights));
    }
    return r;
  };
}
}  // namespace

Experiment pruning_experiment() {
  Experiment e{"pruning", "Wanda and SparseGPT against magnitudes", {}};
  for (const Sparsity& s : {Sparsity{.share = 0.5}, Sparsity::n_of_m(4, 8), Sparsity::n_of_m(2, 4)}) {
    const std::string at = s.is_pattern() ? s.describe() : "50";
    e.settings.push_back(setting("magnitude-" + at, s.describe() + ", magnitude", pruned(Magnitude{s})));
    e.settings.push_back(setting("wanda-" + at, s.describe() + ", Wanda", pruned(Wanda{s})));
    e.settings.push_back(setting("sparsegpt-" + at, s.describe() + ", SparseGPT", pruned(SparseGpt{.sparsity = s})));
  }
  return e;
}

}  // namespace reproduce
