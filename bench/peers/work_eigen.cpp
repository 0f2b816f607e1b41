// Eigen's f32 product, with OpenMP where the compiler has it.

#include <Eigen/Core>

#include "worker.hpp"

namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct EigenProduct {
  explicit EigenProduct(peers::Data d) : data(std::move(d)) {}

  std::string open(const std::string& format, long& bytes) {
    bytes = peers::rows * peers::cols * 4;
    return format == "f32" ? "" : "Eigen has no such product";
  }
  std::string weights(const std::string&, peers::Floats& out) {
    out = data.weights;
    return "";
  }
  std::string run(const std::string&, long tokens, long threads, long rotate, double seconds, peers::Timing& timing,
                  peers::Floats& y) {
    Eigen::setNbThreads(static_cast<int>(threads));
    const long count = peers::copies_for(peers::rows * peers::cols * 4, rotate);
    copies.resize(static_cast<std::size_t>(count), Eigen::Map<const RowMajor>(data.weights.data(), peers::rows, peers::cols));
    const Eigen::Map<const RowMajor> x(data.activations.data(), tokens, peers::cols);
    Eigen::Map<RowMajor> out(y.data(), tokens, peers::rows);
    timing = peers::time_passes(seconds, count, [&] {
      for (const RowMajor& w : copies) {
        if (tokens == 1)
          Eigen::Map<Eigen::VectorXf>(y.data(), peers::rows).noalias() =
              w * Eigen::Map<const Eigen::VectorXf>(data.activations.data(), peers::cols);
        else
          out.noalias() = x * w.transpose();
      }
    });
    return "";
  }
  void drop() { copies.clear(); }

  peers::Data data;
  std::vector<RowMajor> copies;
};

}  // namespace

int main(int argc, char** argv) { return peers::serve<EigenProduct>(argc, argv); }
