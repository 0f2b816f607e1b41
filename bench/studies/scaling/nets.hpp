#pragma once
// The models of the scaling laws: llamas of a few thousand weights over bytes, trained from random weights on one text, with or
// without Superfloat's grid in the forward pass.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/model/decoder.hpp>
#include <anybit/train/loss.hpp>
#include <anybit/train/trainer.hpp>

namespace study {

using anybit::Index;

/// A text as bytes, in three parts: six eighths to train on, one to tune on, one that nothing has seen.
struct Corpus {
  std::vector<anybit::model::TokenId> bytes;

  std::span<const anybit::model::TokenId> train() const { return part(0, 6); }
  std::span<const anybit::model::TokenId> tune() const { return part(6, 7); }
  std::span<const anybit::model::TokenId> test() const { return part(7, 8); }

 private:
  std::span<const anybit::model::TokenId> part(std::size_t begin, std::size_t end) const {
    const std::size_t a = bytes.size() * begin / 8, b = bytes.size() * end / 8;
    return std::span(bytes).subspan(a, b - a);
  }
};

Corpus corpus_of(std::string_view text);

/// Two blocks, heads of 8 channels, three times as wide inside. Linears, embedding too, are uniform within +-1 / sqrt(inputs), as
/// torch makes them. `seed` decides them.
anybit::model::Decoder make_net(Index width, std::uint64_t seed);

/// Weights of the linears of the blocks: what a grid is for.
Index block_weights(Index width);

/// How a grid is used, in training or behind it.
enum class Use : std::uint8_t {
  floats,
  plain,      ///< weights as they are, clamped to the range: published
  norms,      ///< q, k, v, gate, up have absorbed their scale at the start: published as "ln"; o and down are plain
  rows,       ///< a scale per row, learned where it trains
  exact,      ///< scales absorbed everywhere so that all folds; behind training only
  published,  ///< the code of 2025 with its defects: rounded once toward zero, signs inverted, then trained as floats
};
inline constexpr std::string_view use_names[] = {"float", "plain", "norms", "rows", "exact", "published"};

struct Grid {
  Use use = Use::floats;
  int bits = 16;

  std::string name() const;  ///< "plain SF4"
};

struct Training {
  double tokens = 0;    ///< seen in all; passes over the text repeat it in another order
  Index context = 256;  ///< tokens of an example
  Index batch = 512;    ///< tokens of a step
  double rate = 3e-3;
  bool falls = true;  ///< the rate by a cosine; else constant
  std::uint64_t seed = 1;
  std::string state{};                       ///< a file that keeps a finished or interrupted run; empty: none
  anybit::train::Trained trained{};          ///< empty: all
  std::function<void(Index step)> behind{};  ///< a step
};

/// Trains d on `text`; it ends with the rounded weights that the loss has seen.
anybit::Status train_net(anybit::model::Decoder& d, std::span<const anybit::model::TokenId> text, const Grid& grid,
                         const Training& how);

/// d rounded without training.
anybit::Result<anybit::model::Decoder> rounded(const anybit::model::Decoder& d, const Grid& grid);

struct Measured {
  double loss = 0;                ///< nats per byte
  double accuracy = 0;            ///< share of bytes that are predicted best
  std::vector<double> by_window;  ///< mean loss of each
};

/// Windows of `length`, evenly spaced over the text.
anybit::Result<Measured> measure(const anybit::model::Decoder& d, std::span<const anybit::model::TokenId> text, Index length,
                                 Index windows);

/// Share of the blocks' weights that are 0.
double dead_share(const anybit::model::Decoder& d);

}  // namespace study
