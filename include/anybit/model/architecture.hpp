#pragma once
// An architecture at run time: one table of functions. Each file of arch/ defines one; arch/architectures.hpp lists them.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/decoder.hpp>
#include <anybit/model/gguf_config.hpp>
#include <anybit/model/gguf_config_writer.hpp>
#include <anybit/model/hf_config.hpp>
#include <anybit/model/points.hpp>
#include <anybit/model/tokenizer/vocabulary.hpp>
#include <anybit/nn/experts.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Looks at an activation or changes it, during a forward pass. The matrix is (tokens, width) and valid during the call.
struct Tap {
  static constexpr Index every_block = -1;
  Index block = every_block;  ///< without meaning at the points that are once in a model
  Point point = Point::residual;
  std::function<void(MutableMatrix, TokenRange)> apply{};
  static constexpr Index every_expert = -1;
  Index expert = every_expert;  ///< at the points of one expert: which; called for all in turn
};

/// Matrices that a pass writes on its way, kept from block to block. An architecture numbers its own.
class Scratch {
 public:
  MutableMatrix at(std::size_t number, Index rows, Index cols) {
    if (number >= matrices_.size()) matrices_.resize(number + 1);
    if (matrices_[number].extents() != Extents{rows, cols}) matrices_[number] = Matrix(rows, cols);
    return matrices_[number].view();
  }
  Workspace workspace;
  nn::Routing routing;

 private:
  std::vector<Matrix> matrices_;
};

/// The stacks of a model: its encoder, where a decoder follows, and the one that gives its states and logits.
enum class Stack : std::uint8_t { encoder, last };

/// The stack that has the block.
inline Stack stack_of(const DecoderConfig& c, Index block) { return block < c.encoder_blocks() ? Stack::encoder : Stack::last; }

/// What a stack starts from, at positions position, position + 1, ..
struct StackInput {
  Stack stack = Stack::last;
  std::span<const TokenId> ids{};
  std::span<const TokenId> types{};  ///< of the tokens, of a model that knows types; empty: all 0
  ConstMatrix features{};            ///< (frames, bins), of a stack with DecoderForm::feature_bins, in place of ids
  Index position = 0;
};

/// One block's part of a forward pass, as Architecture::run_block is given it.
struct BlockPass {
  const Decoder& decoder;           ///< rotations
  const DecoderConfig& config;      ///< of the stack that the block is of
  std::span<const Weight> weights;  ///< of the block; it need not be one of the decoder's own
  Index block = 0, layer = 0;       ///< as taps count, and in the cache
  const nn::RopeTable& rope;
  nn::KvCache& cache;  ///< the caller advances it
  MutableMatrix x;     ///< the residual stream, (tokens, dim)
  Scratch& scratch;
  ExecutorRef executor;
  std::span<const Tap> taps;
  TokenRange positions;
  /// Of the block only what lies between: `from` is attn_in or mlp_in; the pass ends behind the taps at `until`, with x of no
  /// meaning unless that is the residual stream.
  Point from = Point::attn_in, until = Point::residual;
  std::span<const float> distance_bias{};  ///< AttentionOptions::distance_bias
  ConstMatrix memory{};                    ///< what the encoder made of the source, of blocks with cross-attention
  nn::KvCache* cross = nullptr;            ///< its keys and values, which the first pass writes; the caller advances it
  Compute attention = Compute::f32;        ///< AttentionOptions::compute

  /// Calls the taps at a point; false where the pass ends.
  bool at(Point point, MutableMatrix m) const {
    for (const Tap& t : taps)
      if (t.point == point && (t.block == block || t.block == Tap::every_block)) t.apply(m, positions);
    return point != until;
  }
  /// Likewise at a point of one expert; the pass ends behind the last of them.
  void at_expert(Point point, Index expert, MutableMatrix m) const {
    for (const Tap& t : taps)
      if (t.point == point && (t.block == block || t.block == Tap::every_block) &&
          (t.expert == expert || t.expert == Tap::every_expert))
        t.apply(m, positions);
  }
};

/// Which rows of a tensor in a file belong to one weight: q, k and v, or gate and up, may lie in one tensor, and so may one
/// matrix of every expert, or gate and up of every expert.
enum class Part : std::uint8_t { whole, q, k, v, gate, up, expert, expert_gate, expert_up };

/// Whether the tensor has such a part for each expert.
constexpr bool is_of_expert(Part part) { return part == Part::expert || part == Part::expert_gate || part == Part::expert_up; }

/// A tensor of a file as the source of one weight.
struct StoredTensor {
  std::string_view name{};  ///< behind the prefix of its block
  Part part = Part::whole;
  bool transposed = false;  ///< stored as (inputs, outputs) (Conv1D of GPT-2)
  bool less_one = false;    ///< a gain that is stored less 1 (Gemma)
  bool flattened = false;   ///< stored with more than two extents, all but the first of which are columns (convolutions)
  bool copy = false;        ///< repeats what another tensor holds, and must equal it
};

/// A weight's name in anybit, that of GGUF where GGUF does not fuse it, and where it is found: behind "blk.N." and
/// Architecture::hugging_face_block + "N." where it is of a block. "*" stands for the number of an expert.
struct TensorNames {
  std::string_view name;
  StoredTensor hugging_face;
  StoredTensor gguf{};                  ///< without a name: the weight's own
  StoredTensor hugging_face_stacked{};  ///< in files that hold all experts in one tensor, as transformers 5 does in memory
};

/// How rows of a fused q, k and v follow each other in Hugging Face's files: all of q, then all of k and of v, or for each
/// key-value head its queries, its key and its value.
enum class FusedOrder : std::uint8_t { blocks, by_head };

/// The blocks of one stack in a file.
struct BlockNames {
  std::string_view prefix{};    ///< in front of the number of the block, counted from 0 in the stack
  Index first = 0, blocks = 0;  ///< in the model
  std::span<const TensorNames> names{};
};

struct Architecture {
  std::string_view name{};  ///< general.architecture of GGUF; of the same style where GGUF has no such architecture
  std::span<const std::string_view> model_types{};  ///< model_type of config.json
  std::span<const Point> points{};
  std::span<const TensorNames> (*names)(const DecoderConfig&) = nullptr;
  std::string_view hugging_face_root = "model.";          ///< left out in some files
  std::string_view hugging_face_block = "model.layers.";  ///< in front of the number of the block
  std::string_view hugging_face_prefix{};                 ///< in front of all names in some files (BERT)
  std::string_view hugging_face_left_out{};  ///< in front of what no state or logit depends on: heads of pre-training
  // Of the encoder, where a decoder follows.
  std::span<const TensorNames> (*encoder_names)(const DecoderConfig&) = nullptr;
  std::string_view hugging_face_encoder_block{};
  FusedOrder fused_order = FusedOrder::blocks;
  nn::RopeOrder gguf_order = nn::RopeOrder::halves;                 ///< of the rows of q and k in GGUF
  nn::RopeOrder hugging_face_order = nn::RopeOrder::halves;         ///< and in Hugging Face's files
  Result<DecoderConfig> (*read_gguf)(GgufConfigReader&) = nullptr;  ///< null where GGUF has no such architecture
  /// The keys that read_gguf() asks for.
  void (*write_gguf)(GgufConfigWriter&, const DecoderConfig&) = gguf_config::write_shape;
  Result<DecoderConfig> (*read_hugging_face)(HfConfigReader&) = nullptr;
  Blueprint (*blueprint)(const DecoderConfig&) = nullptr;
  /// The residual stream before the first block of a stack: x is (positions, dim).
  void (*embed)(const Decoder&, const StackInput&, MutableMatrix x, ExecutorRef) = nullptr;
  /// Adds to pass.x what the block makes of it.
  void (*run_block)(BlockPass& pass) = nullptr;
  /// From the residual stream behind a stack's last block, which it may change, to what the head multiplies or the decoder reads.
  void (*finish)(const Decoder&, Stack, MutableMatrix x, MutableMatrix normed, ExecutorRef) = nullptr;
};

/// A decoder of this architecture whose weights are to be filled in.
inline Decoder make_decoder(const Architecture& architecture, DecoderConfig config) {
  Decoder d;
  Blueprint b = architecture.blueprint(config);
  b.architecture = &architecture;
  b.finish(config.blocks);
  d.weights.resize(b.weights.size());
  d.blueprint = std::make_shared<const Blueprint>(std::move(b));
  d.config = std::move(config);
  return d;
}

/// The model that stops behind the first `count` blocks; it shares their weights.
inline Decoder first_blocks(const Decoder& d, Index count) {
  DecoderConfig c = d.config;
  ANYBIT_CHECK(c.encoder.empty(), "first_blocks: of a model without an encoder in front of it");
  c.blocks = count;
  Decoder out = make_decoder(*d.blueprint->architecture, std::move(c));
  for (std::size_t i = 0; i < out.weights.size(); ++i)
    if (const auto same = d.blueprint->find(out.blueprint->weights[i].name)) out.weights[i] = d[*same];
  out.online = d.online, out.rotation = d.rotation;
  return out;
}

enum class NamesOf : std::uint8_t { gguf, hugging_face };

/// How files call the blocks of each stack. A model with an encoder counts blocks through both stacks, files in each.
inline std::vector<BlockNames> block_names(const Architecture& a, const DecoderConfig& c, NamesOf kind) {
  const bool gguf = kind == NamesOf::gguf;
  if (c.encoder.empty()) return {{gguf ? "blk." : a.hugging_face_block, 0, c.blocks, a.names(c)}};
  const Index first = c.encoder_blocks();
  return {{gguf ? "enc.blk." : a.hugging_face_encoder_block, 0, first, a.encoder_names(c)},
          {gguf ? "dec.blk." : a.hugging_face_block, first, c.blocks - first, a.names(c)}};
}

namespace detail {
/// "3" and "attn_q.weight" of "blk.3.attn_q.weight" with the prefix "blk."; nothing where the name is of no block.
inline std::optional<std::pair<std::string, std::string_view>> split_block(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  std::size_t digits = 0;
  while (digits < name.size() && name[digits] >= '0' && name[digits] <= '9') ++digits;
  if (digits == 0 || digits == name.size() || name[digits] != '.') return std::nullopt;
  return std::pair(std::string(name.substr(0, digits)), name.substr(digits + 1));
}
}  // namespace detail

/// The number that stands for "*" in `pattern`; nothing where `name` does not fit. A pattern without it fits itself, as 0.
inline std::optional<Index> fit_pattern(std::string_view pattern, std::string_view name) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name ? std::optional<Index>(0) : std::nullopt;
  const std::string_view before = pattern.substr(0, star), behind = pattern.substr(star + 1);
  if (name.size() <= before.size() + behind.size() || !name.starts_with(before) || !name.ends_with(behind)) return std::nullopt;
  name = name.substr(before.size(), name.size() - before.size() - behind.size());
  if (name.size() > 6 || (name.size() > 1 && name[0] == '0')) return std::nullopt;
  Index number = 0;
  for (const char digit : name) {
    if (digit < '0' || digit > '9') return std::nullopt;
    number = 10 * number + (digit - '0');
  }
  return number;
}
/// The pattern with a number in the place of "*".
inline std::string fill_pattern(std::string_view pattern, Index number) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return std::string(pattern);
  return std::string(pattern.substr(0, star)) + std::to_string(number) + std::string(pattern.substr(star + 1));
}

/// "model.layers.3.self_attn.q_proj.weight" for "blk.3.attn_q.weight"; empty where the architecture has no such tensor.
inline std::string stored_name(const Architecture& a, const DecoderConfig& config, std::string_view name, NamesOf kind) {
  std::string prefix;
  std::span<const TensorNames> names = a.names(config);
  if (const auto block = detail::split_block(name, "blk.")) {
    Index number = 0;
    std::from_chars(block->first.data(), block->first.data() + block->first.size(), number);
    for (const BlockNames& b : block_names(a, config, kind))
      if (number >= b.first) prefix = io::detail::text(b.prefix, number - b.first, "."), names = b.names;
    name = block->second;
  }
  for (const TensorNames& n : names)
    if (const auto number = fit_pattern(n.name, name)) {
      const StoredTensor& stored = kind == NamesOf::gguf ? n.gguf : n.hugging_face;
      return prefix + fill_pattern(kind == NamesOf::gguf && stored.name.empty() ? n.name : stored.name, *number);
    }
  return {};
}
inline std::string hugging_face_name(const Architecture& a, const DecoderConfig& config, std::string_view name) {
  return stored_name(a, config, name, NamesOf::hugging_face);
}

/// Every tap at a point that the architecture has, in a block that the model has.
inline Status check(const Decoder& d, std::span<const Tap> taps) {
  for (const Tap& t : taps) {
    const auto& points = d.blueprint->architecture->points;
    if (std::find(points.begin(), points.end(), t.point) == points.end()) {
      std::string all;
      for (const Point p : points) all.append(all.empty() ? "" : ", ").append(name(p));
      return {ErrorCode::invalid_argument,
              io::detail::text("forward: a tap is at ", name(t.point), ", which the ", d.blueprint->architecture->name,
                               " architecture has not: it has ", all)};
    }
    if (is_in_blocks(t.point) && (t.block < Tap::every_block || t.block >= d.config.blocks))
      return {ErrorCode::invalid_argument,
              io::detail::text("forward: a tap is in block ", t.block, ", the model has ", d.config.blocks, ", counted from 0")};
    const ExpertForm& form = d.config.form.experts;
    bool found = false;
    for (Index i = 0; i < d.config.blocks && !found; ++i)
      found = (t.block == Tap::every_block || t.block == i) && form.has_point(i, t.point);
    if (is_in_blocks(t.point) && !found)
      return {ErrorCode::invalid_argument,
              io::detail::text(
                  "forward: a tap is at ", name(t.point),
                  t.block == Tap::every_block ? std::string() : " in block " + std::to_string(t.block),
                  ", where no pass comes by: ", form.count == 0 ? "the model has no experts" : "ask ExpertForm::has_point()")};
    const Index experts = form.count;
    if (is_of_expert(t.point) && (t.expert < Tap::every_expert || (t.expert >= 0 && t.expert >= experts)))
      return {ErrorCode::invalid_argument,
              io::detail::text("forward: a tap is in expert ", t.expert, ", the model has ", experts, ", counted from 0")};
  }
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
