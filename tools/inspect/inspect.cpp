#include "inspect.hpp"

#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "inspect/file_facts.hpp"
#include "shared/file_roles.hpp"
#include "shared/outputs.hpp"
#include "shared/parse.hpp"
#include "shared/printable.hpp"

namespace tool {

using namespace anybit;

namespace {

struct Total {
  Index bytes = 0, weights = 0;
  double bits_per_weight() const { return weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0; }
};

Total total(const FileFacts& f) {
  Total t;
  for (const TensorFacts& x : f.tensors) t.bytes += x.bytes, t.weights += x.weights;
  return t;
}

std::string shape_text(const TensorFacts& t) {
  std::string out;
  for (const Index extent : t.shape) out += (out.empty() ? "" : " x ") + std::to_string(extent);
  return out.empty() ? "1" : out;
}

void print(const std::string& path, const FileFacts& f) {
  std::printf("%s: %s\n\n", printable(path).c_str(), f.format.c_str());
  constexpr std::size_t longest = 100;
  for (const auto& [key, value] : f.metadata) {
    std::string line = printable(value);
    std::replace(line.begin(), line.end(), '\n', ' ');
    if (line.size() > longest) line = utf8(line.substr(0, longest)) + "... (" + std::to_string(value.size()) + " bytes)";
    std::printf("%s = %s\n", printable(key).c_str(), line.c_str());
  }
  std::size_t name = 6, type = 4, shape = 5;
  for (const TensorFacts& t : f.tensors) {
    name = std::max(name, printable(t.name).size());
    type = std::max(type, printable(t.type).size());
    shape = std::max(shape, shape_text(t).size());
  }
  std::printf("%s%-*s  %-*s  %*s  %11s  %12s\n", f.metadata.empty() ? "" : "\n", static_cast<int>(name), "tensor",
              static_cast<int>(type), "type", static_cast<int>(shape), "shape", "bits/weight", "bytes");
  for (const TensorFacts& t : f.tensors)
    std::printf("%-*s  %-*s  %*s  %11.3f  %12lld\n", static_cast<int>(name), printable(t.name).c_str(), static_cast<int>(type),
                printable(t.type).c_str(), static_cast<int>(shape), shape_text(t).c_str(), t.bits_per_weight(),
                static_cast<long long>(t.bytes));
  const Total all = total(f);
  std::printf("%zu tensors, %lld weights, %lld bytes, %.3f bits per weight\n", f.tensors.size(),
              static_cast<long long>(all.weights), static_cast<long long>(all.bytes), all.bits_per_weight());
}

nlohmann::ordered_json to_json(const std::string& path, const FileFacts& f) {
  using nlohmann::ordered_json;
  ordered_json metadata = ordered_json::object(), tensors = ordered_json::array();
  for (const auto& [key, value] : f.metadata) metadata[key] = value;
  for (const TensorFacts& t : f.tensors)
    tensors.push_back(
        {{"name", t.name}, {"type", t.type}, {"shape", t.shape}, {"bits_per_weight", t.bits_per_weight()}, {"bytes", t.bytes}});
  const Total all = total(f);
  return ordered_json{
      {"file", path},           {"format", f.format}, {"metadata", std::move(metadata)},         {"tensors", std::move(tensors)},
      {"weights", all.weights}, {"bytes", all.bytes}, {"bits_per_weight", all.bits_per_weight()}};
}

int inspect(int argc, const char* const* argv) {
  std::string path, json;
  CLI::App app("Prints metadata and tensors of a model file: GGUF, safetensors, llama2.c, or what anybit has written.",
               "anybit inspect");
  app.add_option("FILE", path, "The file")->required();
  add_json(app, json, "this as JSON", "the text");
  if (const auto end = parse(app, argc, argv, "anybit inspect model.safetensors")) return *end;
  if (const auto end = check_files("inspect", {{"the file", path}}, {{"--json", json}})) return *end;
  const auto facts = file_facts(path);
  if (!facts) return fail("inspect", bad_input, facts.error());
  if (json != "-") print(path, *facts);
  return write_json("inspect", json, to_json(path, *facts));
}

}  // namespace

int run_inspect(int argc, const char* const* argv) {
  return run_command([&] { return inspect(argc, argv); });
}

}  // namespace tool
