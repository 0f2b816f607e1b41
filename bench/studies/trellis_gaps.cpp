// How far trellis codes are from the least possible error of normal weights, and the time that the search and the products take.
//   trellis_gaps          a table of 10 log10(error / 4^-bits), all bytes counted
//   trellis_gaps search   milliseconds of a search, one thread
//   trellis_gaps speed    milliseconds of products and the ratio to the integer scheme of as many bits, in turn, one thread

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/algorithm/ldlq.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/kernel/any_packed.hpp>

using namespace anybit;

namespace {

Matrix normal(Index rows, Index cols) {
  std::mt19937 random(1);
  std::normal_distribution<float> distribution;
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = distribution(random);
  return m;
}

template <class S>
void gap(Index cols) {
  const auto q = NearestTrellis<S>{}.quantize(normal(16, cols).view(), Stats{});
  if (!q) return;
  const double error = q->report.weight_error;
  std::printf("  %-28s %6.3f bits  error %.5f  %5.2f dB\n", std::string(std::string_view(S::name)).c_str(),
              q->report.bits_per_weight, error * error,
              10 * std::log10(error * error * std::pow(4.0, q->report.bits_per_weight)));
}
template <int L, class Book>
void gaps(Index cols) {
  gap<Trellis<L, 1, Book>>(cols), gap<Trellis<L, 2, Book>>(cols), gap<Trellis<L, 3, Book>>(cols), gap<Trellis<L, 4, Book>>(cols);
}
template <int L>
void gaps_of_pairs(Index cols) {
  gap<Trellis<L, 3, BytePairs>>(cols), gap<Trellis<L, 4, BytePairs>>(cols), gap<Trellis<L, 5, BytePairs>>(cols);
  gap<Trellis<L, 6, BytePairs>>(cols);
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class S>
void search_time() {
  const Matrix w = normal(16, 256);
  const NearestTrellis<S> method{.gain = 1};
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double start = seconds();
    if (!method.quantize(w.view(), Stats{})) return;
    least = std::min(least, (seconds() - start) / 16);
  }
  std::printf("  %-28s %7.3f ms a tile\n", std::string(std::string_view(S::name)).c_str(), 1e3 * least);
}

/// Copies of a matrix that together are larger than the caches, so that each product reads its weights from memory.
std::vector<AnyPacked> copies(AnyPacked (*another)(), Index cache) {
  std::vector<AnyPacked> all;
  for (Index held = 0; held <= cache; held += all.back().payload_bytes()) {
    all.push_back(another());
    all.back().prepare(Compute::int8_per_token);
  }
  return all;
}

/// Median times of products of schemes in turn, and the ratio to the first of them.
void speed(std::string_view title, std::initializer_list<AnyPacked (*)()> schemes, Index tokens, Index cache) {
  std::vector<std::vector<AnyPacked>> held;
  for (const auto another : schemes) held.push_back(copies(another, cache));
  const Extents e = held[0][0].extents();
  const Matrix x = normal(tokens, e.cols);
  Matrix y(tokens, e.rows);
  Workspace workspace;
  Serial serial;
  const int rounds = tokens > 1 ? 9 : 101;
  std::vector<std::vector<double>> times(held.size());
  for (int i = 0; i < rounds; ++i)
    for (std::size_t s = 0; s < held.size(); ++s) {
      const AnyPacked& w = held[s][static_cast<std::size_t>(i) % held[s].size()];
      const double start = seconds();
      w.matmul(x.view(), y.view(), Compute::int8_per_token, serial, workspace);
      times[s].push_back(seconds() - start);
    }
  double first = 0;
  std::printf("%s\n", std::string(title).c_str());
  for (std::size_t s = 0; s < held.size(); ++s) {
    std::sort(times[s].begin(), times[s].end());
    const double median = times[s][times[s].size() / 2], quarter = times[s][times[s].size() / 4];
    if (s == 0) first = median;
    std::printf("  %-32s %8.3f ms, lower quartile %8.3f, speed %5.2f of the first\n",
                std::string(held[s][0].scheme_name()).c_str(), 1e3 * median, 1e3 * quarter, first / median);
  }
}

template <class... S>
void speed_of(std::string_view title, Index tokens, Index cache) {
  speed(title, {+[] { return AnyPacked(PackedTensor<S>::allocate({4096, 4096}, false, "zeros")); }...}, tokens, cache);
}

void speeds() {
  using I2 = Scheme<UInt<2>, PerGroup<128>, ScaleF16>;
  using I3 = Scheme<UInt<3>, PerGroup<128>, ScaleF16>;
  for (const auto& [where, cache] : {std::pair{"cache", Index{0}}, std::pair{"memory", Index{96} << 20}}) {
    speed_of<I2, Trellis<12, 2, Quantiles>, Trellis<16, 2, Quantiles>, Trellis<16, 2, ByteSum>, Trellis<16, 4, BytePairs>>(
        std::string("one token, 2 bits, from ") + where, 1, cache);
    speed_of<I3, Trellis<12, 3, Quantiles>, Trellis<16, 3, Quantiles>, Trellis<16, 3, ByteSum>, Trellis<16, 6, BytePairs>>(
        std::string("one token, 3 bits, from ") + where, 1, cache);
  }
  speed_of<I2, Trellis<12, 2, Quantiles>, Trellis<16, 2, Quantiles>, Trellis<16, 2, ByteSum>, Trellis<16, 4, BytePairs>>(
      "512 tokens, 2 bits", 512, 0);
  speed_of<I3, Trellis<12, 3, Quantiles>, Trellis<16, 3, Quantiles>, Trellis<16, 3, ByteSum>, Trellis<16, 6, BytePairs>>(
      "512 tokens, 3 bits", 512, 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "speed") == 0) {
    speeds();
    return 0;
  }
  if (argc > 1 && std::strcmp(argv[1], "search") == 0) {
    search_time<Trellis<16, 2, ByteSum>>(), search_time<Trellis<12, 2, ByteSum>>(), search_time<Trellis<16, 4, BytePairs>>();
    search_time<Trellis<16, 3, ByteSum>>(), search_time<Trellis<16, 6, BytePairs>>(), search_time<Trellis<16, 4, ByteSum>>();
    return 0;
  }
  gaps<8, Quantiles>(8192), gaps<10, Quantiles>(8192), gaps<12, Quantiles>(8192), gaps<16, Quantiles>(8192);
  gaps<8, ByteSum>(8192), gaps<10, ByteSum>(8192), gaps<12, ByteSum>(8192), gaps<16, ByteSum>(8192);
  gaps<16, Mul1>(8192), gaps<16, ThreeInst>(8192);
  gaps_of_pairs<12>(8192), gaps_of_pairs<16>(8192);
  return 0;
}
