#include <anybit/io/checkpoint_words.hpp>
#include <anybit/io/safetensors.hpp>

#include <random>
#include <vector>

#include "support/catch.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using namespace anybit::io;

TEST_CASE("words: packed and unpacked again at every width, layout, length and stride") {
  std::mt19937 random(3);
  for (const WordLayout layout : {WordLayout::dense, WordLayout::padded, WordLayout::planar})
    for (int bits = 1; bits <= 8; ++bits)
      for (const Index n : {0, 1, 2, 31, 32, 33, 64, 70, 96, 129})
        for (const Index stride : {1, 3}) {
          INFO("layout " << static_cast<int>(layout) << ", " << bits << " bits, " << n << " codes, stride " << stride);
          std::vector<std::uint8_t> codes(static_cast<std::size_t>(n)), back(codes.size() + 1, 0xEE);
          for (auto& c : codes) c = static_cast<std::uint8_t>(random() & ((1u << bits) - 1));
          std::vector<std::uint32_t> words(static_cast<std::size_t>(words_of(layout, bits, n) * stride) + 1, 0xDEADBEEF);
          pack_words(layout, bits, codes.data(), n, words.data(), stride);
          CHECK(words.back() == 0xDEADBEEF);
          for (std::size_t i = 0; i + 1 < words.size(); ++i)
            if (i % static_cast<std::size_t>(stride) != 0) REQUIRE(words[i] == 0xDEADBEEF);
          unpack_words(layout, bits, words.data(), stride, n, back.data());
          CHECK(back.back() == 0xEE);
          back.pop_back();
          CHECK(back == codes);
        }
}

TEST_CASE("words: 3 bits are one stream of 96 bits; planes hold low bits first") {
  std::vector<std::uint8_t> codes(32);
  for (std::size_t i = 0; i < 32; ++i) codes[i] = static_cast<std::uint8_t>(i % 8);
  std::vector<std::uint32_t> words(3);
  pack_words(WordLayout::dense, 3, codes.data(), 32, words.data(), 1);
  CHECK(words == std::vector<std::uint32_t>{0x88fac688, 0xc688fac6, 0xfac688fa});
  // 5 bits: four words of low nibbles, one of top bits.
  for (std::size_t i = 0; i < 32; ++i) codes[i] = static_cast<std::uint8_t>(i);
  words.resize(5);
  pack_words(WordLayout::planar, 5, codes.data(), 32, words.data(), 1);
  CHECK(words == std::vector<std::uint32_t>{0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98, 0xFFFF0000});
}

TEST_CASE("words: compressed-tensors' own, in both layouts and along both axes") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/ct_words.safetensors");
  const auto file = SafetensorsFile::open(path);
  REQUIRE(file.ok());
  for (int bits = 1; bits <= 8; ++bits)
    for (const WordLayout layout : {WordLayout::dense, WordLayout::padded}) {
      const std::string name = "b" + std::to_string(bits), kind = layout == WordLayout::dense ? ".dense" : ".padded";
      INFO(name << kind);
      const Extents e = file->find(name + ".codes")->extents();
      std::vector<std::uint8_t> fields;
      for (const std::int8_t c : file->read<std::int8_t>(name + ".codes").value())
        fields.push_back(static_cast<std::uint8_t>(c + (1 << (bits - 1))));
      for (const bool along_in : {true, false}) {
        const auto signed_words = file->read<std::int32_t>(name + kind + (along_in ? ".along_in" : ".along_out")).value();
        const std::vector<std::uint32_t> theirs(signed_words.begin(), signed_words.end());
        const Index n = along_in ? e.cols : e.rows, count = words_of(layout, bits, n), runs = along_in ? e.rows : e.cols;
        REQUIRE(static_cast<Index>(theirs.size()) == count * runs);
        std::vector<std::uint32_t> ours(theirs.size());
        std::vector<std::uint8_t> run(static_cast<std::size_t>(n)), back(run.size());
        for (Index r = 0; r < runs; ++r) {
          for (Index i = 0; i < n; ++i)
            run[static_cast<std::size_t>(i)] = fields[static_cast<std::size_t>(along_in ? r * e.cols + i : i * e.cols + r)];
          const Index first = along_in ? r * count : r, stride = along_in ? 1 : runs;
          pack_words(layout, bits, run.data(), n, ours.data() + first, stride);
          unpack_words(layout, bits, theirs.data() + first, stride, n, back.data());
          REQUIRE(back == run);
        }
        CHECK(ours == theirs);
      }
    }
}
