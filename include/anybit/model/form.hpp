#pragma once
// The form of a stack of blocks as data: which norms stand where, what attention sees and adds to the products of queries and
// keys, how positions enter. model/arch/decoder_block.hpp computes every form; an architecture's file says which is its own.

#include <cstdint>
#include <vector>

#include <anybit/core/types.hpp>
#include <anybit/model/points.hpp>
#include <anybit/nn/activation_kind.hpp>
#include <anybit/nn/router_weights.hpp>

namespace anybit::model {
inline namespace ANYBIT_ABI {

enum class NormKind : std::uint8_t {
  rms,         ///< RMSNorm, a gain
  layer,       ///< LayerNorm, a gain and a bias
  layer_gain,  ///< LayerNorm, a gain only (PaLM)
};

/// With A the attention, M the MLP, and n norms of their own.
enum class BlockOrder : std::uint8_t {
  pre,           ///< x += A(n1 x); x += M(n2 x)
  post,          ///< x = n1(x + A x); x = n2(x + M x)
  sandwich,      ///< x += n2(A(n1 x)); x += n4(M(n3 x))
  parallel,      ///< x += A(n x) + M(n x)
  parallel_two,  ///< x += A(n1 x) + M(n2 x), both of the same x
};

enum class HeadNorm : std::uint8_t {
  none,
  rms,    ///< queries and keys, head by head, before positions turn them
  layer,  ///< likewise, with a bias
};

enum class Positions : std::uint8_t {
  rotary,
  learned,   ///< a table that is added to the embeddings
  alibi,     ///< a slope per head, subtracted from scores times the distance (arXiv:2108.12409)
  relative,  ///< a number per head and bucket of distances, added to scores (T5, arXiv:1910.10683)
};

/// A mixture of experts in the place of the feed-forward part: y = sum of w_e E_e(x) over the chosen experts e, plus a shared
/// expert that sees every token. Each expert is gated as the form says.
struct ExpertForm {
  Index count = 0;   ///< experts of a block; 0: the form has none
  Index used = 0;    ///< of them per token
  Index hidden = 0;  ///< width inside an expert
  nn::RouterWeights weights = nn::RouterWeights::softmax;
  Index shared_hidden = 0;             ///< width inside the shared expert; 0: there is none
  bool shared_gate = false;            ///< its output is multiplied by sigmoid(g x), g a row of its own
  std::vector<std::uint8_t> sparse{};  ///< per block, whether it has experts; empty: all have

  /// Whether a pass comes by the point in a block.
  bool has_point(Index block, Point p) const {
    if (p == Point::router || is_of_expert(p)) return in(block);
    return p != Point::mlp_hidden || !in(block) || shared_hidden > 0;
  }
  bool in(Index block) const { return count > 0 && (sparse.empty() || sparse[static_cast<std::size_t>(block)] != 0); }
  friend bool operator==(const ExpertForm&, const ExpertForm&) = default;
};

/// Every default is llama's.
struct DecoderForm {
  NormKind norm = NormKind::rms;
  BlockOrder order = BlockOrder::pre;
  HeadNorm head_norm = HeadNorm::none;
  Positions positions = Positions::rotary;
  bool final_norm = true;
  bool gated = true;  ///< down(a(gate x) * up x), else down(a(up x))
  nn::Activation activation = nn::Activation::silu;
  bool qkv_bias = false, output_bias = false, mlp_bias = false, head_bias = false;
  Index embedding_width = 0;             ///< > 0: embedding and head are so wide, with a projection into and out of the stream
  float embedding_scale = 1;             ///< of embeddings, before positions are added
  Index position_offset = 0;             ///< row of a learned table that is position 0
  float attention_scale = 0;             ///< of the products of queries and keys; 0: 1 / sqrt(head_dim)
  bool scale_by_layer = false;           ///< that scale is divided by the number of the block, counted from 1
  float attention_cap = 0;               ///< c > 0: c tanh(s / c) in place of every score s
  float logit_cap = 0;                   ///< likewise of every logit
  float alibi_scale = 1;                 ///< of the slopes of Positions::alibi
  Index window = 0;                      ///< w > 0: a query sees positions less than w away from its own
  std::vector<std::uint8_t> windowed{};  ///< per block, whether the window holds there; empty: in all
  bool causal = true;                    ///< false: a token sees the whole sequence, which comes at once (encoders)
  bool cross_attention = false;          ///< between attention and MLP, to what the encoder makes of the source
  bool k_bias = true;                    ///< whether k has a bias where q and v have one (Whisper: no)
  bool embedding_norm = false;           ///< a norm behind embeddings and positions (BERT)
  bool pooler = false;                   ///< a linear and tanh on the state of the first token (BERT), if the file has it
  bool head = true;                      ///< false: states and no logits are what the model gives
  bool logit_bias = false;               ///< added to logits, of a head that may be the embedding (BART)
  float logit_scale = 1;                 ///< of logits, before their cap (T5 1.0)
  Index token_types = 0;                 ///< rows of a table that is added to embeddings by the type of a token (BERT)
  Index relative_buckets = 0;            ///< of Positions::relative
  Index relative_distance = 0;           ///< distances from here on share the last bucket
  Index feature_bins = 0;                ///< > 0: the input is features, so many per frame, through two convolutions (Whisper)
  ExpertForm experts{};

  Index window_of(Index block) const { return windowed.empty() || windowed[static_cast<std::size_t>(block)] != 0 ? window : 0; }
  /// The window holds in the blocks of which `has_window(i)` is true. So many blocks as no model has are left out, so that a
  /// damaged number takes no memory; check() refuses it then.
  template <class HasWindow>
  void set_windowed(Index blocks, HasWindow has_window) {
    windowed.clear();
    for (Index i = 0; i < blocks && i < 65536; ++i) windowed.push_back(has_window(i) ? 1 : 0);
  }
  /// Likewise of blocks with experts; empty where all have them.
  template <class HasExperts>
  void set_sparse(Index blocks, HasExperts has_experts) {
    bool all = true;
    experts.sparse.clear();
    for (Index i = 0; i < blocks && i < 65536; ++i) {
      experts.sparse.push_back(has_experts(i) ? 1 : 0);
      all = all && experts.sparse.back() != 0;
    }
    if (all && blocks <= 65536) experts.sparse.clear();
  }
  bool parallel() const { return order == BlockOrder::parallel || order == BlockOrder::parallel_two; }
  friend bool operator==(const DecoderForm&, const DecoderForm&) = default;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::model
