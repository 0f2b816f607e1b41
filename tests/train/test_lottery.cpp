// Sparse training and lottery tickets on a small decoder: masks hold, shares are those asked for, networks rewind.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/train/lottery/tickets.hpp>
#include <anybit/train/trainer.hpp>

#include "support/catch.hpp"
#include "train/small_decoder.hpp"
#include "train/wheel.hpp"

using namespace anybit;
using namespace train_tests;
namespace lottery = anybit::train::lottery;

namespace {

struct Rounds {
  Wheel data;
  std::vector<std::vector<float>> starts;  ///< the first matrix as each round got it
  std::vector<double> sparsities;

  lottery::TrainRound train_round() {
    return [this](model::Decoder& d, const lottery::Kept& masks, Index) -> Result<double> {
      starts.push_back(lottery::values_of(d).begin()->second);
      sparsities.push_back(lottery::sparsity(masks));
      train::TrainOptions o;
      o.epochs = 30, o.batch = 3;
      o.schedule = {train::Decay::cosine, 1e-2, 4, 0, 0};
      o.reparametrize = lottery::under(masks);
      double last = 0;
      ANYBIT_TRY_STATUS(train::train_decoder(d, data.examples, train::all_weights, o,
                                             [&](const train::TrainStep& s) { return last = s.loss, true; }));
      for (const auto& [name, values] : lottery::values_of(d)) {
        const auto& kept = masks.find(name)->second;
        for (std::size_t i = 0; i < values.size(); ++i)
          if (!kept[i] && values[i] != 0) return {ErrorCode::invalid_argument, name + ": a pruned weight has moved"};
      }
      return last;
    };
  }
};

/// The share of each matrix that is gone, which is that of all: no rounding by more than one weight.
void check_shares(const lottery::Kept& masks, double share) {
  for (const auto& [name, kept] : masks) {
    const auto zeros = static_cast<double>(std::count(kept.begin(), kept.end(), std::uint8_t{0}));
    INFO(name);
    CHECK(std::abs(zeros - share * static_cast<double>(kept.size())) <= 1);
  }
}

}  // namespace

TEST_CASE("lottery: iterative magnitude pruning rewinds and its masks only grow") {
  for (const bool rewinds : {true, false}) {
    Rounds data;
    model::Decoder d = small_llama();
    const auto first = lottery::values_of(d);
    const auto ticket =
        lottery::iterative_magnitude_pruning(d, {.share = 0.6, .rounds = 3, .rewinds = rewinds}, data.train_round());
    INFO((ticket ? std::string() : ticket.error().message));
    REQUIRE(ticket.ok());
    check_shares(ticket->masks, 0.6);
    REQUIRE(data.starts.size() == 4);
    for (std::size_t r = 1; r < 4; ++r) {
      CHECK(data.sparsities[r] > data.sparsities[r - 1]);
      const std::vector<float>& original = first.begin()->second;
      Index moved = 0;
      for (std::size_t i = 0; i < original.size(); ++i) {
        moved += data.starts[r][i] != 0 && data.starts[r][i] != original[i];
        if (data.starts[r - 1][i] == 0 && r > 1) CHECK(data.starts[r][i] == 0);
      }
      CHECK((moved == 0) == rewinds);
    }
    CHECK(ticket->losses.back() < 1.5);
    CHECK(lottery::sparsity(lottery::masks_of_zeros(d)) == Approx(0.6).margin(0.01));
  }
}

TEST_CASE("lottery: MPLTH adds its rates up unless it is as published") {
  Rounds published, added;
  model::Decoder a = small_llama(), b = small_llama();
  const auto one = lottery::mplth(a, {}, published.train_round());
  REQUIRE(one.ok());
  check_shares(one->masks, 0.3);
  const auto other = lottery::mplth(b, {.as_published = false}, added.train_round());
  REQUIRE(other.ok());
  CHECK(lottery::sparsity(other->masks) == Approx(1 - 0.9 * 0.8 * 0.7).margin(0.01));
}

TEST_CASE("lottery: annealed networks are merged and pruned to the share") {
  Rounds data;
  model::Decoder d = small_llama();
  const auto ticket = lottery::sa_mplth(d, {.epochs = 2, .seed = 1, .share = 0.5}, data.train_round());
  INFO((ticket ? std::string() : ticket.error().message));
  REQUIRE(ticket.ok());
  CHECK(data.starts.size() == 7);
  check_shares(ticket->masks, 0.5);
  CHECK(ticket->losses.back() < 1.5);
  Rounds again;
  model::Decoder same = small_llama();
  CHECK(lottery::sa_mplth(same, {.epochs = 2, .seed = 1, .share = 0.5}, again.train_round())->losses == ticket->losses);
}
