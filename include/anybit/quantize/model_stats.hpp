#pragma once
// Statistics of the inputs of the linears of a decoder's blocks.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/model/run.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Tokens of Needs::sequences, whole passes from the first on; the last one is cut.
inline constexpr Index sequence_tokens = 1024;

/// Statistics of the inputs of a model's sites. Recipes that need no Hessian get the sums without it, because
/// with it an algorithm would also measure output errors, which takes longer than rounding.
class ModelStats {
 public:
  ModelStats() = default;
  /// Room for `needs` at each site of the decoder, and for `head` of what enters the output head. A Hessian takes 4 n^2 bytes
  /// for n inputs.
  ModelStats(const Decoder& d, Needs needs, Index sample_cap = Stats::default_sample_cap, Needs head = Needs::none)
      : ModelStats(d, needs, all_sites(*d.blueprint), sample_cap) {
    if (head != Needs::none) head_.emplace(d.config.embedding_width(), all_sums | without_sequences(head), sample_cap);
  }
  /// The same of some sites alone, neighbours in the blueprint; to be filled by add().
  ModelStats(const Decoder& d, Needs wanted, std::span<const SiteId> sites, Index sample_cap)
      : blueprint_(d.blueprint), first_(sites.empty() ? 0 : place(sites.front())) {
    if (covers(wanted, Needs::sequences)) sequences_.resize(sites.size());
    const Needs needs = without_sequences(wanted);
    for (const SiteId site : sites) {
      const Index inputs = (*blueprint_)[site].inputs;
      light_.emplace_back(inputs, all_sums | (needs & Needs::samples), sample_cap);
      if (covers(needs, Needs::hessian)) full_.emplace_back(inputs, all_sums | needs, sample_cap);
    }
  }

  const Stats& at(SiteId site, Needs needs) const {
    return covers(needs, Needs::hessian) ? full_[index(site)] : light_[index(site)];
  }
  /// With Needs::sequences, what entered a site that a norm feeds, a matrix per pass; else none.
  std::span<const Matrix> sequences(SiteId site) const {
    const std::size_t i = index(site);
    return sequences_.empty() ? std::span<const Matrix>() : sequences_[i];
  }
  /// Null where the head's input was not asked for.
  const Stats* head() const { return head_ ? &*head_ : nullptr; }
  Index tokens() const { return light_.empty() ? 0 : light_.front().tokens(); }
  /// How many sites are kept.
  std::size_t sites() const { return light_.size(); }
  /// The statistics that sites keep.
  Needs needs() const { return full_.empty() ? light_.empty() ? Needs::none : light_.front().needs() : full_.front().needs(); }

  /// Adds what entered one site. `original` is what the float model would have sent in, for Needs::input_drift; else it is left
  /// out.
  Status add(SiteId site, ConstMatrix x, const ConstMatrix* original, ExecutorRef executor) {
    const std::size_t i = index(site);
    const SiteSpec& spec = (*blueprint_)[site];
    if (!sequences_.empty() && spec.producer.kind == Producer::Kind::norm) {
      Index room = sequence_tokens;
      for (const Matrix& m : sequences_[i]) room -= m.rows();
      if (room > 0 && x.rows > 0 && !spec.routed) sequences_[i].emplace_back(x.row_range(0, std::min(room, x.rows)));
    }
    Status status = light_[i].accumulate(x, executor);
    // Routers send other tokens to an expert of the float model: of its inputs there are none to compare with.
    if (spec.routed && original) original = &x;
    if (status && !full_.empty())
      status = original ? full_[i].accumulate(x, *original, executor) : full_[i].accumulate(x, executor);
    if (!status) return in_context(status.error(), "block " + std::to_string(spec.block) + ", input of " + spec.name);
    return Ok{};
  }

  /// Adds what passes over other texts have seen: sums and Hessians add, so a text weighs as much as it has tokens. Both keep the
  /// same statistics of the same sites of one model.
  Status merge(const ModelStats& other) {
    ANYBIT_CHECK(sites() == other.sites() && first_ == other.first_ && full_.size() == other.full_.size() &&
                     sequences_.size() == other.sequences_.size() && head_.has_value() == other.head_.has_value(),
                 "ModelStats::merge: statistics of other sites");
    for (std::size_t i = 0; i < light_.size(); ++i) {
      ANYBIT_TRY_STATUS(light_[i].merge(other.light_[i]));
      if (!full_.empty()) ANYBIT_TRY_STATUS(full_[i].merge(other.full_[i]));
      if (!sequences_.empty()) sequences_[i] = joined(sequences_[i], other.sequences_[i]);
    }
    return head_ ? head_->merge(*other.head_) : Status(Ok{});
  }

  /// Runs `ids` through the decoder from an empty context, adds what enters each site, and gives back what hidden_states() does.
  /// A model with an encoder in front of its decoder needs the source of the text.
  Result<Matrix> accumulate(const Decoder& d, std::span<const TokenId> ids, ExecutorRef executor,
                            const Source* source = nullptr) {
    ANYBIT_CHECK(sites() == d.blueprint->sites.size(), "ModelStats::accumulate: these are of some sites alone");
    std::vector<Matrix> inputs(light_.size());
    nn::KvCache cache(cache_shape(d.config), static_cast<Index>(ids.size()));
    const std::vector<Tap> taps = site_taps(*d.blueprint, [&](SiteId site, ConstMatrix x) { inputs[index(site)] = Matrix(x); });
    Run run{executor, taps};
    std::optional<Encoded> encoded;
    if (source) {
      ANYBIT_TRY(encoded, encode(d, *source, run));
      run.encoded = &*encoded;
    }
    ANYBIT_TRY(Matrix hidden, hidden_states(d, ids, cache, run));
    std::vector<Status> status(inputs.size(), Ok{});
    executor.parallel_for(static_cast<Index>(inputs.size()), 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i)
        status[static_cast<std::size_t>(i)] =
            add(static_cast<SiteId>(i), inputs[static_cast<std::size_t>(i)].view(), nullptr, {});
    });
    for (const Status& s : status)
      if (!s) return s.error();
    if (head_) {
      if (auto added = head_->accumulate(hidden.view(), executor); !added)
        return in_context(added.error(), "input of the output head");
    }
    return hidden;
  }

 private:
  static constexpr Needs without_sequences(Needs n) {
    return static_cast<Needs>(static_cast<unsigned>(n) & ~static_cast<unsigned>(Needs::sequences));
  }
  static constexpr Needs all_sums = Needs::abs_max | Needs::mean_abs | Needs::mean_square;

  /// Passes of both in turn, so that either has its part of the tokens that are kept.
  static std::vector<Matrix> joined(const std::vector<Matrix>& a, const std::vector<Matrix>& b) {
    std::vector<Matrix> out;
    Index room = sequence_tokens;
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i)
      for (const auto* const from : {&a, &b}) {
        if (i >= from->size() || room == 0) continue;
        const Matrix& m = (*from)[i];
        out.emplace_back(m.view().row_range(0, std::min(room, m.rows())));
        room -= out.back().rows();
      }
    return out;
  }

  static std::vector<SiteId> all_sites(const Blueprint& b) {
    std::vector<SiteId> all;
    for (std::size_t i = 0; i < b.sites.size(); ++i) all.push_back(static_cast<SiteId>(i));
    return all;
  }
  std::size_t index(SiteId site) const {
    ANYBIT_CHECK(place(site) >= first_ && place(site) < first_ + light_.size(), "ModelStats: nothing was kept of this site");
    return place(site) - first_;
  }

  std::shared_ptr<const Blueprint> blueprint_;
  std::size_t first_ = 0;
  std::vector<Stats> light_, full_;             ///< by site
  std::vector<std::vector<Matrix>> sequences_;  ///< by site, or none
  std::optional<Stats> head_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
