#include "ggml_rows.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <anybit/quantize/ggml_gptq.hpp>

namespace tool {

using namespace anybit;

namespace {

/// Calls f(first row, rows, where their blocks begin in a tensor) for slices of `grain` rows on all threads.
template <class F>
void for_ggml_slices(const io::DType& type, ConstMatrix m, Index grain, ThreadPool& pool, const F& f) {
  pool.parallel_for(m.rows, grain, [&](Index begin, Index end) {
    f(begin, ConstMatrix(m.row(begin).data(), end - begin, m.cols), ggml_bytes(type, begin * m.cols));
  });
}

}  // namespace

std::size_t ggml_bytes(const io::DType& type, Index values) {
  return static_cast<std::size_t>(values / type.block_values * type.block_bytes);
}

Result<io::RoundingError> encode_nearest(const io::DType& type, ConstMatrix m, std::span<std::byte> to, ThreadPool& pool) {
  const io::GgmlEncoder* const encoder = io::find_ggml_encoder(type.name);
  ANYBIT_CHECK(encoder, "encode_nearest: a type that has no encoder");
  std::mutex mutex;
  io::RoundingError total;
  std::optional<std::pair<Index, Error>> failed;
  for_ggml_slices(type, m, 8, pool, [&](Index first, ConstMatrix rows, std::size_t at) {
    const Result<io::RoundingError> done = io::encode_rows(*encoder, rows, to.data() + at);
    const std::scoped_lock lock(mutex);
    if (done)
      total.add(*done);
    else if (!failed || first < failed->first)
      failed.emplace(first, done.error());
  });
  if (failed) return failed->second;
  return total;
}

double encode_for_outputs(const io::DType& type, ConstMatrix m, const gptq::Factor& factor, ConstMatrix hessian,
                          std::span<std::byte> to, ThreadPool& pool) {
  constexpr Index at_once = 16;  // rows whose errors stay in the cache
  std::vector<double> errors(static_cast<std::size_t>(m.rows));
  for_ggml_slices(type, m, at_once, pool, [&](Index first, ConstMatrix rows, std::size_t at) {
    for (Index r = 0; r < rows.rows; r += at_once) {
      const ConstMatrix some = rows.row_range(r, std::min(r + at_once, rows.rows));
      ggml_gptq_rows(type.name, some, factor, to.data() + at + ggml_bytes(type, r * rows.cols),
                     std::span(errors).subspan(static_cast<std::size_t>(first + r), static_cast<std::size_t>(some.rows)),
                     hessian);
    }
  });
  return std::accumulate(errors.begin(), errors.end(), 0.0);
}

io::RoundingError rounding_error(const io::DType& type, ConstMatrix m, std::span<const std::byte> bytes, ThreadPool& pool) {
  std::mutex mutex;
  io::RoundingError total;
  for_ggml_slices(type, m, 64, pool, [&](Index, ConstMatrix rows, std::size_t at) {
    std::vector<float> decoded(static_cast<std::size_t>(rows.rows * rows.cols));
    type.to_f32(bytes.data() + at, rows.rows * rows.cols / type.block_values, decoded.data());
    io::RoundingError error;
    for (std::size_t i = 0; i < decoded.size(); ++i) {
      const double e = std::fabs(static_cast<double>(decoded[i]) - static_cast<double>(rows.data[i]));
      error.add({e, e});
    }
    const std::scoped_lock lock(mutex);
    total.add(error);
  });
  return total;
}

}  // namespace tool
