#pragma once
// Control of activations by directions (representation engineering, Zou et al., arXiv:2310.01405), as taps on a forward pass.
//
//   linear      h + c
//   piecewise   h + sgn(h . c) c
//   projection  h - (h . c) / (c . c) c
//
// with c = coefficient * sign * v / |v|. With norm preservation the result is scaled back to |h|.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <anybit/model/architecture.hpp>
#include <anybit/steer/direction.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

enum class Operator : std::uint8_t { linear, piecewise, projection };

/// Positions of a sequence, [begin, end). From the last token of a prompt on: {prompt tokens - 1}.
struct Positions {
  Index begin = 0, end = std::numeric_limits<Index>::max();
};

struct ControlOptions {
  Operator op = Operator::linear;
  double coefficient = 1;  ///< without meaning to a projection
  bool keep_norm = false;
  Positions positions{};
  model::Point point = model::Point::residual;
};

/// A direction and the block that it was read in.
struct BlockDirection {
  Index block = 0;
  Direction direction{};
  double accuracy = 0;  ///< on rows that it was not fitted on; 0 where nobody measured
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// One row of activations, in place; c as above.
inline void apply(Operator op, std::span<float> h, std::span<const float> c, bool keep_norm = false) {
  const double before = keep_norm ? dot(h, h) : 0;
  double share = 1;
  if (op != Operator::linear) {
    const double along = dot(h, c), square = dot(c, c);
    share = op == Operator::piecewise ? (along > 0) - (along < 0) : square > 0 ? -along / square : 0;
  }
  for (std::size_t j = 0; j < h.size(); ++j)
    h[j] = static_cast<float>(static_cast<double>(h[j]) + share * static_cast<double>(c[j]));
  if (!keep_norm) return;
  const double after = dot(h, h);
  if (!(after > 0)) return;
  const double scale = std::sqrt(before / after);
  for (float& x : h) x = static_cast<float>(scale * static_cast<double>(x));
}

/// coefficient * sign * v / |v|.
inline std::vector<float> control_vector(const Direction& d, double coefficient) {
  const double scale = coefficient * d.sign / norm(d.vector);
  std::vector<float> c;
  for (const double x : d.vector) c.push_back(static_cast<float>(scale * x));
  return c;
}

/// The rows of a tap's matrix that lie at `wanted`.
inline std::pair<Index, Index> rows_at(const Positions& wanted, model::TokenRange given) {
  const Index begin = std::clamp(wanted.begin, given.begin, given.end);
  return {begin - given.begin, std::clamp(wanted.end, begin, given.end) - given.begin};
}

/// A tap that applies `op` with c, (width), in one block.
inline model::Tap control_tap(Index block, std::vector<float> c, const ControlOptions& o) {
  const auto shared = std::make_shared<const std::vector<float>>(std::move(c));
  return {block, o.point, [shared, o](MutableMatrix x, model::TokenRange positions) {
            ANYBIT_CHECK(x.cols == static_cast<Index>(shared->size()),
                         "steer: a direction of another width than the activations");
            const auto [begin, end] = rows_at(o.positions, positions);
            for (Index t = begin; t < end; ++t) apply(o.op, x.row(t), *shared, o.keep_norm);
          }};
}

/// Width of the activations at a point; 0 where they are no rows of all tokens (of single experts), so that no direction fits.
inline Index width_at(const model::Decoder& d, model::Point p) {
  using model::Point;
  const model::DecoderConfig& c = d.config;
  switch (p) {
    case Point::q:
    case Point::head_out: return c.query_width();
    case Point::k:
    case Point::v: return c.kv_width();
    case Point::router: return c.form.experts.count;
    case Point::expert_in:
    case Point::expert_hidden: return 0;
    case Point::mlp_hidden: return c.form.experts.count > 0 ? c.form.experts.shared_hidden : c.hidden;
    case Point::logits: return c.vocabulary;
    default: return c.dim;
  }
}

/// One tap per direction. An error where a direction does not fit the model.
inline Result<std::vector<model::Tap>> control_taps(const model::Decoder& d, std::span<const BlockDirection> directions,
                                                    const ControlOptions& o = {}) {
  using io::detail::text;
  if (!is_finite(o.coefficient))
    return {ErrorCode::not_finite, text("steer: the coefficient is ", o.coefficient, ": give a finite number")};
  if (o.positions.begin < 0 || o.positions.end < o.positions.begin)
    return {ErrorCode::invalid_argument, text("steer: positions ", o.positions.begin, " to ", o.positions.end,
                                              ": the first must be 0 or more and not behind the end")};
  std::vector<model::Tap> taps;
  for (const BlockDirection& b : directions) {
    const Index width = width_at(d, o.point);
    if (b.direction.width() != width)
      return {ErrorCode::shape_mismatch,
              text("steer: the direction of block ", b.block, " has ", b.direction.width(), " values, activations at ",
                   model::name(o.point), " have ", width, ": it was read from another model or point, read it again")};
    for (const double& x : b.direction.vector)
      if (!is_finite(x))
        return {ErrorCode::not_finite, text("steer: the direction of block ", b.block, " is not finite: read it again")};
    if (!(norm(b.direction.vector) > 0))
      return {ErrorCode::invalid_argument, text("steer: the direction of block ", b.block, " is zero: read it again")};
    taps.push_back(control_tap(b.block, control_vector(b.direction, o.op == Operator::projection ? 1 : o.coefficient), o));
  }
  ANYBIT_TRY_STATUS(model::check(d, taps));
  return taps;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
