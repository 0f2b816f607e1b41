// How near do formats, group sizes and scale searches come to what rate-distortion theory allows? Measures the mean square
// error of each at its true rate, scales counted, on a Gaussian source, a Laplace source and, if given, the weights of a layer.
//
//   rate_distortion [--values N] [--tensor FILE NAME] [--out FOLDER] [--threads N]
//
// ctest: --values 16384 --threads 2 --out {out}/rate_distortion

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <anybit/algorithm/ldlq.hpp>
#include <anybit/core/distance.hpp>
#include <anybit/evaluate/rate_report.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/grid/group_grids.hpp>
#include <anybit/io/atomic_write.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/safetensors.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>

using namespace anybit;
using evaluate::RatePanel;
using evaluate::RateRow;

namespace {

struct SearchChoice {
  std::string name;
  GridFit fit;
};
const std::vector<SearchChoice>& searches() {
  static const std::vector<SearchChoice> all{{"none", {}},
                                             {"mse", {.search = Search::mse, .shrink = {.norm = 2}}},
                                             {"least squares", {.search = Search::least_squares}},
                                             {"half-quadratic", {.search = Search::half_quadratic}}};
  return all;
}

/// A source: its weights, and the distortions of variance 1 that they are held against.
struct Source {
  std::string name, bound_name;
  Matrix weights;
  double (*lower_bound)(double bits);
  std::function<double(double bits)> lloyd_max, entropy_coded;  // the latter may be empty
};

class Measuring {
 public:
  Measuring(const Source& source, ExecutorRef executor) : source_(source), executor_(executor) {
    panel_.source = source.name;
    panel_.lower_bound = source.bound_name;
  }

  /// One row for each search that has something to find.
  template <AnyScheme S>
  void add(bool all_searches) {
    const ConstMatrix w = source_.weights.view();
    for (const SearchChoice& choice : searches()) {
      const bool scaled = !std::is_same_v<typename S::scale_store, NoScale>;
      if (choice.fit.search != Search::none && (!scaled || (!all_searches && choice.fit.search != Search::least_squares)))
        continue;
      const auto q = grid::round_to_grid<S>(w, choice.fit, {}, executor_);
      add(S::name.view(), choice.name, S::bits_per_weight(w.extents()), relative_error(w, dequantize(q).view()));
    }
  }

  /// The codes that two passes of Viterbi's algorithm find.
  template <TrellisScheme S>
  void add_trellis() {
    const auto q = NearestTrellis<S>{}.quantize(source_.weights.view(), {}, {.executor = executor_});
    add(std::string_view(S::name), "viterbi", q->report.bits_per_weight, q->report.weight_error);
  }

  RatePanel finish() {
    std::fprintf(stderr, "\r%66s\r", "");
    for (double bits = 1; bits <= 8.5; bits += 0.25) {
      const double bound = evaluate::decibels(source_.lower_bound(bits));
      panel_.curves["Lloyd-Max"].push_back({bits, bound - evaluate::decibels(source_.lloyd_max(bits))});
      if (source_.entropy_coded)
        panel_.curves["uniform, entropy-coded"].push_back({bits, bound - evaluate::decibels(source_.entropy_coded(bits))});
    }
    return std::move(panel_);
  }

 private:
  void add(std::string_view scheme, const std::string& search, double bits, double relative_error) {
    RateRow row{std::string(scheme), search, bits, relative_error * relative_error, 0, 0};
    row.lower_bound = source_.lower_bound(bits);
    row.lloyd_max = source_.lloyd_max(bits);
    std::fprintf(stderr, "\r%-24s %-40s", source_.name.substr(0, 24).c_str(), row.scheme.c_str());
    panel_.rows.push_back(std::move(row));
  }

  const Source& source_;
  ExecutorRef executor_;
  RatePanel panel_;
};

template <int Bits>
void at_width(Measuring& m) {
  m.add<presets::ScaledSuperfloat<Bits>>(Bits == 4);
  m.add<presets::Int<Bits>>(Bits == 4);
  m.add<presets::AsymmetricInt<Bits>>(Bits == 4);
  if constexpr (Bits <= 6) {
    m.add<Scheme<LloydMax<Bits>>>(false);
    m.add<presets::NormalCodebook<Bits>>(Bits == 4);
  }
}

template <int StateBits>
void trellises(Measuring& m) {
  m.add_trellis<Trellis<StateBits, 1, Quantiles>>();
  m.add_trellis<Trellis<StateBits, 2, Quantiles>>();
  m.add_trellis<Trellis<StateBits, 3, Quantiles>>();
  m.add_trellis<Trellis<StateBits, 4, Quantiles>>();
}

RatePanel measure(const Source& source, ExecutorRef executor) {
  Measuring m(source, executor);
  at_width<2>(m), at_width<3>(m), at_width<4>(m), at_width<5>(m), at_width<6>(m), at_width<8>(m);
  // Other group sizes, at 4 bits.
  m.add<Scheme<Superfloat<4>, PerGroup<32>>>(false);
  m.add<Scheme<Superfloat<4>, PerRow, ScaleF32>>(false);
  m.add<Scheme<UInt<4>, PerGroup<32>>>(false);
  m.add<Scheme<LloydMax<4>, PerGroup<32>, DoubleQuant<256>>>(false);
  m.add<Scheme<LloydMax<4>, PerRow, ScaleF32>>(false);
  // Formats of 4 bits with scales of their own, ternary, and Superfloat as published.
  m.add<presets::Nf4DoubleQuant>(true);
  m.add<Scheme<Fp4, PerGroup<64>, DoubleQuant<256>>>(false);
  m.add<presets::Mxfp4>(false);
  m.add<Scheme<Minifloat<2, 1>, PerGroup<128>>>(false);
  m.add<presets::TernaryGroup128>(false);
  m.add<presets::PublishedSuperfloat8>(false);
  trellises<12>(m), trellises<16>(m);
  return m.finish();
}

/// Where Superfloat stands: its levels against two's complement and a codebook, in theory and as measured.
void explain_superfloat(const RatePanel& panel) {
  std::printf(
      "\nSuperfloat of b bits has 2^b - 1 levels, because zero has two codes; two's complement has one more, on the\n"
      "negative side. Best steps on N(0, 1) known to both (no scales), and what was measured on %s,\n"
      "groups of 128 with f16 scales:\n\n"
      "bits  levels  log2 levels   theory dB: superfloat     int  Lloyd-Max    measured, none: superfloat     int"
      "   least squares: superfloat     int\n",
      panel.source.c_str());
  const auto measured = [&](const std::string& format, const char* search) {
    for (const RateRow& r : panel.rows)
      if (r.search == search && r.scheme == format + "/g128/f16/bits") return evaluate::decibels(r.distortion);
    return std::nan("");
  };
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const int levels = (1 << bits) - 1;
    const evaluate::GaussianSource gaussian;
    const double superfloat = evaluate::decibels(evaluate::best_uniform(gaussian, 1 - (1 << (bits - 1)), levels).distortion),
                 integer = evaluate::decibels(evaluate::best_uniform(gaussian, -(1 << (bits - 1)), levels + 1).distortion),
                 best = evaluate::decibels(evaluate::lloyd_max(gaussian, levels + 1).distortion);
    const std::string width = std::to_string(bits);
    std::printf("%4d  %6d  %11.3f  %22.2f  %6.2f  %9.2f  %28.2f  %6.2f  %26.2f  %6.2f\n", bits, levels, std::log2(levels),
                superfloat, integer, best, measured("superfloat" + width, "none"), measured("int" + width, "none"),
                measured("superfloat" + width, "least squares"), measured("int" + width, "least squares"));
  }
}

Matrix random_matrix(Index values, bool laplace) {
  // 0.02 is the size of a language model's weights, which matters to formats without a scale.
  const Index cols = 1024, rows = std::max<Index>(1, values / cols);
  std::mt19937_64 random(laplace ? 2 : 1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::exponential_distribution<float> exponential(std::sqrt(2.0f) / 0.02f);
  Matrix w(rows, cols);
  for (Index i = 0; i < w.extents().size(); ++i)
    w.data()[i] = !laplace ? normal(random) : exponential(random) * (random() % 2 == 0 ? 1.0f : -1.0f);
  return w;
}

/// Distortion of a source's Lloyd-Max quantizers at any rate; those at whole rates and half way between are computed once.
template <class Of>
std::function<double(double)> interpolated(Of of) {
  std::vector<double> at;
  for (int i = 0; i <= 18; ++i) at.push_back(evaluate::decibels(of(0.5 * i)));
  return [at](double bits) {
    const double place = std::min(std::max(2 * bits, 0.0), 17.999);
    const auto i = static_cast<std::size_t>(place);
    return std::pow(10.0, -0.1 * (at[i] + (place - static_cast<double>(i)) * (at[i + 1] - at[i])));
  };
}

Result<Matrix> read_tensor(const std::string& path, const std::string& name) {
  if (path.ends_with(".safetensors")) {
    ANYBIT_TRY(const io::SafetensorsFile file, io::SafetensorsFile::open(path));
    return file.read_f32(name);
  }
  ANYBIT_TRY(const io::GgufFile file, io::GgufFile::open(path));
  return file.read_f32(name);
}

Status write(const std::string& path, std::string_view text) {
  ANYBIT_TRY(io::AtomicFile file, io::AtomicFile::create(path));
  ANYBIT_TRY_STATUS(file.write(text));
  return file.commit();
}

int wrong_use(const char* what) {
  std::fprintf(stderr, "%s\nusage: rate_distortion [--values N] [--tensor FILE NAME] [--out FOLDER] [--threads N]\n", what);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  Index values = Index{1} << 20, threads = static_cast<Index>(std::thread::hardware_concurrency());
  std::string file, tensor, folder;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    const auto next = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (option == "--values") {
      values = std::atol(next().c_str());
      if (values < 4096 || values > (Index{1} << 28)) return wrong_use("--values must be 4096 to 268435456");
    } else if (option == "--threads") {
      threads = std::atol(next().c_str());
      if (threads < 1 || threads > 1024) return wrong_use("--threads must be 1 to 1024");
    } else if (option == "--tensor") {
      file = next();
      tensor = next();
      if (tensor.empty()) return wrong_use("--tensor needs a file (GGUF or safetensors) and the name of a matrix in it");
    } else if (option == "--out") {
      folder = next();
      if (folder.empty()) return wrong_use("--out needs a folder");
    } else {
      return wrong_use(("unknown option " + std::string(option)).c_str());
    }
  }
  ThreadPool pool(std::max<Index>(1, threads));

  std::vector<Source> sources;
  const evaluate::GaussianSource gaussian;
  const evaluate::LaplaceSource laplace;
  sources.push_back({"Gaussian", "D(R)", random_matrix(values, false), evaluate::gaussian_distortion,
                     [=](double bits) { return evaluate::lloyd_max_distortion(gaussian, bits); },
                     [=](double bits) { return evaluate::entropy_coded_uniform(gaussian, bits).distortion; }});
  sources.push_back({"Laplace", "Shannon's bound", random_matrix(values, true),
                     [](double bits) { return evaluate::shannon_lower_bound(evaluate::LaplaceSource{}, bits); },
                     [=](double bits) { return evaluate::lloyd_max_distortion(laplace, bits); },
                     [=](double bits) { return evaluate::entropy_coded_uniform(laplace, bits).distortion; }});
  if (!file.empty()) {
    Result<Matrix> weights = read_tensor(file, tensor);
    if (!weights) return std::fprintf(stderr, "%s\n", weights.error().message.c_str()), 3;
    if (const Status good = grid::check_weights(weights->view()); !good)
      return std::fprintf(stderr, "%s: %s\n", tensor.c_str(), good.error().message.c_str()), 3;
    const evaluate::SampleSource samples(
        std::span<const float>(weights->data(), static_cast<std::size_t>(weights->extents().size())));
    const double variance = samples.variance();
    if (!(variance > 0)) return std::fprintf(stderr, "%s: all weights are equal\n", tensor.c_str()), 3;
    sources.push_back({tensor,
                       "D(R) of a Gaussian",
                       *std::move(weights),
                       evaluate::gaussian_distortion,
                       interpolated([&](double bits) { return evaluate::lloyd_max_distortion(samples, bits) / variance; }),
                       {}});
  }

  std::vector<RatePanel> panels;
  for (const Source& source : sources) {
    panels.push_back(measure(source, pool));
    std::printf("%s\n", evaluate::table(panels.back()).c_str());
  }
  explain_superfloat(panels.front());

  if (folder.empty()) return 0;
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  const std::vector<evaluate::RateSeries> series{
      {"superfloat g128, plain", "superfloat", "/g128/f16/bits", "none"},
      {"superfloat g128, least squares", "superfloat", "/g128/f16/bits", "least squares"},
      {"int g128, least squares", "int", "/g128/f16/bits", "least squares"},
      {"uint g128, least squares", "uint", "/g128/f16/bits", "least squares"},
      {"lloydmax g128, least squares", "lloydmax", "/g128/dq256/bits", "least squares"},
      {"nf4 g64, plain", "nf4", "/g64/dq256/bits", "none"},
      {"e2m1 (MXFP4)", "e2m1", "/g32/e8m0/bits", "none"},
      {"trellis of 12 bits of state", "trellis12k", "/quantiles/row/f16", "viterbi"},
      {"trellis of 16 bits of state", "trellis16k", "/quantiles/row/f16", "viterbi"}};
  for (const Status& done :
       {write(folder + "/rate_distortion.json", evaluate::json(panels)),
        write(folder + "/rate_distortion.svg",
              evaluate::svg(panels, series, "How far from the least distortion that the rate allows", {.least_bits = 0.75}))})
    if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 4;
  std::printf("\nwritten: %s/rate_distortion.json, %s/rate_distortion.svg\n", folder.c_str(), folder.c_str());
  return 0;
}
