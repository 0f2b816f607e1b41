// Hugging Face folders that hold all experts of a block in one tensor, as transformers 5 does in memory: gate_up_proj (experts,
// 2 hidden, dim) with gate above up, down_proj (experts, dim, hidden).

#include <filesystem>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/load.hpp>

#include "support/catch.hpp"
#include "support/largest_difference.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;

namespace {

struct ExpertMatrix {
  std::string block;  ///< "model.layers.0."
  Index expert = 0;
  char kind = 0;  ///< g, u or d
};

std::optional<ExpertMatrix> expert_matrix(const std::string& name) {
  const std::size_t at = name.find(".experts.");
  if (at == std::string::npos) return std::nullopt;
  const std::size_t number = at + 9, dot = name.find('.', number);
  ExpertMatrix out{name.substr(0, name.find('.', 13) + 1), std::stol(name.substr(number, dot - number)), 0};
  const std::string what = name.substr(dot + 1);
  out.kind = what == "gate_proj.weight" || what == "w1.weight" ? 'g'
             : what == "up_proj.weight" || what == "w3.weight" ? 'u'
                                                               : 'd';
  return out;
}

/// Writes `from` with its experts stacked, of which the last `missing` are left out.
void write_stacked(const std::string& from, const std::string& to, Index missing = 0) {
  const auto file = io::SafetensorsFile::open(from).value();
  std::map<std::string, std::map<Index, std::map<char, Matrix>>> blocks;
  std::vector<io::TensorInfo> tensors;
  for (const io::TensorInfo& t : file.tensors()) {
    if (const auto expert = expert_matrix(t.name)) {
      blocks[expert->block][expert->expert][expert->kind] = file.read_f32(t.name).value();
      continue;
    }
    tensors.push_back(t);
    std::string& name = tensors.back().name;
    if (const std::size_t at = name.find("block_sparse_moe."); at != std::string::npos) name.replace(at, 16, "mlp");
  }
  std::list<std::vector<float>> kept;
  for (const auto& [block, experts] : blocks) {
    std::vector<float> gate_up, down;
    const auto add = [](std::vector<float>& values, const Matrix& m) {
      values.insert(values.end(), m.data(), m.data() + m.extents().size());
    };
    const Index count = static_cast<Index>(experts.size()) - missing;
    for (Index e = 0; e < count; ++e) {
      add(gate_up, experts.at(e).at('g')), add(gate_up, experts.at(e).at('u'));
      add(down, experts.at(e).at('d'));
    }
    const Index hidden = experts.at(0).at('g').rows(), dim = experts.at(0).at('g').cols();
    kept.push_back(std::move(gate_up));
    tensors.push_back(
        io::tensor_of<float>(block + "mlp.experts.gate_up_proj", {count, 2 * hidden, dim}, std::span<const float>(kept.back())));
    kept.push_back(std::move(down));
    tensors.push_back(
        io::tensor_of<float>(block + "mlp.experts.down_proj", {count, dim, hidden}, std::span<const float>(kept.back())));
  }
  REQUIRE(io::write_safetensors(to, tensors));
}

}  // namespace

TEST_CASE("stacked experts: a folder with one tensor for all experts has the same weights") {
  ANYBIT_TEST_DATA_OR_SKIP(vectors, "vectors/arch");
  for (const std::string name : {"mixtral", "qwen2_moe", "qwen3_moe"}) {
    CAPTURE(name);
    const test_support::TemporaryFolder copy;
    const std::string folder = vectors + "/" + name;
    std::filesystem::copy_file(folder + "/config.json", copy / "config.json");
    write_stacked(folder + "/model.safetensors", copy / "model.safetensors");
    const auto apart = model::load_decoder(folder), stacked = model::load_decoder(copy / "");
    INFO((stacked ? std::string() : stacked.error().message));
    REQUIRE((apart && stacked));
    REQUIRE(stacked->weights.size() == apart->weights.size());
    for (std::size_t i = 0; i < apart->weights.size(); ++i) {
      const model::Weight &a = apart->weights[i], &b = stacked->weights[i];
      CAPTURE(apart->blueprint->weights[i].name);
      CHECK(a.values == b.values);
      REQUIRE(a.linear.extents() == b.linear.extents());
      if (a.linear.dense()) CHECK(test_support::largest_difference(a.linear.dense()->view(), b.linear.dense()->view()) == 0);
    }

    // An expert too few.
    std::filesystem::remove(copy / "model.safetensors");
    write_stacked(folder + "/model.safetensors", copy / "model.safetensors", 1);
    const auto fewer = model::load_decoder(copy / "");
    REQUIRE_FALSE(fewer);
    INFO(fewer.error().message);
    CHECK(fewer.error().message.find("mlp.experts.gate_up_proj") != std::string::npos);
  }
}
