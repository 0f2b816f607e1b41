#pragma once
// A mixture of experts in the place of a block's feed-forward part: its weights, its sites and its pass. See
// docs/architectures.md.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include <anybit/model/architecture.hpp>
#include <anybit/nn/activation.hpp>
#include <anybit/nn/experts.hpp>

namespace anybit::model::expert_block {
inline namespace ANYBIT_CODE {

/// The linears of one expert.
enum Part : std::size_t { gate, up, down, parts };
inline constexpr std::array<std::string_view, parts> part_names{"ffn_gate", "ffn_up", "ffn_down"};

/// Places among the weights of a block, from `begin` on: the router, of the shared expert its gate and its linears, then the
/// linears of each expert.
class Places {
 public:
  constexpr Places(const ExpertForm& f, std::size_t begin)
      : begin_(begin),
        shared_(begin + (f.shared_gate ? 2 : 1)),
        experts_(shared_ + (f.shared_hidden > 0 ? std::size_t{parts} : 0)) {}

  constexpr std::size_t router() const { return begin_; }
  constexpr std::size_t shared_router() const { return begin_ + 1; }
  constexpr std::size_t shared(Part p) const { return shared_ + p; }
  constexpr std::size_t expert(Index k, Part p) const { return experts_ + static_cast<std::size_t>(k) * parts + p; }

 private:
  std::size_t begin_, shared_, experts_;
};

/// Adds the weights of a block's mixture, whose other weights begin at `first` in the blueprint, and its sites: the input of the
/// mixture, which router and shared expert read; gate and up of every expert; every expert's down; the shared one's. `norm` makes
/// the input.
inline void add(Blueprint& b, const DecoderConfig& c, Index block, std::size_t first, const Producer& norm) {
  const ExpertForm& e = c.form.experts;
  const Places places(e, b.weights.size() - first);
  const bool shared = e.shared_hidden > 0;
  const auto linear = [&](std::string name, Extents shape, bool quantizable = true) {
    b.weights.push_back({.name = io::detail::text("blk.", block, ".", name, ".weight"),
                         .shape = shape,
                         .block = block,
                         .quantizable = quantizable});
  };
  const auto shape = [&](std::size_t part, Index hidden) {
    return part == down ? Extents{c.dim, hidden} : Extents{hidden, c.dim};
  };
  linear("ffn_gate_inp", {e.count, c.dim}, false);
  if (e.shared_gate) linear("ffn_gate_inp_shexp", {1, c.dim}, false);
  for (std::size_t p = 0; shared && p < parts; ++p) linear(std::string(part_names[p]) + "_shexp", shape(p, e.shared_hidden));
  for (Index k = 0; k < e.count; ++k)
    for (std::size_t p = 0; p < parts; ++p) linear(io::detail::text(part_names[p], ".", k), shape(p, e.hidden));

  const auto id = [&](std::size_t place) { return static_cast<WeightId>(first + place); };
  SiteSpec all{.block = block, .name = shared ? "ffn_gate_shexp" : "ffn_gate_inp", .inputs = c.dim, .producer = norm};
  all.point = Point::mlp_in, all.effect = Point::mlp_out;
  if (shared) all.readers = {id(places.shared(gate)), id(places.shared(up))};
  all.float_readers = {id(places.router())};
  if (e.shared_gate) all.float_readers.push_back(id(places.shared_router()));
  const auto mixture = static_cast<SiteId>(b.sites.size());
  b.sites.push_back(std::move(all));
  const auto expert_site = [&](Index k, Part named, Point point, Index inputs) {
    SiteSpec s{.block = block, .name = io::detail::text(part_names[named], ".", k), .inputs = inputs};
    s.readers = {id(places.expert(k, named))};
    s.routed = true, s.expert = k, s.point = point, s.effect = Point::mlp_out;
    return s;
  };
  for (Index k = 0; k < e.count; ++k) {
    SiteSpec s = expert_site(k, gate, Point::expert_in, c.dim);
    s.readers.push_back(id(places.expert(k, up)));
    s.producer = norm, s.mixture = mixture;
    b.sites.push_back(std::move(s));
  }
  const auto add_down = [&](SiteSpec s, std::size_t producer) {
    s.producer = {Producer::Kind::linear, id(producer)};
    s.writes_residual = c.form.order != BlockOrder::sandwich;
    b.sites.push_back(std::move(s));
  };
  for (Index k = 0; k < e.count; ++k) add_down(expert_site(k, down, Point::expert_hidden, e.hidden), places.expert(k, up));
  if (!shared) return;
  SiteSpec s{.block = block, .name = "ffn_down_shexp", .inputs = e.shared_hidden, .readers = {id(places.shared(down))}};
  s.point = Point::mlp_hidden, s.effect = Point::mlp_out;
  add_down(std::move(s), places.shared(up));
}

/// Matrices of one pass in Scratch, behind those of model/arch/decoder_block.hpp.
enum Number : std::size_t { router_ = 32, in_, gate_, up_, out_, shared_router_, shared_gate_, shared_up_ };

/// down(a(gate x) * up x) of the linears at `gate_place` and the two behind it; false where the pass ends behind `at`, which is
/// called with what down reads. `hidden` and `up_out` are scratch (tokens, width).
template <class At>
bool gated_expert(const BlockPass& p, std::size_t gate_place, ConstMatrix x, MutableMatrix hidden, MutableMatrix up_out,
                  MutableMatrix y, At&& at) {
  const auto apply = [&](Part which, ConstMatrix in, MutableMatrix out) {
    p.weights[gate_place + which].linear.apply(in, out, p.executor, p.scratch.workspace);
  };
  apply(gate, x, hidden), apply(up, x, up_out);
  nn::gated(p.config.form.activation, hidden, up_out, p.executor);
  if (!at(hidden)) return false;
  apply(down, hidden, y);
  return true;
}

/// From `normed` to what the mixture gives, in `delta`; false where the pass ends. Experts follow each other, each on the rows of
/// its tokens.
inline bool run(BlockPass& p, const Places& places, ConstMatrix normed, MutableMatrix delta) {
  const ExpertForm& e = p.config.form.experts;
  const Index tokens = p.x.rows;
  const auto scratch = [&](Number n, Index width) { return p.scratch.at(n, tokens, width); };
  const auto apply = [&](std::size_t which, ConstMatrix in, MutableMatrix out) {
    p.weights[which].linear.apply(in, out, p.executor, p.scratch.workspace);
  };
  const MutableMatrix logits = scratch(router_, e.count);
  apply(places.router(), normed, logits);
  if (!p.at(Point::router, logits)) return false;
  nn::Routing& routing = p.scratch.routing;
  routing.choose(logits, e.used, e.weights);
  for (Index t = 0; t < tokens; ++t) std::fill(delta.row(t).begin(), delta.row(t).end(), 0.0f);
  const MutableMatrix in = scratch(in_, normed.cols), hidden = scratch(gate_, e.hidden), up_out = scratch(up_, e.hidden),
                      out = scratch(out_, normed.cols);
  for (Index k = 0; k < e.count; ++k) {
    const nn::ExpertTokens list = routing.of(k);
    const auto rows = [&](MutableMatrix m) { return m.row_range(0, list.size()); };
    nn::gather_rows(normed, list.rows, rows(in), p.executor);
    p.at_expert(Point::expert_in, k, rows(in));
    if (p.until == Point::expert_in) continue;
    if (list.size() == 0) {
      p.at_expert(Point::expert_hidden, k, rows(hidden));
      continue;
    }
    const auto hidden_at = [&](MutableMatrix h) {
      p.at_expert(Point::expert_hidden, k, h);
      return p.until != Point::expert_hidden;
    };
    if (gated_expert(p, places.expert(k, gate), rows(in), rows(hidden), rows(up_out), rows(out), hidden_at))
      nn::add_rows(rows(out), list, delta, p.executor);
  }
  if (p.until == Point::expert_in || p.until == Point::expert_hidden) return false;
  if (e.shared_hidden == 0) return p.until != Point::mlp_hidden;
  if (!gated_expert(p, places.shared(gate), normed, scratch(shared_gate_, e.shared_hidden), scratch(shared_up_, e.shared_hidden),
                    out, [&](MutableMatrix h) { return p.at(Point::mlp_hidden, h); }))
    return false;
  if (!e.shared_gate) {
    nn::add(out, delta, p.executor);
    return true;
  }
  const MutableMatrix z = scratch(shared_router_, 1);
  apply(places.shared_router(), normed, z);
  nn::add_gated_rows(out, z, delta, p.executor);
  return true;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model::expert_block

#include <anybit/core/macros_end.hpp>
