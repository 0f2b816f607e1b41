#include <anybit/io/safetensors.hpp>

#include <cstring>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;

TEST_CASE("every reference file opens and its typed tensors read") {
  for (const char* name : {"awq", "bitnet", "ggml", "gptq", "model", "nf4", "packing", "prune", "smoothquant", "superfloat"}) {
    const auto path = test_support::test_data("vectors/" + std::string(name) + ".safetensors");
    if (!path) {
      WARN("skipped: reference vectors are not present");
      return;
    }
    const auto file = io::SafetensorsFile::open(*path);
    REQUIRE(file.ok());
    CHECK(file->tensors().size() >= 13);
    for (const auto& t : file->tensors()) {
      const auto m = file->read_f32(t.name);
      REQUIRE(m.ok());
      CHECK(m->extents().size() == t.size());
    }
  }
}
