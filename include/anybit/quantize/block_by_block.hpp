#pragma once
// Quantizes a decoder block by block, each on the outputs of the blocks already quantized. Besides the model
// it holds the residual stream of all calibration tokens and the statistics of one block. See docs/calibration.md.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/quantize/calibration_check.hpp>
#include <anybit/quantize/one_shot.hpp>
#include <anybit/quantize/state.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Where the work stands.
struct LayerWiseProgress {
  Index block = 0, blocks = 0;  ///< the block at work, counted from 0
  std::string_view doing;       ///< "next block", "statistics", "quantizing", "learning"
  double seconds_left = -1;     ///< below 0: not known before a block is done
};

/// Wall-clock seconds by what they went into.
struct LayerWiseSeconds {
  double forward = 0;     ///< running blocks over the calibration tokens
  double statistics = 0;  ///< sums over what entered their linears
  double quantize = 0;    ///< the recipe: grids, factors, sweeps, packing
  double state = 0;       ///< fingerprints, writing and reading of state files

  double total() const { return forward + statistics + quantize + state; }
};

struct LayerWiseOptions {
  bool strict = false;
  Compute head_compute = Compute::f32;        ///< as in QuantizeModelOptions
  float expert_share = default_expert_share;  ///< likewise
  ExecutorRef executor{};
  /// q, k and v first, then o, then gate and up, then down, each on what the linears quantized before it in the block give.
  /// Recipes that fold input scales into linears cannot be taken then.
  bool true_sequential = false;
  /// A folder for the blocks that are done, one file each, made if it is not there. Files of the same model, plan and text that
  /// are in it already are taken over, so that an interrupted run goes on, to the same bytes. Empty: none.
  std::string state{};
  /// Reads block i of the float model, for a source whose own blocks hold nothing (open_blocks() gives both): then only one
  /// block is in memory as floats. Called once a block, and once more where there is a state.
  BlockLoader load_block{};
  Index sample_cap = Stats::default_sample_cap;  ///< rows of activations that recipes with Needs::samples see
  /// Told several times a block, from the calling thread. False stops the run with ErrorCode::cancelled; what is done stays in
  /// `state`.
  std::function<bool(const LayerWiseProgress&)> progress{};
  /// Of a model with an encoder in front of its decoder: the source of each window.
  std::span<const Source> sources{};
};

struct LayerWiseModel {
  QuantizedModel quantized;
  LayerWiseSeconds seconds;
  Index tokens = 0;               ///< that calibrated
  Index blocks_taken = 0;         ///< from files of an earlier run
  std::vector<SiteCheck> checks;  ///< of every site of every block
};

namespace detail {

/// Adds the time since it was last asked to one of several sums.
class StageClock {
 public:
  void add_to(double& seconds) {
    const auto now = Clock::now();
    seconds += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  double since_start() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

/// The residual stream of every calibration token, moved on from block to block; where an encoder stands in front, first of every
/// position of the sources.
class Stream {
 public:
  Stream() = default;
  Stream(const Decoder& d, std::span<const std::span<const TokenId>> windows, std::span<const Source> sources,
         ExecutorRef executor)
      : windows_(windows) {
    encoded_.resize(sources.size());
    start(d, sources.empty() ? Stack::last : Stack::encoder, sources, executor);
  }
  MutableMatrix window(std::size_t w) { return x_.view().row_range(begins_[w], begins_[w + 1]); }
  Index tokens() const { return begins_.empty() ? 0 : begins_.back(); }

  /// From the encoder's last block to the decoder's first.
  void enter_decoder(const Decoder& d, ExecutorRef executor) {
    for (std::size_t w = 0; w < encoded_.size(); ++w) {
      const MutableMatrix x = window(w);
      Encoded& to =
          encoded_[w].emplace(Encoded{Matrix(x.rows, x.cols), nn::KvCache({1, d.config.kv_heads, d.config.head_dim}, x.rows)});
      d.blueprint->architecture->finish(d, Stack::encoder, x, to.states.view(), executor);
    }
    start(d, Stack::last, {}, executor);
  }
  /// Null where the block at work needs none.
  Encoded* encoded(std::size_t w) { return w < encoded_.size() && encoded_[w] ? &*encoded_[w] : nullptr; }

 private:
  void start(const Decoder& d, Stack stack, std::span<const Source> sources, ExecutorRef executor) {
    std::vector<StackInput> inputs;
    begins_.assign(1, 0);
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      StackInput& in = inputs.emplace_back(StackInput{.stack = stack, .ids = windows_[w]});
      if (stack == Stack::encoder) in.ids = sources[w].ids, in.features = sources[w].features;
      const bool frames = in.features.rows > 0;
      begins_.push_back(begins_.back() + (frames ? positions_of_frames(in.features.rows) : static_cast<Index>(in.ids.size())));
    }
    x_ = Matrix(begins_.back(), d.config.dim);
    for (std::size_t w = 0; w < windows_.size(); ++w) d.blueprint->architecture->embed(d, inputs[w], window(w), executor);
  }

  std::span<const std::span<const TokenId>> windows_;
  std::vector<Index> begins_;
  Matrix x_;
  std::vector<std::optional<Encoded>> encoded_;
};

/// Passes of one block over windows; what a pass of some length needs is kept from window to window.
class WindowRunner {
 public:
  WindowRunner(const Decoder& d, ExecutorRef executor) : d_(d), executor_(executor) {}

  /// Moves x behind the block.
  void run(std::span<const Weight> block, Index number, Stream& stream, std::size_t window, std::span<const Tap> taps = {}) {
    pass(block, number, stream.window(window), stream.encoded(window), taps, Point::residual);
  }
  /// As far as `until`, on a copy of x.
  void look(std::span<const Weight> block, Index number, Stream& stream, std::size_t window, std::span<const Tap> taps,
            Point until) {
    const ConstMatrix x = stream.window(window);
    keep(x.rows, number);
    for (Index t = 0; t < x.rows; ++t) std::copy_n(x.row(t).data(), x.cols, kept_->x.view().row(t).data());
    pass(block, number, kept_->x.view(), stream.encoded(window), taps, until);
  }

 private:
  struct Kept {
    Kept(const Decoder& d, Index tokens, Stack s)
        : stack(s), x(tokens, d.config.dim), pass(d, tokens, 0, s), cache(shape_of(d.config, s), tokens) {}
    static nn::KvShape shape_of(const DecoderConfig& c, Stack s) {
      const DecoderConfig& of = s == Stack::encoder ? c.encoder.front() : c;
      return {1, of.kv_heads, of.head_dim};
    }
    Stack stack;
    Matrix x;
    Pass pass;
    nn::KvCache cache;
  };
  void keep(Index tokens, Index number) {
    const Stack stack = stack_of(d_.config, number);
    if (!kept_ || kept_->pass.tokens() != tokens || kept_->stack != stack) kept_.emplace(d_, tokens, stack);
  }
  void pass(std::span<const Weight> block, Index number, MutableMatrix x, Encoded* encoded, std::span<const Tap> taps,
            Point until) {
    keep(x.rows, number);
    kept_->cache.clear();  // and that of cross-attention is never advanced, so each pass writes it anew
    kept_->pass.block(block, number, 0, kept_->cache, x, {.executor = executor_, .taps = taps, .encoded = encoded},
                      Point::attn_in, until);
  }

  const Decoder& d_;
  ExecutorRef executor_;
  std::optional<Kept> kept_;
};

class LayerWise {
 public:
  LayerWise(const Decoder& source, const ModelPlan& plan, std::span<const std::span<const TokenId>> windows,
            const LayerWiseOptions& options)
      : source_(source),
        plan_(plan),
        windows_(windows),
        options_(options),
        needs_(needs(plan)),
        runner_(source, options.executor),
        drifts_(covers(needs_, Needs::input_drift)) {}

  Result<LayerWiseModel> run(const PackedEmbedding& embedding) {
    ANYBIT_TRY_STATUS(check());
    QuantizedModel& out = result_.quantized;
    out.decoder = source_;
    set_embedding(out.decoder, embedding, options_.head_compute);
    quantized_ = Stream(out.decoder, windows_, options_.sources, options_.executor);
    if (drifts_) original_ = Stream(source_, windows_, options_.sources, options_.executor);
    for (const auto& w : windows_) result_.tokens += static_cast<Index>(w.size());
    clock_.add_to(result_.seconds.forward);

    BlockFiles files;
    if (!options_.state.empty()) {
      ANYBIT_TRY(RunFingerprint run, fingerprint(embedding));
      ANYBIT_TRY(files, BlockFiles::open(options_.state, std::move(run)));
    }
    clock_.add_to(result_.seconds.state);
    for (Index i = 0; i < source_.config.blocks; ++i) {
      block_ = i;
      if (i > 0 && i == source_.config.encoder_blocks()) {
        quantized_.enter_decoder(out.decoder, options_.executor);
        if (drifts_) original_.enter_decoder(source_, options_.executor);
      }
      ANYBIT_TRY_STATUS(tell_progress("next block"));
      ANYBIT_TRY(original_block_, block_of(source_, options_.load_block, i));
      out.decoder.set_block(i, original_block_);
      ANYBIT_TRY(std::optional<FinishedBlock> done, files.read(*source_.blueprint, i, original_block_, plan_));
      const bool taken = done.has_value();
      if (taken) {
        out.decoder.set_block(i, done->block);
        for (QuantizedLayer& l : done->layers) out.layers.push_back(std::move(l));
        ++result_.blocks_taken;
      } else {
        const std::size_t before = out.layers.size();
        ANYBIT_TRY_STATUS(quantize_block());
        ANYBIT_TRY_STATUS(files.write(*source_.blueprint, i, out.decoder.block(i), std::span(out.layers).subspan(before)));
      }
      clock_.add_to(result_.seconds.state);
      if (i + 1 < source_.config.blocks) ANYBIT_TRY_STATUS(advance(taken));
    }
    return std::move(result_);
  }

 private:
  Status check() const {
    ANYBIT_TRY_STATUS(model::check(plan_, source_));
    if (windows_.empty())
      return Error{ErrorCode::insufficient_data, "layer-wise quantization: no windows of calibration tokens: give at least one"};
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      if (windows_[w].empty())
        return Error{ErrorCode::insufficient_data, io::detail::text("calibration window ", w, " is empty: leave it out")};
      if (auto valid = check_ids(source_, windows_[w]); !valid)
        return in_context(valid.error(), io::detail::text("calibration window ", w));
    }
    const std::size_t needed = source_.config.encoder.empty() ? 0 : windows_.size();
    if (options_.sources.size() != needed)
      return Error{ErrorCode::invalid_argument,
                   io::detail::text("layer-wise quantization: ", options_.sources.size(), " sources for ", windows_.size(),
                                    needed > 0 ? " windows: an encoder-decoder needs a source for each"
                                               : " windows: the model has no encoder in front of a decoder, leave them out")};
    for (std::size_t w = 0; w < options_.sources.size(); ++w)
      if (auto valid = detail::check(options_.sources[w], source_); !valid)
        return in_context(valid.error(), io::detail::text("calibration window ", w));
    if (options_.true_sequential)
      for (const ModelRecipe* r : plan_.linears)
        if (r->folds_into_linear)
          return Error{
              ErrorCode::invalid_argument,
              "recipe " + r->name +
                  " folds scales into linears that true-sequential order has quantized already: leave one of the two out"};
    return Ok{};
  }

  Status tell_progress(std::string_view doing) const {
    if (!options_.progress) return Ok{};
    LayerWiseProgress p{block_, source_.config.blocks, doing, -1};
    const Index made = block_ - result_.blocks_taken;
    if (made > 0) {
      const double each = clock_.since_start() / static_cast<double>(made);
      p.seconds_left = std::max(0.0, each * static_cast<double>(p.blocks - block_) - (clock_.since_start() - block_began_));
    }
    if (options_.progress(p)) return Ok{};
    return Error{ErrorCode::cancelled,
                 io::detail::text("stopped before block ", block_, " of ", source_.config.blocks, " was done")};
  }

  Status quantize_block() {
    block_began_ = clock_.since_start();
    const Blueprint& blueprint = *source_.blueprint;
    const std::vector<SiteId> sites = blueprint.sites_of(block_);
    ModelStats stats(source_, needs_, sites, options_.sample_cap);
    const auto quantize = [&](std::span<const SiteId> some) -> Status {
      ANYBIT_TRY_STATUS(tell_progress("quantizing"));
      SiblingQuantizer work(result_.quantized.decoder, plan_, stats, {.strict = options_.strict, .executor = options_.executor},
                            options_.expert_share);
      for (const SiteId site : some) ANYBIT_TRY_STATUS(work.run(site));
      for (QuantizedLayer& l : work.layers) result_.quantized.layers.push_back(std::move(l));
      clock_.add_to(result_.seconds.quantize);
      return Ok{};
    };
    if (options_.true_sequential) {
      for (std::size_t begin = 0, end = 0; begin < sites.size(); begin = end) {
        const Point stage = stage_of(blueprint[sites[begin]].point);
        while (end < sites.size() && stage_of(blueprint[sites[end]].point) == stage) ++end;
        const std::span<const SiteId> some = std::span(sites).subspan(begin, end - begin);
        ANYBIT_TRY_STATUS(gather(stats, some, end == sites.size()));
        ANYBIT_TRY_STATUS(quantize(some));
      }
    } else {
      ANYBIT_TRY_STATUS(gather(stats, sites, true));
      for (const std::vector<SiteId>& group : blueprint.quantization_order(block_)) ANYBIT_TRY_STATUS(quantize(group));
    }
    for (const SiteId site : sites) result_.checks.push_back(check_site(blueprint, site, stats.at(site, needs_)));
    clock_.add_to(result_.seconds.statistics);
    ANYBIT_TRY_STATUS(learn_block());
    clock_.add_to(result_.seconds.quantize);
    return Ok{};
  }

  /// What recipes learn of the whole block. The quantized stream stands before it, the float model's behind it.
  Status learn_block() {
    BlockToLearn b{.decoder = result_.quantized.decoder, .block = block_, .executor = options_.executor};
    const Blueprint& blueprint = *source_.blueprint;
    std::vector<QuantizedLayer*> layers;
    const ModelRecipe* learns = nullptr;
    for (QuantizedLayer& l : result_.quantized.layers) {
      const SiteSpec& site = blueprint[l.site];
      if (site.block != block_) continue;
      const ModelRecipe* const recipe = plan_.linears[static_cast<std::size_t>(site.first_reader) + l.sibling];
      if (!recipe->learn_block) continue;
      if (learns && learns != recipe)
        return Error{ErrorCode::unsupported, io::detail::text("block ", block_, " has several recipes that learn whole blocks (",
                                                              learns->name, ", ", recipe->name, "): give it one")};
      learns = recipe;
      const WeightId id = site.readers[l.sibling];
      const nn::Linear& original = original_block_[place(id) - blueprint.blocks[static_cast<std::size_t>(block_)]].linear;
      Matrix w(original.dense()->view());
      for (Index r = 0; r < w.rows(); ++r)
        for (Index c = 0; c < w.cols(); ++c) {
          if (!l.input_scale.empty()) w(r, c) *= l.input_scale[static_cast<std::size_t>(c)];
          if (!l.output_scale.empty()) w(r, c) /= l.output_scale[static_cast<std::size_t>(r)];
        }
      b.layers.push_back({&result_.quantized.decoder[id].linear, id, std::move(w), recipe});
      layers.push_back(&l);
    }
    if (!learns) return Ok{};
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      b.inputs.push_back(quantized_.window(w)), b.targets.push_back(original_.window(w));
      if (quantized_.encoded(w))
        return Error{ErrorCode::unsupported, "recipe " + learns->name + ": blocks that read an encoder cannot be learned"};
    }
    ANYBIT_TRY_STATUS(tell_progress("learning"));
    const auto said = learns->learn_block(b);
    if (!said) return in_context(said.error(), io::detail::text("recipe ", learns->name, ": block ", block_));
    for (QuantizedLayer* const l : layers) l->report.remarks.push_back(*said);
    return Ok{};
  }

  /// Runs the block as far as it is quantized, and adds what enters `sites`. With drift the float model's stream is moved on as
  /// the `last` of them is seen.
  Status gather(ModelStats& stats, std::span<const SiteId> sites, bool last) {
    const Blueprint& blueprint = *source_.blueprint;
    const Point until = blueprint[sites.back()].point;
    std::vector<Matrix> originals(sites.size());
    Status status = Ok{};
    const auto number = [&](SiteId s) { return place(s) - place(sites.front()); };
    const std::vector<Tap> keep = site_taps(blueprint, sites, [&](SiteId s, ConstMatrix x) { originals[number(s)] = Matrix(x); });
    const std::vector<Tap> add = site_taps(blueprint, sites, [&](SiteId s, ConstMatrix x) {
      if (!status) return;
      clock_.add_to(result_.seconds.forward);
      const ConstMatrix other = originals[number(s)].view();
      status = stats.add(s, x, drifts_ ? &other : nullptr, options_.executor);
      clock_.add_to(result_.seconds.statistics);
    });
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      ANYBIT_TRY_STATUS(tell_progress("statistics"));
      if (drifts_ && last)
        runner_.run(original_block_, block_, original_, w, keep);
      else if (drifts_)
        runner_.look(original_block_, block_, original_, w, keep, until);
      runner_.look(result_.quantized.decoder.block(block_), block_, quantized_, w, add, until);
      if (!status) return status;
    }
    return Ok{};
  }

  /// From this block to the next. `taken`: no statistics were gathered, so the float model's stream still stands before it.
  Status advance(bool taken) {
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      ANYBIT_TRY_STATUS(tell_progress("statistics"));
      runner_.run(result_.quantized.decoder.block(block_), block_, quantized_, w);
      if (drifts_ && taken) runner_.run(original_block_, block_, original_, w);
    }
    clock_.add_to(result_.seconds.forward);
    return Ok{};
  }

  Result<RunFingerprint> fingerprint(const PackedEmbedding& embedding) const {
    ANYBIT_TRY(std::string model, fingerprint_of(source_, options_.load_block));
    return RunFingerprint{std::move(model),
                          fingerprint_of(plan_, embedding, options_.true_sequential, options_.sample_cap, options_.expert_share),
                          fingerprint_of(windows_, options_.sources)};
  }

  const Decoder& source_;
  const ModelPlan& plan_;
  std::span<const std::span<const TokenId>> windows_;
  const LayerWiseOptions& options_;
  Needs needs_;
  WindowRunner runner_;
  bool drifts_;
  Stream quantized_, original_;
  BlockWeights original_block_;
  LayerWiseModel result_;
  StageClock clock_;
  Index block_ = 0;
  double block_began_ = 0;
};

}  // namespace detail

/// The model that `plan` makes of `source` (floats), calibrated by `windows` of tokens, each run from an empty context. The same
/// bytes for any number of threads, and with or without an interruption. Recipes with Needs::input_drift see the activations of
/// both models. Recipes that learn nothing need no windows: quantize_model() is for them.
inline Result<LayerWiseModel> quantize_layer_wise(const Decoder& source, const ModelPlan& plan,
                                                  std::span<const std::span<const TokenId>> windows,
                                                  const PackedEmbedding& embedding, const LayerWiseOptions& options = {}) {
  return detail::LayerWise(source, plan, windows, options).run(embedding);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
