#pragma once
// Statistics of the inputs of the linears of a decoder's blocks.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/model/decoder.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

inline constexpr Index site_count = 4;
/// Tokens of Needs::sequences, whole passes from the first on; the last one is cut.
inline constexpr Index sequence_tokens = 1024;

/// What calibration saw at every site of every block. Recipes that need no Hessian get the sums without it, because
/// with it an algorithm would also measure output errors, which takes longer than rounding.
class ModelStats {
 public:
  ModelStats() = default;
  /// Room for `needs` at each site of the decoder, and for `head` of what enters the output head. A Hessian takes 4 n^2 bytes
  /// for n inputs.
  ModelStats(const Decoder& d, Needs needs, Index sample_cap = Stats::default_sample_cap, Needs head = Needs::none)
      : ModelStats(d, needs, 0, d.config.blocks, sample_cap) {
    if (head != Needs::none) head_.emplace(d.config.dim, all_sums | without_sequences(head), sample_cap);
  }
  /// The same of `count` blocks alone, from `first` on; to be filled by add().
  ModelStats(const Decoder& d, Needs wanted, Index first, Index count, Index sample_cap) : first_(first), blocks_(count) {
    if (covers(wanted, Needs::sequences)) sequences_.resize(static_cast<std::size_t>(count * site_count));
    const Needs needs = without_sequences(wanted);
    for (Index i = 0; i < blocks_; ++i)
      for (const Index inputs : {d.config.dim, d.config.query_width(), d.config.dim, d.config.hidden}) {
        light_.emplace_back(inputs, all_sums | (needs & Needs::samples), sample_cap);
        if (covers(needs, Needs::hessian)) full_.emplace_back(inputs, all_sums | needs, sample_cap);
      }
  }

  const Stats& at(Index block, Site site, Needs needs) const {
    return covers(needs, Needs::hessian) ? full_[index(block, site)] : light_[index(block, site)];
  }
  /// With Needs::sequences, what entered attention (Site::attn_qkv) or MLP (Site::ffn_gate_up), a matrix a pass; else none.
  std::span<const Matrix> sequences(Index block, Site site) const {
    const std::size_t i = index(block, site);
    return sequences_.empty() ? std::span<const Matrix>() : sequences_[i];
  }
  /// Null where the head's input was not asked for.
  const Stats* head() const { return head_ ? &*head_ : nullptr; }
  Index tokens() const { return light_.empty() ? 0 : light_.front().tokens(); }
  Index blocks() const { return blocks_; }
  /// What the sites keep.
  Needs needs() const { return full_.empty() ? light_.empty() ? Needs::none : light_.front().needs() : full_.front().needs(); }

  /// Adds what entered one site. `original` is what the float model would have sent in, for Needs::input_drift; else it is left out.
  Status add(Index block, Site site, ConstMatrix x, const ConstMatrix* original, ExecutorRef executor) {
    const std::size_t i = index(block, site);
    if (!sequences_.empty() && (site == Site::attn_qkv || site == Site::ffn_gate_up)) {
      Index room = sequence_tokens;
      for (const Matrix& m : sequences_[i]) room -= m.rows();
      if (room > 0 && x.rows > 0) sequences_[i].emplace_back(x.row_range(0, std::min(room, x.rows)));
    }
    Status status = light_[i].accumulate(x, executor);
    if (status && !full_.empty())
      status = original ? full_[i].accumulate(x, *original, executor) : full_[i].accumulate(x, executor);
    if (!status)
      return in_context(status.error(), "block " + std::to_string(block) + ", input of " + std::string(site_name(site)));
    return Ok{};
  }

  /// Runs `ids` through the decoder from an empty context, adds what enters each site, and gives back what hidden_states() does.
  Result<Matrix> accumulate(const Decoder& d, std::span<const TokenId> ids, ExecutorRef executor) {
    ANYBIT_CHECK(first_ == 0 && blocks_ == d.config.blocks, "ModelStats::accumulate: these are of some blocks alone");
    std::vector<Matrix> inputs(light_.size());
    KvCache cache(d.config, static_cast<Index>(ids.size()));
    ForwardOptions options;
    options.executor = executor;
    options.capture = [&](Index block, Site site, ConstMatrix x) { inputs[index(block, site)] = Matrix(x); };
    ANYBIT_TRY(Matrix hidden, hidden_states(d, ids, cache, options));
    std::vector<Status> status(inputs.size(), Ok{});
    executor.parallel_for(static_cast<Index>(inputs.size()), 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i)
        status[static_cast<std::size_t>(i)] =
            add(i / site_count, static_cast<Site>(i % site_count), inputs[static_cast<std::size_t>(i)].view(), nullptr, {});
    });
    for (const Status& s : status)
      if (!s) return s.error();
    if (head_) {
      if (auto added = head_->accumulate(hidden.view(), executor); !added)
        return in_context(added.error(), "input of the output head");
    }
    return hidden;
  }

  static constexpr std::string_view site_name(Site s) {
    constexpr std::array<std::string_view, 4> names{"attn_q", "attn_output", "ffn_gate", "ffn_down"};
    return names[static_cast<std::size_t>(s)];
  }

 private:
  static constexpr Needs without_sequences(Needs n) {
    return static_cast<Needs>(static_cast<unsigned>(n) & ~static_cast<unsigned>(Needs::sequences));
  }
  static constexpr Needs all_sums = Needs::abs_max | Needs::mean_abs | Needs::mean_square;

  std::size_t index(Index block, Site site) const {
    ANYBIT_CHECK(block >= first_ && block < first_ + blocks_, "ModelStats: nothing was kept of this block");
    return static_cast<std::size_t>((block - first_) * site_count + static_cast<Index>(site));
  }

  Index first_ = 0, blocks_ = 0;
  std::vector<Stats> light_, full_;             ///< blocks x sites
  std::vector<std::vector<Matrix>> sequences_;  ///< blocks x sites, or none
  std::optional<Stats> head_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
