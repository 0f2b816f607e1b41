// How far trellis codes are from the least possible error of normal weights, and the time that the search and the products take.
//   trellis_gaps          a table of 10 log10(error / 4^-bits), all bytes counted
//   trellis_gaps speed    milliseconds of a search and of a product, one thread

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include <anybit/algorithm/ldlq.hpp>
#include <anybit/kernel/trellis_rows.hpp>

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
void speed() {
  constexpr Extents e{4096, 4096};
  const Matrix w = normal(16, 256);
  const NearestTrellis<S> method{.gain = 1};
  double search = 1e9, product = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double start = seconds();
    if (!method.quantize(w.view(), Stats{})) return;
    search = std::min(search, (seconds() - start) / 16);
  }
  const auto t = PackedTensor<S>::allocate(e, false, "zeros");
  Matrix x = normal(1, e.cols), y(1, e.rows);
  Workspace workspace;
  for (int i = 0; i < 20; ++i) {
    const double start = seconds();
    kernel::trellis_int8_matmul(t, x.view(), y.view(), Compute::int8_per_token, workspace, Serial{});
    product = std::min(product, seconds() - start);
  }
  std::printf("  %-28s %7.3f ms a tile, %7.3f ms a product with %td x %td\n", std::string(std::string_view(S::name)).c_str(),
              1e3 * search, 1e3 * product, e.rows, e.cols);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "speed") == 0) {
    speed<Trellis<16, 2, ByteSum>>(), speed<Trellis<12, 2, ByteSum>>(), speed<Trellis<16, 4, BytePairs>>();
    speed<Trellis<16, 3, ByteSum>>(), speed<Trellis<16, 6, BytePairs>>(), speed<Trellis<16, 4, ByteSum>>();
    return 0;
  }
  gaps<8, ByteSum>(8192), gaps<10, ByteSum>(8192), gaps<12, ByteSum>(8192), gaps<16, ByteSum>(8192);
  gaps<16, Mul1>(8192), gaps<16, ThreeInst>(8192);
  gaps_of_pairs<12>(8192), gaps_of_pairs<16>(8192);
  return 0;
}
