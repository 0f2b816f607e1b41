#pragma once
// Learned rounding of whole decoder blocks (SignRound, Cheng et al., 2023, arXiv:2309.05516): the offsets and ends of all linears
// of a block move by the signs of the gradient of the block's output error. See docs/methods/learned_rounding.md#whole-blocks.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <anybit/quantize/any_recipe.hpp>
#include <anybit/train/data_order.hpp>
#include <anybit/train/decoder_tape.hpp>
#include <anybit/train/learned_blocks_options.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

namespace detail {

/// Mean over tokens and channels of (y - y0)^2, y the block's output of the quantized model so far and y0 the float model's.
class BlockLearner {
 public:
  BlockLearner(const LearnedBlocks& options, const model::BlockToLearn& b)
      : o_(options), b_(b), d_(b.decoder), gradients_(d_.weights.size()) {
    for (const auto& layer : b.layers) {
      Layer& l = layers_.emplace_back();
      l.opened = layer.recipe->open_codes(*layer.linear->packed());
      const Extents e = l.opened.codes->extents;
      const Index rows = dense::task_rows(e.rows);
      for (Index r = 0; r < e.rows; r += rows) {
        l.begins.push_back(r);
        l.rows.emplace_back(layer.weights.view(), *l.opened.codes, r, std::min(r + rows, e.rows), o_.learn_ends, true);
      }
      gradients_[model::place(layer.id)].linear.weight = Matrix(e.rows, e.cols);
      nn::Linear& linear = d_[layer.id].linear;
      linear = linear.with_weights(nn::Linear(Matrix(e.rows, e.cols)));
    }
  }

  std::string learn() {
    const int between = std::max(1, o_.iterations / 8);
    const Index count = static_cast<Index>(b_.inputs.size()), batch = std::min(o_.batch, count);
    round();
    const double first = loss_of_all();
    double best = first;
    std::vector<Index> order;
    for (int i = 0; i < o_.iterations; ++i) {
      std::vector<Index> windows;
      while (static_cast<Index>(windows.size()) < batch) {
        if (order.empty()) order = epoch_order(count, o_.seed, epoch_++);
        windows.push_back(order.back()), order.pop_back();
      }
      for (const auto& layer : b_.layers) {
        Matrix& g = gradients_[model::place(layer.id)].linear.weight;
        std::fill_n(g.data(), g.extents().size(), 0.0f);
      }
      pass(windows, true);
      const float share = 1 - static_cast<float>(i) / static_cast<float>(o_.iterations);
      step(o_.options().first_rate() * share, o_.options().first_ends_rate() * share);
      round();
      if ((i + 1) % between != 0 && i + 1 != o_.iterations) continue;
      const double now = loss_of_all();
      if (!(now < best)) continue;
      best = now;
      for (Layer& l : layers_)
        for (std::size_t k = 0; k < l.rows.size(); ++k)
          for (Index r = 0; r < l.rows[k].values().rows; ++r) l.rows[k].keep(r);
    }
    for (std::size_t i = 0; i < layers_.size() && best < first; ++i) {
      nn::Linear& linear = *b_.layers[i].linear;
      linear = linear.with_weights(nn::Linear(layers_[i].opened.pack(), linear.activations()));
    }
    return "blocks_learned: " + gptq::detail::number(first > 0 ? best / first : 1) +
           " times the squared output error of the block before";
  }

 private:
  struct Layer {
    model::OpenedCodes opened;
    std::vector<Index> begins;
    std::vector<learned::Rows> rows;  ///< tiles of them
  };

  /// Calls f(layer, tile) for every tile, in parallel.
  template <class F>
  void for_each_tile(F f) {
    std::vector<std::pair<std::size_t, std::size_t>> tiles;
    for (std::size_t i = 0; i < layers_.size(); ++i)
      for (std::size_t k = 0; k < layers_[i].rows.size(); ++k) tiles.emplace_back(i, k);
    b_.executor.parallel_for(static_cast<Index>(tiles.size()), 1, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) f(tiles[static_cast<std::size_t>(t)].first, tiles[static_cast<std::size_t>(t)].second);
    });
  }
  /// Into the weights that the tape reads.
  void round() {
    std::vector<MutableMatrix> to;
    for (const auto& layer : b_.layers) to.push_back(d_[layer.id].linear.own_dense());
    for_each_tile([&](std::size_t i, std::size_t k) {
      learned::Rows& rows = layers_[i].rows[k];
      rows.round();
      const ConstMatrix q = rows.values();
      for (Index r = 0; r < q.rows; ++r) std::copy_n(q.row(r).data(), q.cols, to[i].row(layers_[i].begins[k] + r).data());
    });
  }
  void step(float rate, float ends_rate) {
    for_each_tile([&](std::size_t i, std::size_t k) {
      const Index begin = layers_[i].begins[k], end = begin + layers_[i].rows[k].values().rows;
      const ConstMatrix g = std::as_const(gradients_[model::place(b_.layers[i].id)].linear.weight).view();
      layers_[i].rows[k].step(g.row_range(begin, end), rate, ends_rate);
    });
  }
  /// The sum of squares over some windows; with `backward` also its gradient, up to a factor.
  double pass(std::span<const Index> windows, bool backward) {
    std::vector<Index> lengths;
    Index tokens = 0;
    const auto at = [](const std::vector<ConstMatrix>& all, Index w) { return all[static_cast<std::size_t>(w)]; };
    for (const Index w : windows) lengths.push_back(at(b_.inputs, w).rows), tokens += lengths.back();
    Matrix x(tokens, d_.config.dim);
    Index begin = 0;
    for (const Index w : windows) {
      const ConstMatrix from = at(b_.inputs, w);
      for (Index t = 0; t < from.rows; ++t) std::copy_n(from.row(t).data(), from.cols, x.view().row(begin + t).data());
      begin += from.rows;
    }
    DecoderTape tape(d_, lengths, {}, {}, b_.executor);
    BlockTape kept;
    tape.forward(b_.block, x.view(), kept);
    double sum = 0;
    begin = 0;
    for (const Index w : windows) {
      const ConstMatrix target = at(b_.targets, w);
      for (Index t = 0; t < target.rows; ++t)
        for (Index j = 0; j < target.cols; ++j) {
          float& v = x(begin + t, j);
          v -= target(t, j);
          sum += double{v} * double{v};
        }
      begin += target.rows;
    }
    if (backward) tape.backward(b_.block, kept, x.view(), gradients_);
    return sum;
  }
  double loss_of_all() {
    double sum = 0;
    const Index count = static_cast<Index>(b_.inputs.size());
    for (Index first = 0; first < count; first += o_.batch) {
      std::vector<Index> windows;
      for (Index w = first; w < std::min(first + o_.batch, count); ++w) windows.push_back(w);
      sum += pass(windows, false);
    }
    return sum;
  }

  const LearnedBlocks& o_;
  const model::BlockToLearn& b_;
  model::Decoder d_;
  Gradients gradients_;
  std::vector<Layer> layers_;
  std::uint64_t epoch_ = 0;
};

}  // namespace detail

/// `recipe`, and after it each block as a whole; an error if its weights have no codes of their own. It aims at the float model's
/// outputs, so calibration must go block by block. The same bytes for any number of threads.
inline Result<model::ModelRecipe> learned_blocks(std::string name, model::ModelRecipe recipe, const LearnedBlocks& options = {}) {
  ANYBIT_TRY_STATUS(options.check());
  if (!recipe.open_codes || recipe.column_order)
    return Error{ErrorCode::unsupported, "blocks_learned: recipe " + recipe.name +
                                             (recipe.column_order ? " stores an order of columns: leave out act_order"
                                                                  : " has no codes of single weights")};
  recipe.name = std::move(name);
  recipe.description = options.describe() + " | " + recipe.description;
  recipe.needs = recipe.needs | Needs::input_drift;
  recipe.learn_block = [options](const model::BlockToLearn& b) -> Result<std::string> {
    return detail::BlockLearner(options, b).learn();
  };
  return recipe;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
