#pragma once
// Steps along gradients: SGD with momentum, and AdamW with moments in floats or bytes.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/eigen_view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/train/byte_moments.hpp>
#include <anybit/train/parameter.hpp>
#include <anybit/train/random.hpp>

namespace anybit::train {
inline namespace ANYBIT_CODE {

/// A part of an optimizer's state, for checkpoints: read them to save, write them to resume.
struct StateSpan {
  std::string name;  ///< of the parameter, and which part: "blk.0.attn_q.weight/m"
  std::span<std::byte> bytes;
};

namespace detail {

inline void check_same(std::span<const Parameter> parameters, std::span<const Index> sizes) {
  bool same = parameters.size() == sizes.size();
  for (std::size_t i = 0; same && i < sizes.size(); ++i)
    same = static_cast<Index>(parameters[i].values.size()) == sizes[i] &&
           parameters[i].gradient.size() == parameters[i].values.size();
  ANYBIT_CHECK(same, "optimizer: the parameters are not those that it was made for");
}
inline std::vector<Index> sizes_of(std::span<const Parameter> parameters) {
  std::vector<Index> out;
  for (const Parameter& p : parameters) out.push_back(static_cast<Index>(p.values.size()));
  return out;
}
/// Values that are updated at once. Copied into an array of one size and alignment, so that an element's arithmetic depends
/// neither on its address nor on the slice that it is in.
inline constexpr Index update_block = byte_moments::block;
using Block = Eigen::Array<float, static_cast<int>(update_block), 1>;

/// The first n values are copied, the others are 0.
inline Block load_block(const float* from, Index n) {
  Block out;
  std::copy_n(from, n, out.data());
  std::fill(out.data() + n, out.data() + update_block, 0.0f);
  return out;
}
inline void store_block(const Block& x, Index n, float* to) { std::copy_n(x.data(), n, to); }

/// Calls f(begin, count) for blocks of a tensor, several per slice.
template <class F>
void for_each_block(Index size, ExecutorRef executor, F&& f) {
  parallel_tiles(executor, size, 16 * update_block, [&](Index begin, Index end) {
    for (Index b = begin; b < end; b += update_block) f(b, std::min(update_block, end - b));
  });
}
inline std::span<std::byte> writable_bytes(AlignedBuffer& b) { return {b.data(), b.size()}; }

}  // namespace detail

struct SgdOptions {
  float momentum = 0;
  float weight_decay = 0;  ///< added to the gradient, as torch.optim.SGD does
};

/// g = dL/dp + weight_decay p,  v <- momentum v + g,  p <- p - rate v; v is 0 at first.
class Sgd {
 public:
  Sgd(const SgdOptions& options, std::span<const Parameter> parameters)
      : options_(options), sizes_(detail::sizes_of(parameters)) {
    for (const Parameter& p : parameters) {
      names_.push_back(p.name);
      velocity_.emplace_back(options.momentum != 0 ? p.values.size() * sizeof(float) : 0);
    }
  }

  /// The parameters that it was made for, in their order.
  void step(std::span<const Parameter> parameters, double rate, ExecutorRef executor) {
    detail::check_same(parameters, sizes_);
    ++steps_;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& p = parameters[i];
      const float decay = p.decays ? options_.weight_decay : 0.0f, r = static_cast<float>(rate);
      detail::for_each_block(sizes_[i], executor, [&](Index begin, Index n) {
        detail::Block x = detail::load_block(p.values.data() + begin, n);
        detail::Block v = detail::load_block(p.gradient.data() + begin, n) + decay * x;
        if (velocity_[i].size() > 0) {
          float* const velocity = velocity_[i].template as<float>() + begin;
          v += options_.momentum * detail::load_block(velocity, n);
          detail::store_block(v, n, velocity);
        }
        x -= r * v;
        detail::store_block(x, n, p.values.data() + begin);
      });
    }
  }

  Index steps() const { return steps_; }
  void set_steps(Index steps) { steps_ = steps; }
  std::vector<StateSpan> state() {
    std::vector<StateSpan> out;
    for (std::size_t i = 0; i < names_.size(); ++i)
      if (velocity_[i].size() > 0) out.push_back({names_[i] + "/v", detail::writable_bytes(velocity_[i])});
    return out;
  }

 private:
  SgdOptions options_;
  Index steps_ = 0;
  std::vector<Index> sizes_;
  std::vector<std::string> names_;
  std::vector<AlignedBuffer> velocity_;
};

enum class Moments : std::uint8_t {
  floats,  ///< 8 bytes per parameter
  bytes,   ///< 2.03 bytes per parameter: byte_moments.hpp
};

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999;
  float epsilon = 1e-8f;
  float weight_decay = 0.01f;
  Moments moments = Moments::floats;
  std::uint64_t seed = 0;  ///< of the rounding of Moments::bytes
};

/// AdamW (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2), s = 1, 2, ..:
///   p <- (1 - rate decay) p,   m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2
///   p <- p - rate / (1 - beta1^s) m / (sqrt(v / (1 - beta2^s)) + epsilon)
class AdamW {
 public:
  AdamW(const AdamWOptions& options, std::span<const Parameter> parameters)
      : options_(options), sizes_(detail::sizes_of(parameters)) {
    for (const Parameter& p : parameters) {
      const std::size_t size = p.values.size();
      const bool bytes = options.moments == Moments::bytes;
      names_.push_back(p.name);
      m_.emplace_back(bytes ? size : size * sizeof(float));
      v_.emplace_back(bytes ? size : size * sizeof(float));
      const auto blocks = static_cast<std::size_t>(ceil_div(static_cast<Index>(size), byte_moments::block));
      scales_.emplace_back(bytes ? 2 * blocks * sizeof(float) : 0);
    }
  }

  /// The parameters that it was made for, in their order.
  void step(std::span<const Parameter> parameters, double rate, ExecutorRef executor) {
    detail::check_same(parameters, sizes_);
    ++steps_;
    const auto s = static_cast<double>(steps_);
    Numbers n;
    n.beta1 = static_cast<float>(options_.beta1), n.beta2 = static_cast<float>(options_.beta2);
    n.rest1 = static_cast<float>(1 - options_.beta1), n.rest2 = static_cast<float>(1 - options_.beta2);
    n.rate = static_cast<float>(rate / (1 - std::pow(options_.beta1, s)));
    n.root = static_cast<float>(std::sqrt(1 - std::pow(options_.beta2, s)));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& p = parameters[i];
      n.keep = static_cast<float>(1 - rate * static_cast<double>(p.decays ? options_.weight_decay : 0.0f));
      const Draws draws(options_.seed, (static_cast<std::uint64_t>(i) << 40) + static_cast<std::uint64_t>(steps_));
      detail::for_each_block(sizes_[i], executor, [&](Index begin, Index count) {
        if (options_.moments == Moments::floats)
          update_floats(n, p, i, begin, count);
        else
          update_bytes(n, p, i, begin, count, draws);
      });
    }
  }

  Index steps() const { return steps_; }
  void set_steps(Index steps) { steps_ = steps; }
  std::vector<StateSpan> state() {
    std::vector<StateSpan> out;
    for (std::size_t i = 0; i < names_.size(); ++i) {
      out.push_back({names_[i] + "/m", detail::writable_bytes(m_[i])});
      out.push_back({names_[i] + "/v", detail::writable_bytes(v_[i])});
      if (scales_[i].size() > 0) out.push_back({names_[i] + "/scales", detail::writable_bytes(scales_[i])});
    }
    return out;
  }

 private:
  struct Numbers {
    float beta1, beta2, rest1, rest2, rate, root, keep;
  };

  static void update(const Numbers& n, const AdamWOptions& o, const Parameter& p, Index begin, Index count, detail::Block& m,
                     detail::Block& v) {
    detail::Block x = detail::load_block(p.values.data() + begin, count);
    const detail::Block g = detail::load_block(p.gradient.data() + begin, count);
    m = n.beta1 * m + n.rest1 * g;
    v = n.beta2 * v + n.rest2 * g * g;
    x = n.keep * x - n.rate * m / (v.sqrt() / n.root + o.epsilon);
    detail::store_block(x, count, p.values.data() + begin);
  }

  void update_floats(const Numbers& n, const Parameter& p, std::size_t i, Index begin, Index count) {
    float* const m_at = m_[i].template as<float>() + begin;
    float* const v_at = v_[i].template as<float>() + begin;
    detail::Block m = detail::load_block(m_at, count), v = detail::load_block(v_at, count);
    update(n, options_, p, begin, count, m, v);
    detail::store_block(m, count, m_at), detail::store_block(v, count, v_at);
  }

  void update_bytes(const Numbers& n, const Parameter& p, std::size_t i, Index begin, Index count, const Draws& draws) {
    std::uint8_t* const m_codes = m_[i].template as<std::uint8_t>() + begin;
    std::uint8_t* const v_codes = v_[i].template as<std::uint8_t>() + begin;
    float* const scales = scales_[i].template as<float>() + 2 * (begin / byte_moments::block);
    detail::Block m = detail::Block::Zero(), v = detail::Block::Zero();
    for (Index j = 0; j < count; ++j) {
      m[j] = scales[0] * byte_moments::decode_signed(m_codes[j]);
      v[j] = scales[1] * byte_moments::decode_unsigned(v_codes[j]);
    }
    update(n, options_, p, begin, count, m, v);
    scales[0] = m.abs().maxCoeff(), scales[1] = v.maxCoeff();
    const float to_m = scales[0] > 0 ? 1 / scales[0] : 0, to_v = scales[1] > 0 ? 1 / scales[1] : 0;
    for (Index j = 0; j < count; ++j) {
      const std::uint64_t random = draws(static_cast<std::uint64_t>(begin + j));
      m_codes[j] = byte_moments::encode_signed(m[j] * to_m, static_cast<std::uint32_t>(random) >> 12);
      v_codes[j] = byte_moments::encode_unsigned(v[j] * to_v, static_cast<std::uint32_t>(random >> 44));
    }
  }

  AdamWOptions options_;
  Index steps_ = 0;
  std::vector<Index> sizes_;
  std::vector<std::string> names_;
  std::vector<AlignedBuffer> m_, v_, scales_;  ///< scales: of m and of v, block by block
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::train

#include <anybit/core/macros_end.hpp>
