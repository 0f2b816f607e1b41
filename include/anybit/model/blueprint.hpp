#pragma once
// A model as data: its weights by name, shape and role, and its sites, the activations that linears read. An architecture writes
// the blueprint of a configuration once; loading, saving, calibration, quantization, allocation of bits and rotation follow from
// it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/types.hpp>
#include <anybit/model/config.hpp>
#include <anybit/model/points.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

/// A weight's place in Blueprint::weights and Decoder::weights. The same in every copy of a model, float or packed.
enum class WeightId : std::uint32_t {};
/// A site's place in Blueprint::sites.
enum class SiteId : std::uint32_t {};

constexpr std::size_t place(WeightId id) { return static_cast<std::size_t>(id); }
constexpr std::size_t place(SiteId id) { return static_cast<std::size_t>(id); }

enum class Role : std::uint8_t {
  linear,  ///< (outputs, inputs), multiplies; may be packed
  table,   ///< (entries, width), rows are looked up; may be packed
  gain,    ///< a vector that a norm multiplies by
  bias,    ///< a vector that a norm adds; the bias of a linear is part of the linear
};

inline constexpr Index no_block = -1;

}  // namespace ANYBIT_ABI
}  // namespace anybit::model

namespace anybit::model {
inline namespace ANYBIT_CODE {

struct WeightSpec {
  std::string name{};  ///< as in GGUF, "blk.0.attn_q.weight"
  Extents shape{};     ///< of a vector (1, length)
  Role role = Role::linear;
  Index block = no_block;
  std::string bias{};     ///< of a linear: the tensor with its bias, (1, outputs); empty: it has none
  bool optional = false;  ///< absent from some models: a head that is tied to the embedding
  /// Whether a search may clip it. The product of queries and keys is too sensitive (AWQ's own rule).
  bool clippable = true;
  /// Recipes of fewer bits per weight leave it at 8 bits and say so, unless the plan wants them there (ModelPlan::guards).
  int least_bits = 0;
  bool quantizable = true;  ///< false: a linear that stays in floats, because its outputs decide (routers)

  bool multiplies() const { return role == Role::linear || role == Role::table; }
};

/// The maker of a site's input, which can divide its channels for free: x_j / s_j costs nothing where the producer takes 1 /
/// s_j.
struct Producer {
  enum class Kind : std::uint8_t {
    none,    ///< nothing that takes scales
    norm,    ///< the gains of a norm: gain_j / s_j
    linear,  ///< the rows of a linear, whose outputs arrive channel by channel
  };
  Kind kind = Kind::none;
  WeightId weight{};
  /// Inputs that each row of the linear feeds: with grouped queries one row of v serves several inputs of o, which then share a
  /// scale.
  Index fan_out = 1;
  Index head_dim = 1;  ///< rows that lie together: input j is made by row j / (head_dim fan_out) head_dim + j % head_dim

  /// Of a norm, where it has one: the bias, which takes the scale as the gain does.
  std::optional<WeightId> bias{};

  Index row_of(Index j) const { return j / (head_dim * fan_out) * head_dim + j % head_dim; }
};

/// One activation and the linears that read it.
struct SiteSpec {
  Index block = 0;
  std::string name{};  ///< of its first reader within the block, "attn_q"
  Index inputs = 0;
  std::vector<WeightId> readers{};
  Producer producer{};
  /// Linears that read the input too and are never quantized: a scale multiplies their columns, and no statistics are for them.
  std::vector<WeightId> float_readers{};
  /// Of one expert: the site that all tokens enter. Both have one producer, so one scale serves that site's readers and all
  /// experts'.
  std::optional<SiteId> mixture{};
  bool routed = false;             ///< its tokens are a subset (experts)
  Index expert = 0;                ///< which, where it is routed
  Point point = Point::attn_in;    ///< where a tap sees its input
  Point effect = Point::attn_out;  ///< where a tap sees what the readers make, before it is added to the residual stream
  bool writes_residual = false;    ///< its readers' outputs are what is added
  std::size_t first_reader = 0;    ///< the place of its first reader in Blueprint::linears; set by finish()
};

struct Architecture;

struct Blueprint {
  const Architecture* architecture = nullptr;
  std::vector<WeightSpec> weights{};  ///< those of one block stand together
  std::vector<SiteSpec> sites{};      ///< in the order in which a forward pass reaches them
  WeightId embedding{}, head{};       ///< a head that holds nothing is the embedding

  // Set by finish().
  std::vector<WeightId> linears{};    ///< the readers of all sites: what plans, errors and sensitivities have one entry for
  std::vector<std::size_t> blocks{};  ///< place of each block's first weight, and behind the last block's

  const WeightSpec& operator[](WeightId id) const { return weights[place(id)]; }
  const SiteSpec& operator[](SiteId id) const { return sites[place(id)]; }

  /// The site of a block, by its name.
  std::optional<SiteId> find_site(Index block, std::string_view name) const {
    for (std::size_t i = 0; i < sites.size(); ++i)
      if (sites[i].block == block && sites[i].name == name) return static_cast<SiteId>(i);
    return std::nullopt;
  }
  std::optional<WeightId> find(std::string_view name) const {
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (weights[i].name == name) return static_cast<WeightId>(i);
    return std::nullopt;
  }
  /// The sites of a block, in the order of the pass.
  std::vector<SiteId> sites_of(Index block) const {
    std::vector<SiteId> out;
    for (std::size_t i = 0; i < sites.size(); ++i)
      if (sites[i].block == block) out.push_back(static_cast<SiteId>(i));
    return out;
  }

  /// The sites of the experts that a mixture's input is distributed over; none of any other site.
  std::vector<SiteId> experts_of(SiteId mixture) const {
    std::vector<SiteId> out;
    for (std::size_t i = place(mixture) + 1; i < sites.size() && sites[i].block == (*this)[mixture].block; ++i)
      if (sites[i].mixture == mixture) out.push_back(static_cast<SiteId>(i));
    return out;
  }

  /// The linears to which a scale of the site's input matters and which are quantized: its readers, then its experts'.
  std::vector<WeightId> scaled_readers(SiteId site) const {
    std::vector<WeightId> out = (*this)[site].readers;
    for (const SiteId e : experts_of(site)) out.insert(out.end(), (*this)[e].readers.begin(), (*this)[e].readers.end());
    return out;
  }

  /// The sites of a block in groups that do not touch each other's weights, in each in the order of quantization: a site that is
  /// produced by a linear comes before the site that reads that producer's input, because its scale divides the producer's rows.
  std::vector<std::vector<SiteId>> quantization_order(Index block) const {
    std::vector<SiteId> left = sites_of(block);
    std::vector<std::vector<SiteId>> groups;
    // The site that reads the linear which makes a site's input.
    std::vector<std::optional<SiteId>> read_by(sites.size());
    for (const SiteId a : left)
      if ((*this)[a].producer.kind == Producer::Kind::linear)
        for (const SiteId b : left)
          for (const WeightId r : (*this)[b].readers)
            if (r == (*this)[a].producer.weight) read_by[place(a)] = b;
    // A mixture's scale is found for what its experts are by then, and before any of them is rounded.
    const auto folds_into = [&](SiteId a, SiteId b) {
      const std::optional<SiteId>& reader = read_by[place(a)];
      return (*this)[b].mixture == a || (reader && (*reader == b || (*this)[*reader].mixture == b));
    };
    while (!left.empty()) {
      std::vector<SiteId> group{left.front()};
      left.erase(left.begin());
      for (bool grew = true; grew;) {
        grew = false;
        for (std::size_t i = 0; i < left.size() && !grew; ++i)
          for (std::size_t k = 0; k < group.size() && !grew; ++k) {
            const bool before = folds_into(left[i], group[k]), after = folds_into(group[k], left[i]);
            if (!before && !after) continue;
            group.insert(group.begin() + static_cast<std::ptrdiff_t>(before ? k : k + 1), left[i]);
            left.erase(left.begin() + static_cast<std::ptrdiff_t>(i));
            grew = true;
          }
      }
      groups.push_back(std::move(group));
    }
    return groups;
  }

  /// Fills in what follows from weights and sites.
  Blueprint& finish(Index block_count) {
    linears.clear(), blocks.assign(static_cast<std::size_t>(block_count) + 1, 0);
    for (SiteSpec& s : sites) {
      s.first_reader = linears.size();
      linears.insert(linears.end(), s.readers.begin(), s.readers.end());
    }
    std::size_t at = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      while (at < weights.size() && weights[at].block != static_cast<Index>(b) && b + 1 < blocks.size()) ++at;
      blocks[b] = at;
      while (at < weights.size() && weights[at].block == static_cast<Index>(b)) ++at;
    }
    return *this;
  }
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
