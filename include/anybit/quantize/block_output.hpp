#pragma once
// The output of a block's module behind siblings: the attention behind q, k and v, the MLP behind gate and up. AWQ's own code
// chooses scales by the error of that output. See docs/methods/awq.md.

#include <deque>
#include <span>
#include <utility>

#include <anybit/core/distance.hpp>
#include <anybit/model/decoder.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Of Site::attn_qkv or Site::ffn_gate_up.
class BlockOutput {
 public:
  static constexpr bool is_of(Site site) { return site == Site::attn_qkv || site == Site::ffn_gate_up; }

  /// The block as it stands is what errors are measured from: its o or down may be packed already. `inputs` are sequences of what
  /// enters the site, each from its first token on; they and `d`, which gives configuration and rotations, must outlive this.
  /// Only the half of the block that the site begins is read.
  BlockOutput(const Decoder& d, const Block& block, Site site, std::span<const Matrix> inputs, ExecutorRef executor = {})
      : d_(d), site_(site), executor_(executor) {
    ANYBIT_CHECK(is_of(site), "BlockOutput: of q, k and v or of gate and up");
    if (site == Site::attn_qkv)
      half_.q = block.q, half_.k = block.k, half_.v = block.v, half_.o = block.o;
    else
      half_.gate = block.gate, half_.up = block.up, half_.down = block.down;
    for (const Matrix& x : inputs) {
      Sequence& s = sequences_.emplace_back(d, x.view());
      run(half_, s);
      s.exact = s.scratch.delta;
    }
  }

  /// Mean squared error of the output, over all tokens, if q, k, v or gate, up have these weights.
  double error(std::span<const ConstMatrix> weights) {
    Block changed = half_;
    const auto set = [&](std::initializer_list<Linear*> linears) {
      ANYBIT_CHECK(weights.size() == linears.size(), "BlockOutput::error: one matrix a sibling");
      const ConstMatrix* w = weights.data();
      for (Linear* l : linears) *l = Linear(Matrix(*w++));
    };
    if (site_ == Site::attn_qkv)
      set({&changed.q, &changed.k, &changed.v});
    else
      set({&changed.gate, &changed.up});
    double sum = 0;
    Index values = 0;
    for (Sequence& s : sequences_) {
      run(changed, s);
      values += s.exact.extents().size();
      sum += lane_sum(s.exact.extents().size(), [a = s.exact.data(), b = std::as_const(s.scratch.delta).data()](Index i) {
        const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        return d * d;
      });
    }
    return values > 0 ? sum / static_cast<double>(values) : 0;
  }

 private:
  struct Sequence {
    Sequence(const Decoder& d, ConstMatrix x)
        : input(x), rope(d.config, 0, x.rows), cache(one_block(d.config), x.rows), scratch(d.config, x.rows) {}
    ConstMatrix input;
    Matrix exact;
    RopeTable rope;
    KvCache cache;
    BlockScratch scratch;
  };

  void run(const Block& b, Sequence& s) {
    const auto go_on = [](Site, ConstMatrix) { return true; };
    if (site_ == Site::ffn_gate_up) {
      run_mlp(b, d_, s.input, s.scratch, executor_, go_on);
    } else {
      s.cache.clear();
      run_attention(b, d_, s.rope, 0, s.cache, s.input, s.scratch, executor_, go_on);
    }
  }

  const Decoder& d_;
  Site site_;
  ExecutorRef executor_;
  Block half_;
  std::deque<Sequence> sequences_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
