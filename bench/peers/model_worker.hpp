#pragma once
// The side of a program that runs a whole model in several formats, driven by run.py over lines of text:
//
//   open FORMAT                          -> ok BITS                   converts and loads; bits per weight over all weights
//   run FORMAT THREADS PROMPT DECODE     -> ok TOKENS_A_SECOND TOKENS_A_SECOND
//
// or `no REASON`. As llama-bench does it: a prompt of random tokens in one go, of which the last logits are made, and single
// random tokens from an empty context. The program gets the model file and a folder for what it writes.

#include <chrono>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace peers {

struct Speed {
  double prompt = 0, decode = 0;
};

inline std::vector<int> random_tokens(int count, int vocabulary) {
  std::mt19937 random(1);
  std::vector<int> ids(static_cast<std::size_t>(count));
  for (int& id : ids) id = static_cast<int>(random() % static_cast<unsigned>(vocabulary));
  return ids;
}

template <class Work>
double per_second(int count, Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return count / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Answers until the input ends. `Engine` has
///   std::string open(const std::string& format, double& bits)        "" or why not
///   std::string run(format, threads, prompt, decode, Speed&)
template <class Engine>
int serve_model(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: " << argv[0] << " MODEL FOLDER   (see run.py)\n";
    return 2;
  }
  Engine engine(argv[1], argv[2]);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, format, problem;
    std::ostringstream answer;
    words >> command >> format;
    if (command == "open") {
      double bits = 0;
      problem = engine.open(format, bits);
      answer << bits;
    } else if (command == "run") {
      int threads = 0, prompt = 0, decode = 0;
      words >> threads >> prompt >> decode;
      Speed speed;
      problem = engine.run(format, threads, prompt, decode, speed);
      answer << speed.prompt << ' ' << speed.decode;
    } else {
      problem = "unknown command " + command;
    }
    std::cout << (problem.empty() ? "ok " + answer.str() : "no " + problem) << std::endl;
  }
  return 0;
}

}  // namespace peers
