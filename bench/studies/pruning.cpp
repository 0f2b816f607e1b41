// Prunes linears of one block of a real model by every method and prints what each does to their outputs. Without arguments a
// made-up layer shows the same.
// pruning [MODEL TEXT [BLOCK]]    calibrates on 8192 tokens of the second half of the text

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include <anybit/anybit.hpp>
#include <anybit/model/load.hpp>

using namespace anybit;

namespace {

constexpr Index window = 512, windows = 16;

struct Layer {
  std::string name;
  Matrix weights;
  Stats stats;
};

void print(const char* name, const Result<Pruned>& p) {
  if (p)
    std::printf("  %-38s %6.2f %%  zeros %5.2f %%\n", name, 100 * p->report.output_error.value_or(0), 100 * p->mask.sparsity());
  else
    std::printf("  %-38s %s\n", name, p.error().message.c_str());
}

template <class S>
void print(const char* name, const Result<Quantized<S>>& q) {
  if (q)
    std::printf("  %-38s %6.2f %%  %.3f bits per weight\n", name, 100 * q->report.output_error.value_or(0),
                pack(q->matrix).bits_per_weight());
  else
    std::printf("  %-38s %s\n", name, q.error().message.c_str());
}

void show(const Layer& l) {
  std::printf("%s (%td x %td): error of the outputs\n", l.name.c_str(), l.weights.rows(), l.weights.cols());
  const ConstMatrix w = l.weights.view();
  for (const Sparsity& s : {Sparsity{.share = 0.5}, Sparsity::n_of_m(4, 8), Sparsity::n_of_m(2, 4)}) {
    const std::string at = " " + s.describe();
    print(("magnitude" + at).c_str(), Magnitude{s}.prune(w, l.stats));
    print(("wanda" + at).c_str(), Wanda{s}.prune(w, l.stats));
    print(("sparsegpt" + at).c_str(), SparseGpt{.sparsity = s}.prune(w, l.stats));
  }
  using Sparse = presets::SparseInt<4>;
  const Sparsity s = Sparsity::n_of_m(2, 4);
  print("2:4 and 4 bits: sparsegpt, then nearest", PrunedNearest<SparseGpt, Sparse>{{.sparsity = s}}.quantize(w, l.stats));
  print("2:4 and 4 bits: joint", SparseGptq<Sparse>{.pruner = {.sparsity = s}}.quantize(w, l.stats));
  print("2:4 and 4 bits: joint, pruned_grids",
        SparseGptq<Sparse>{.pruner = {.sparsity = s}, .pruned_grids = true}.quantize(w, l.stats));
  print("gptq, 3 bits", Gptq<SInt<3>, PerGroup<128>>{}.quantize(w, l.stats));
}

int made_up() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Matrix x(512, 192);
  for (Index t = 0; t < x.rows(); ++t)
    for (Index j = 0; j < x.cols(); ++j)
      x(t, j) = (j % 16 == 0 ? 4.0f : 1.0f) * normal(random) + (j > 0 ? 0.6f * x(t, j - 1) : 0.0f);
  Layer l{"a made-up layer", Matrix(96, 192), Stats(192, Needs::mean_square | Needs::hessian)};
  for (Index i = 0; i < l.weights.extents().size(); ++i) l.weights.data()[i] = 0.05f * normal(random);
  if (const Status ok = l.stats.accumulate(x.view()); !ok) return std::fprintf(stderr, "%s\n", ok.error().message.c_str()), 1;
  show(l);
  return 0;
}

int real(const std::string& model_path, const std::string& text_path, Index block) {
  const auto failed = [](const Error& e) { return std::fprintf(stderr, "%s\n", e.message.c_str()), 1; };
  const auto m = model::load_model(model_path);
  if (!m) return failed(m.error());
  const auto& d = m->decoder;
  if (block < 0 || block >= d.config.blocks) return std::fprintf(stderr, "the model has %td blocks\n", d.config.blocks), 1;
  std::ifstream file(text_path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto ids = m->tokenizer.encode(text);
  if (!ids) return failed(ids.error());
  const auto half = static_cast<Index>(ids->size()) / 2;
  if (half < windows * window) return std::fprintf(stderr, "%s: too short\n", text_path.c_str()), 1;

  std::vector<Layer> layers;
  for (const char* const name : {"attn_q", "attn_output", "ffn_up", "ffn_down"}) {  // one of each site, in their order
    const nn::Linear& linear = d.linear(block, name);
    layers.push_back({"blk." + std::to_string(block) + "." + name, Matrix(*linear.dense()),
                      Stats(linear.extents().cols, Needs::mean_square | Needs::hessian)});
  }
  ThreadPool pool;
  Status status = Ok{};
  const auto sites = d.blueprint->sites_of(block);
  const auto taps = model::site_taps(*d.blueprint, sites, [&](model::SiteId site, ConstMatrix x) {
    if (status) status = layers[model::place(site) - model::place(sites.front())].stats.accumulate(x);
  });
  for (Index i = 0; i < windows; ++i) {
    nn::KvCache cache(cache_shape(d.config), window);
    const auto hidden = model::hidden_states(
        d, std::span(*ids).subspan(static_cast<std::size_t>(half + i * window), static_cast<std::size_t>(window)), cache,
        {pool, taps});
    if (!hidden) return failed(hidden.error());
  }
  if (!status) return failed(status.error());
  for (const Layer& l : layers) show(l);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 1) return made_up();
  if (count < 3) return std::fprintf(stderr, "pruning [MODEL TEXT [BLOCK]]\n"), 1;
  return real(arguments[1], arguments[2], count > 3 ? std::atoi(arguments[3]) : 10);
}
