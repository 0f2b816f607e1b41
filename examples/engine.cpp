// engine [CHECKPOINT.bin]: reads a prompt and chooses 20 tokens with the engine of engine.hpp. Without an argument it makes a
// checkpoint of random weights. It checks itself: a prompt at once or token by token gives the same bits, and rounding
// activations to 8 bits changes the logits little.

#include "engine.hpp"

#include <cstdio>
#include <fstream>
#include <random>

/// dim 96, 3 layers, 6 heads over 2 of keys and values, random weights.
void write_random_checkpoint(const std::string& path) {
  const std::int32_t header[7] = {96, 256, 3, 6, 2, 300, 64};
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.15f);
  std::vector<float> all(300 * 96 + 3 * (2 * 96 + 2 * 96 * 96 + 2 * 32 * 96 + 3 * 256 * 96) + 96 + 64 * 16);
  for (float& v : all) v = normal(random) + 0.02f;
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(header), sizeof header);
  file.write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size() * sizeof(float)));
}

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "engine_random.bin";
  if (argc == 1) write_random_checkpoint(path);
  const auto file = io::Llama2cFile::open(path);
  if (!file) return std::fprintf(stderr, "%s\n", file.error().message.c_str()), 1;
  const std::vector<int> prompt{1, 17, 250, 3, 99, 42, 7};
  Engine rounded(*file, Compute::int8_per_block), one_by_one(*file, Compute::int8_per_block), exact(*file, Compute::f32);
  std::vector<float> logits = rounded.forward(prompt), same, floats = exact.forward(prompt);
  for (const int token : prompt) same = one_by_one.forward(std::span(&token, 1));
  bool fine = logits == same;
  std::vector<int> text = prompt;
  double difference = 0, size = 0;
  for (int i = 0; i < 20; ++i) {
    for (std::size_t j = 0; j < logits.size(); ++j)
      difference += std::pow(logits[j] - floats[j], 2), size += std::pow(floats[j], 2);
    text.push_back(static_cast<int>(std::ranges::max_element(floats) - floats.begin()));
    logits = rounded.forward(std::span(&text.back(), 1)), floats = exact.forward(std::span(&text.back(), 1));
  }
  for (const int token : text) std::printf("%d ", token);
  std::printf("\nlogits with 8-bit activations differ by %.2f %%\n", 100 * std::sqrt(difference / size));
  fine = fine && difference < 0.05 * 0.05 * size;
  return fine ? 0 : (std::puts("NOT as it should be"), 1);
}
