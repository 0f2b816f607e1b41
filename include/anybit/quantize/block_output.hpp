#pragma once
// The output of a block's module behind siblings: the attention behind q, k and v, the MLP behind gate and up. AWQ's own code
// chooses scales by the error of that output. See docs/methods/awq.md.

#include <deque>
#include <span>
#include <utility>
#include <vector>

#include <anybit/core/distance.hpp>
#include <anybit/model/run.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Of a site that a norm feeds, but the queries of cross-attention, whose output depends on a source as well.
class BlockOutput {
 public:
  static bool is_of(const SiteSpec& site) {
    return site.producer.kind == Producer::Kind::norm && site.point != Point::cross_in && !site.mixture;
  }

  /// The block as it stands is what errors are measured from: what the site's linears feed may be packed already. `inputs` are
  /// sequences of what enters the site, each from its first token on; they and `d`, which gives configuration and rotations, must
  /// outlive this.
  BlockOutput(const Decoder& d, std::span<const Weight> block, SiteId site, std::span<const Matrix> inputs,
              ExecutorRef executor = {})
      : blueprint_(*d.blueprint),
        site_(blueprint_[site]),
        readers_(blueprint_.scaled_readers(site)),
        executor_(executor),
        block_(block.begin(), block.end()) {
    ANYBIT_CHECK(is_of(site_), "BlockOutput: see is_of()");
    for (const Matrix& x : inputs) {
      Sequence& s = sequences_.emplace_back(d, site_.block, x.view());
      run(block_, s);
      s.exact = s.output;
    }
  }

  /// Mean squared error of the output, over all tokens, if Blueprint::scaled_readers() of the site have these weights.
  double error(std::span<const ConstMatrix> weights) {
    ANYBIT_CHECK(weights.size() == readers_.size(), "BlockOutput::error: one matrix per sibling");
    BlockWeights changed = block_;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      nn::Linear& linear = changed[place(readers_[i]) - blueprint_.blocks[static_cast<std::size_t>(site_.block)]].linear;
      linear = linear.with_weights(nn::Linear(Matrix(weights[i])));
    }
    double sum = 0;
    Index values = 0;
    for (Sequence& s : sequences_) {
      run(changed, s);
      values += s.exact.extents().size();
      sum += lane_sum(s.exact.extents().size(), [a = s.exact.data(), b = std::as_const(s.output).data()](Index i) {
        const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        return d * d;
      });
    }
    return values > 0 ? sum / static_cast<double>(values) : 0;
  }

 private:
  struct Sequence {
    Sequence(const Decoder& d, Index block, ConstMatrix x)
        : input(x),
          residual(x.rows, d.config.dim),
          output(x.rows, d.config.dim),
          pass(d, x.rows, 0, stack_of(d.config, block)),
          cache({1, d.config.of(block).kv_heads, d.config.of(block).head_dim}, x.rows) {}
    ConstMatrix input;
    Matrix residual;  ///< zeros: what the norm makes of it is replaced by the input
    Matrix exact, output;
    Pass pass;
    nn::KvCache cache;
  };

  /// From the site to its effect.
  void run(std::span<const Weight> block, Sequence& s) {
    const Tap taps[] = {
        {site_.block, site_.point, [&](MutableMatrix x, TokenRange) { as_eigen(x) = as_eigen(s.input); }},
        {site_.block, site_.effect, [&](MutableMatrix x, TokenRange) { as_eigen(s.output.view()) = as_eigen(x); }}};
    s.cache.clear();
    s.pass.block(block, site_.block, 0, s.cache, s.residual.view(), {executor_, taps}, site_.point, site_.effect);
  }

  const Blueprint& blueprint_;
  const SiteSpec& site_;
  std::vector<WeightId> readers_;
  ExecutorRef executor_;
  BlockWeights block_;
  std::deque<Sequence> sequences_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
