// Sparse models of one share: pruned once, pruned once and trained on, and as lottery tickets; the loss of each on text that none
// has seen. Without arguments a small random model shows the same. lottery_tickets [MODEL TEXT [SHARE [EPOCHS [RATE]]]]    trains
// on the first seven eighths of the text

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/load.hpp>
#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/sparse_gpt.hpp>
#include <anybit/prune/wanda.hpp>
#include <anybit/quantize/model_stats.hpp>
#include <anybit/train/lottery/tickets.hpp>
#include <anybit/train/trainer.hpp>

using namespace anybit;
namespace lottery = train::lottery;

namespace {

ThreadPool& pool() {
  static ThreadPool all;
  return all;
}

struct Study {
  model::Decoder model;
  std::vector<std::vector<model::TokenId>> texts;  ///< of one length
  double share = 0.5, rate = 1e-3;
  Index epochs = 3;

  std::vector<train::Example> examples(std::size_t begin, std::size_t end) const {
    std::vector<train::Example> out;
    for (std::size_t i = begin; i < end; ++i) out.push_back({texts[i], {}});
    return out;
  }
  std::size_t cut() const { return std::max<std::size_t>(1, texts.size() * 7 / 8); }

  /// Mean loss on the last eighth.
  double test(const model::Decoder& d) {
    train::Gradients none(d.weights.size());
    const auto loss = train::loss_and_gradients(d, examples(cut(), texts.size()), none, {.executor = pool()});
    return loss ? loss->mean() : -1;
  }
  Result<double> tune(model::Decoder& d, const lottery::Kept& masks, Index passes) {
    train::TrainOptions o;
    o.epochs = passes, o.batch = 16, o.seed = 1, o.loss.executor = pool(), o.loss.recompute_blocks = false;
    o.schedule = {.decay = train::Decay::cosine, .peak = rate, .warm_up = 10};
    o.adamw.weight_decay = 0;
    o.reparametrize = lottery::under(masks);
    ANYBIT_TRY_STATUS(train::train_decoder(d, examples(0, cut()), train::all_weights, o));
    return test(d);
  }
  /// Every linear of the blocks by a pruning method, with statistics of the float model.
  template <class Pruner>
  model::Decoder pruned(const Pruner& method, const model::ModelStats& stats) const {
    model::Decoder d = model;
    const model::Blueprint& b = *d.blueprint;
    for (std::size_t i = 0; i < b.sites.size(); ++i)
      for (const model::WeightId id : b.sites[i].readers) {
        const auto p = method.prune(d[id].linear.dense()->view(), stats.at(static_cast<model::SiteId>(i), Needs::hessian));
        if (!p) {
          std::fprintf(stderr, "%s: %s\n", b[id].name.c_str(), p.error().message.c_str());
          continue;
        }
        d[id].linear = d[id].linear.with_weights(nn::Linear(Matrix(p->weights.view())));
      }
    return d;
  }

  int run() {
    model::ModelStats stats(model, Needs::mean_square | Needs::hessian);
    for (std::size_t i = 0; i < cut(); ++i)
      if (const auto hidden = stats.accumulate(model, texts[i], pool()); !hidden)
        return std::fprintf(stderr, "%s\n", hidden.error().message.c_str()), 1;
    const auto row = [](const std::string& name, double once, double tuned) {
      std::printf("%-34s %9.4f %9.4f\n", name.c_str(), once, tuned);
    };
    constexpr Index rounds = 3;
    std::printf("%.0f %% of the weights of every linear; %zu and %zu texts; loss, and behind %td epochs of training\n",
                100 * share, cut(), texts.size() - cut(), (rounds + 1) * epochs);
    model::Decoder dense = model;
    const auto tuned = tune(dense, lottery::dense_masks(dense), (rounds + 1) * epochs);
    row("dense", test(model), tuned ? *tuned : -1);
    const auto both = [&](const std::string& name, model::Decoder d) {
      const double once = test(d);
      const auto behind = tune(d, lottery::masks_of_zeros(d), (rounds + 1) * epochs);
      row(name, once, behind ? *behind : -1);
    };
    both("magnitude", pruned(Magnitude{{share}}, stats));
    both("wanda", pruned(Wanda{{share}}, stats));
    both("sparsegpt", pruned(SparseGpt{.sparsity = {share}}, stats));
    const lottery::TrainRound round = [&](model::Decoder& d, const lottery::Kept& masks, Index) {
      return tune(d, masks, epochs);
    };
    const auto ticket = [&](const std::string& name, auto&& find) {
      model::Decoder d = model;
      const Result<lottery::Ticket> t = find(d);
      if (!t) return static_cast<void>(std::fprintf(stderr, "%s: %s\n", name.c_str(), t.error().message.c_str()));
      const double zeros = lottery::sparsity(lottery::masks_of_zeros(d));
      char sparse[16];
      std::snprintf(sparse, sizeof sparse, ", %.1f %%", 100 * zeros);
      row(name + sparse, t->losses.front(), t->losses.back());
    };
    ticket("imp, rewinding",
           [&](model::Decoder& d) { return lottery::iterative_magnitude_pruning(d, {.share = share, .rounds = rounds}, round); });
    ticket("imp, without rewinding", [&](model::Decoder& d) {
      return lottery::iterative_magnitude_pruning(d, {.share = share, .rounds = rounds, .rewinds = false}, round);
    });
    ticket("mplth as published", [&](model::Decoder& d) { return lottery::mplth(d, {}, round); });
    ticket("mplth", [&](model::Decoder& d) { return lottery::mplth(d, {.as_published = false}, round); });
    ticket("sa-mplth", [&](model::Decoder& d) {
      lottery::SaMplth method;
      method.epochs = 1, method.share = share;
      return lottery::sa_mplth(d, method, round);
    });
    return 0;
  }
};

/// Random weights, and sequences that count up.
Study made_up() {
  Study s;
  model::DecoderConfig c;
  c.vocabulary = 16, c.dim = 16, c.hidden = 24, c.blocks = 2, c.heads = c.kv_heads = 2, c.head_dim = c.rotary_dim = 8;
  c.context = 32;
  s.model = make_decoder(model::llama_architecture, c);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < s.model.weights.size(); ++i) {
    const model::WeightSpec& spec = s.model.blueprint->weights[i];
    if (spec.optional) continue;
    if (!spec.multiplies()) {
      s.model.weights[i].values.assign(static_cast<std::size_t>(spec.shape.cols), 1.0f);
      continue;
    }
    Matrix w(spec.shape.rows, spec.shape.cols);
    for (Index j = 0; j < w.extents().size(); ++j) w.data()[j] = 0.2f * normal(random);
    s.model.weights[i].linear = nn::Linear(std::move(w));
  }
  for (int first = 0; first < 16; ++first) {
    std::vector<model::TokenId>& ids = s.texts.emplace_back();
    for (int t = 0; t < 12; ++t) ids.push_back((first + 5 * t) % 16);
  }
  s.rate = 1e-2;
  return s;
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 1) return made_up().run();
  if (count < 3) return std::fprintf(stderr, "lottery_tickets [MODEL TEXT [SHARE [EPOCHS [RATE]]]]\n"), 1;
  const auto failed = [](const Error& e) { return std::fprintf(stderr, "%s\n", e.message.c_str()), 1; };
  auto m = model::load_model(arguments[1]);
  if (!m) return failed(m.error());
  std::ifstream file(arguments[2], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto ids = m->tokenizer.encode(text);
  if (!ids) return failed(ids.error());
  Study s;
  constexpr std::ptrdiff_t length = 128;
  for (auto at = ids->begin(); ids->end() - at >= length; at += length) s.texts.emplace_back(at, at + length);
  if (s.texts.size() < 16) return std::fprintf(stderr, "%s: too short\n", arguments[2]), 1;
  s.model = std::move(m->decoder);
  if (count > 3) s.share = std::atof(arguments[3]);
  if (count > 4) s.epochs = std::atoi(arguments[4]);
  if (count > 5) s.rate = std::atof(arguments[5]);
  return s.run();
}
