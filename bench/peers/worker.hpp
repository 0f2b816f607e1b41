#pragma once
// The side of a program that multiplies by one library, driven by run.py over lines of text:
//
//   open FORMAT                                 -> ok BYTES                  quantizes; bytes of the one weight matrix
//   weights FORMAT FILE                         -> ok                        f32 weights that the product really has
//   run FORMAT N THREADS ROTATE SECONDS FILE    -> ok SECONDS PASSES         median time of one product
//   probe BYTES THREADS SECONDS                 -> ok BYTES_A_SECOND         (limits only)
//   drop                                        -> ok                        frees what `run` keeps for the next one
//
// or `no REASON`. ROTATE: bytes of weights that products of one token go through, 0 for the same matrix each time. FILE: where
// y goes, or - . The program gets the folder that holds weights.f32 (rows x cols) and activations.f32 (512 x cols).

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace peers {

inline constexpr long rows = 4096, cols = 4096, most_tokens = 512;

using Floats = std::vector<float>;

inline Floats read_floats(const std::string& path, long count) {
  Floats values(static_cast<std::size_t>(count));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!file) {
    std::cout << "no cannot read " << path << std::endl;
    std::exit(1);
  }
  return values;
}
inline bool write_floats(const std::string& path, const float* values, long count) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values),
             static_cast<std::streamsize>(count) * static_cast<std::streamsize>(sizeof(float)));
  return static_cast<bool>(file);
}

struct Data {
  Floats weights, activations;
};

/// The same number of weight matrices for every library: as many as fill `rotate` bytes.
inline long copies_for(long bytes, long rotate) { return std::max(1L, (rotate + bytes - 1) / bytes); }

struct Timing {
  double seconds = 0;
  long passes = 0;
};

/// Repeats pass(), which makes `products` products, after one to warm up: for `seconds`, and three times unless that takes
/// more than three times as long.
template <class Pass>
Timing time_passes(double seconds, long products, Pass pass) {
  using Clock = std::chrono::steady_clock;
  pass();
  std::vector<double> times;
  double sum = 0;
  do {
    const auto begin = Clock::now();
    pass();
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    sum += times.back();
  } while (sum < seconds || (times.size() < 3 && sum < 3 * seconds));
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return {times[times.size() / 2] / static_cast<double>(products), static_cast<long>(times.size())};
}

/// Answers until the input ends. `Library` has
///   std::string open(const std::string& format, long& bytes)            "" or why not
///   std::string weights(const std::string& format, Floats& out)
///   std::string run(format, tokens, threads, rotate, seconds, Timing&, Floats& y)
///   void drop()
template <class Library>
int serve(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " FOLDER   (see run.py)\n";
    return 2;
  }
  const std::string folder = argv[1];
  Library library(
      Data{read_floats(folder + "/weights.f32", rows * cols), read_floats(folder + "/activations.f32", most_tokens * cols)});
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, format, file, problem;
    std::ostringstream answer;
    words >> command;
    if (command == "open") {
      long bytes = 0;
      words >> format;
      problem = library.open(format, bytes);
      answer << bytes;
    } else if (command == "weights") {
      Floats out(static_cast<std::size_t>(rows * cols));
      words >> format >> file;
      problem = library.weights(format, out);
      if (problem.empty() && !write_floats(file, out.data(), rows * cols)) problem = "cannot write " + file;
    } else if (command == "run") {
      long tokens = 0, threads = 0, rotate = 0;
      double seconds = 0;
      words >> format >> tokens >> threads >> rotate >> seconds >> file;
      Timing timing;
      Floats y(static_cast<std::size_t>(tokens * rows), NAN);
      problem = library.run(format, tokens, threads, rotate, seconds, timing, y);
      if (problem.empty() && file != "-" && !write_floats(file, y.data(), tokens * rows)) problem = "cannot write " + file;
      answer << timing.seconds << ' ' << timing.passes;
    } else if (command == "drop") {
      library.drop();
    } else {
      problem = "unknown command " + command;
    }
    std::cout << (problem.empty() ? "ok " + answer.str() : "no " + problem) << std::endl;
  }
  return 0;
}

}  // namespace peers
