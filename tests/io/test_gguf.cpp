#include <anybit/io/gguf.hpp>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "bad_bytes.hpp"
#include "support/catch.hpp"
#include "support/gguf_writer.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using bad_bytes::check_error;
using bad_bytes::Exact;
using io::GgufFile;
using test_support::GgufWriter;

namespace {

GgufWriter small_file() {
  GgufWriter w;
  w.add_metadata("general.architecture", "llama");
  w.add_metadata("llama.block_count", std::uint32_t{5});
  w.add_metadata("llama.context_length", std::uint64_t{1} << 40);
  w.add_metadata("eps", 1e-5f);
  w.add_metadata("wide", 0.1);
  w.add_metadata("yes", true);
  w.add_metadata("no", false);
  w.add_metadata("minus", std::int16_t{-3});
  w.add_metadata("byte", std::uint8_t{200});
  w.add_metadata("tokens", std::vector<std::string>{"a", "", "\xC3\xA9"});
  w.add_metadata("scores", std::vector<float>{0.5f, -1});
  w.add_metadata("kinds", std::vector<std::int32_t>{1, -2, 3});
  w.add_metadata("wide_kinds", std::vector<std::uint64_t>{1, std::uint64_t{1} << 31});
  w.add_metadata("flags", std::vector<std::uint8_t>{1, 255});
  w.add_f32("matrix", {2, 3}, {1, 2, 3, 4, 5, 6});
  w.add_f32("vector", {3}, {7, 8, 9});
  w.add_tensor("blocks", {1, 32}, "Q8_0", std::string("\x00\x3C", 2) + std::string(32, '\xFE'));  // d = 1, codes -2
  w.add_tensor("cube", {2, 2, 1}, "I16", std::string("\x01\x00\xFF\xFF\x00\x80\xFF\x7F", 8));
  return w;
}

auto parse(std::span<const std::byte> bytes) { return GgufFile::parse(bytes, "bad.file"); }
Result<GgufFile> parse(const GgufWriter& w) { return parse(Exact(w.bytes()).bytes()); }  // for refused files: nothing stays valid

}  // namespace

TEST_CASE("GGUF: a small file reads back") {
  for (const std::uint32_t version : {2u, 3u}) {
    GgufWriter w = small_file();
    w.version = version;
    const Exact bytes(w.bytes());
    const auto file = GgufFile::parse(bytes.bytes(), "small");
    REQUIRE(file.ok());

    REQUIRE(file->tensors().size() == 4);
    CHECK(file->tensors()[1].name == "vector");
    CHECK(file->find("nothing") == nullptr);
    CHECK(file->find("matrix")->shape == std::vector<Index>{2, 3});
    const auto m = file->read_f32("matrix");
    CHECK((*m)(0, 2) == 3);
    CHECK((*m)(1, 0) == 4);
    CHECK(file->read_f32("vector")->extents() == Extents{1, 3});
    CHECK((*file->read_f32("vector"))(0, 2) == 9);
    CHECK(file->find("blocks")->dtype == "Q8_0");
    CHECK((*file->read_f32("blocks"))(0, 31) == -2);
    CHECK(file->read_f32("cube")->extents() == Extents{4, 1});
    CHECK((*file->read_f32("cube"))(2, 0) == -32768);

    CHECK(file->has("eps"));
    CHECK(!file->has("epsilon"));
    CHECK(file->keys().size() == 14);
    CHECK(*file->get_string("general.architecture") == "llama");
    CHECK(*file->get_u64("llama.block_count") == 5);
    CHECK(*file->get_u64("llama.context_length") == std::uint64_t{1} << 40);
    CHECK(*file->get_u64("byte") == 200);
    CHECK(*file->get_f64("eps") == static_cast<double>(1e-5f));
    CHECK(*file->get_f64("wide") == 0.1);
    CHECK(*file->get_f64("minus") == -3);
    CHECK(*file->get_bool("yes"));
    CHECK(!*file->get_bool("no"));
    CHECK(*file->get_strings("tokens") == std::vector<std::string>{"a", "", "\xC3\xA9"});
    CHECK(*file->get_floats("scores") == std::vector<float>{0.5f, -1});
    CHECK(*file->get_floats("kinds") == std::vector<float>{1, -2, 3});
    CHECK(*file->get_ints("kinds") == std::vector<std::int32_t>{1, -2, 3});
    CHECK(*file->get_ints("flags") == std::vector<std::int32_t>{1, 255});
  }
}

TEST_CASE("GGUF: getters name the key, what was found and what is needed") {
  const Exact bytes(small_file().bytes());
  const auto file = GgufFile::parse(bytes.bytes(), "bad.file");
  REQUIRE(file.ok());
  check_error(file->get_u64("absent"), "no key 'absent' (an integer)");
  check_error(file->get_u64("eps"), "key 'eps' has type f32; an integer is needed");
  check_error(file->get_u64("yes"), "type bool");
  check_error(file->get_u64("kinds"), "type array of 3 i32");
  check_error(file->get_u64("minus"), "key 'minus' is -3; it must not be negative");
  check_error(file->get_f64("general.architecture"), "type string; a number is needed");
  check_error(file->get_bool("byte"), "type u8; a bool is needed");
  check_error(file->get_string("tokens"), "array of 3 string; a string is needed");
  check_error(file->get_strings("general.architecture"), "an array of strings is needed");
  check_error(file->get_strings("scores"), "array of 2 f32");
  check_error(file->get_ints("scores"), "array of 2 f32; an array of integers is needed");
  check_error(file->get_ints("tokens"), "array of 3 string");
  check_error(file->get_ints("wide_kinds"), "element 1 exceeds 32 signed bits");
  check_error(file->get_floats("eps"), "type f32; an array of numbers is needed");
  check_error(file->read_f32("matrix.weight"), "no tensor 'matrix.weight' among 4");
}

TEST_CASE("GGUF: a tensor of an unknown type is listed, and an error only when its values are wanted") {
  GgufWriter w;
  w.add_raw_tensor("new", {7}, 77, 0);
  w.add_raw_tensor("last", {2}, 0xFFFFFFFF, 96);
  const std::vector<float> values{1, 2, 3};
  // The writer's own data start at 64: "new" has what lies before, "last" what lies behind.
  w.add_raw_tensor("f", {3}, 0, 64);
  std::string data(64, 'x');
  data.append(reinterpret_cast<const char*>(values.data()), 12).append(20, '\0').append("abcde");
  const Exact bytes(w.bytes() + data);
  const auto file = GgufFile::parse(bytes.bytes(), "bad.file");
  REQUIRE(file.ok());
  CHECK(file->find("new")->bytes.size() == 64);
  CHECK(file->find("last")->bytes.size() == 5);
  CHECK((*file->read_f32("f"))(0, 2) == 3);
  check_error(file->read_f32("new"),
              "tensor 'new' has the unknown type 'number 77', which anybit cannot turn into floats: convert");
}

TEST_CASE("GGUF: other alignments, gaps, and files without tensors") {
  GgufWriter w;
  w.alignment = 64;
  w.add_metadata("general.alignment", std::uint32_t{64});
  w.add_f32("a", {1}, {1});
  w.add_f32("b", {1}, {2});
  const Exact bytes(w.bytes());
  CHECK((*GgufFile::parse(bytes.bytes(), "f")->read_f32("b"))(0, 0) == 2);

  GgufWriter none;
  none.add_metadata("k", "v");
  std::string unpadded = none.bytes();
  while (unpadded.back() == '\0') unpadded.pop_back();
  const Exact cut(unpadded);
  CHECK(GgufFile::parse(cut.bytes(), "f").ok());
}

TEST_CASE("GGUF: a file cut anywhere is an error") {
  bad_bytes::every_prefix_is_refused(small_file().bytes(), [](auto bytes) { return parse(bytes).ok(); });
}

// One line a case.
// clang-format off
TEST_CASE("GGUF: bad GGUF: each is an error that names file, place, value and remedy") {
  const std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
  GgufWriter w;

  SECTION("magic") { w.magic = "GGML"; check_error(parse(w), "no GGUF file"); }
  SECTION("version 1") { w.version = 1; check_error(parse(w), "GGUF version 1 is not 2 or 3"); }
  SECTION("version 4") { w.version = 4; check_error(parse(w), "GGUF version 4"); }
  SECTION("big endian") { w.version = 0x03000000; check_error(parse(w), "big-endian"); }
  SECTION("tensor count") { w.tensor_count = huge; check_error(parse(w), "declares 18446744073709551615 tensors"); }
  SECTION("tensor count that wraps when multiplied") { w.tensor_count = huge / 8; check_error(parse(w), "tensors, more than"); }
  SECTION("pair count") { w.pair_count = huge; check_error(parse(w), "declares 18446744073709551615 metadata pairs"); }
  SECTION("one pair too many") { w.add_metadata("k", 1); ++w.pair_count; check_error(parse(w), "metadata"); }
  SECTION("empty key") { w.add_metadata("", "value long enough for one pair"); check_error(parse(w), "metadata key has 0 bytes"); }
  SECTION("key twice") { w.add_metadata("k", 1); w.add_metadata("k", 2); check_error(parse(w), "key 'k' comes twice"); }
  SECTION("value type") { w.add_raw_metadata("k", 13, "abcdefgh"); check_error(parse(w), "key 'k': value type 13 is unknown"); }
  SECTION("bool of 2") { w.add_raw_metadata("k", 7, "\x02 and some more"); check_error(parse(w), "a bool has the value 2"); }
  SECTION("string beyond the end") { w.add_raw_metadata("k", 8, std::string(8, '\xFF')); check_error(parse(w), "key 'k': a string at byte"); }
  SECTION("string length that wraps") {
    w.add_raw_metadata("k", 8, std::string("\xF0") + std::string(7, '\xFF'));
    check_error(parse(w), "needs 18446744073709551600 bytes");
  }
  SECTION("endless array of strings") {
    w.add_raw_metadata("k", 9, std::string("\x08\0\0\0", 4) + std::string(8, '\xFF'));
    check_error(parse(w), "an array declares 18446744073709551615 elements of type string");
  }
  SECTION("array whose bytes wrap to 0") {
    w.add_raw_metadata("k", 9, std::string("\x0A\0\0\0", 4) + std::string("\0\0\0\0\0\0\0\x20", 8));
    check_error(parse(w), "elements of type u64");
  }
  SECTION("array of arrays") { w.add_raw_metadata("k", 9, std::string("\x09\0\0\0", 4) + std::string(32, '\0')); check_error(parse(w), "an array of arrays"); }
  SECTION("array of an unknown type") { w.add_raw_metadata("k", 9, std::string("\x0D\0\0\0", 4) + std::string(32, '\0')); check_error(parse(w), "value type 13"); }
  SECTION("alignment 0") { w.add_metadata("general.alignment", std::uint32_t{0}); check_error(parse(w), "general.alignment is 0"); }
  SECTION("alignment 48") { w.add_metadata("general.alignment", std::uint32_t{48}); check_error(parse(w), "general.alignment is 48, not a power of two"); }
  SECTION("alignment 2^31") { w.add_metadata("general.alignment", std::uint32_t{1} << 31); check_error(parse(w), "general.alignment is 2147483648"); }
  SECTION("alignment of the wrong type") { w.add_metadata("general.alignment", "32"); check_error(parse(w), "'general.alignment' has type string"); }
  SECTION("negative alignment") { w.add_metadata("general.alignment", std::int32_t{-32}); check_error(parse(w), "-32; it must not be negative"); }

  SECTION("empty tensor name") { w.add_f32("", {1}, {1}); check_error(parse(w), "name of a tensor has 0 bytes"); }
  SECTION("name twice") { w.add_f32("t", {1}, {1}); w.add_f32("t", {1}, {1}); check_error(parse(w), "two tensors are named 't'"); }
  SECTION("five dimensions") { w.add_raw_tensor("t", {1, 1, 1, 1, 1}, 0, 0); check_error(parse(w), "tensor 't': 5 dimensions, more than 4"); }
  SECTION("extent 0") { w.add_raw_tensor("t", {4, 0}, 0, 0); check_error(parse(w), "tensor 't': extent 1 is 0"); }
  SECTION("negative extent") { w.add_raw_tensor("t", {huge}, 0, 0); check_error(parse(w), "extent 0 is 18446744073709551615"); }
  SECTION("extents that wrap") {
    const std::uint64_t x = std::uint64_t{1} << 32;
    w.add_raw_tensor("t", {x, x}, 0, 0);
    check_error(parse(w), "tensor 't': the product of its extents overflows");
  }
  SECTION("bytes that wrap") { w.add_raw_tensor("t", {std::uint64_t{1} << 62}, 0, 0); check_error(parse(w), "overflows"); }
  SECTION("quantized bytes that wrap") { w.add_raw_tensor("t", {(std::uint64_t{1} << 62) - 256}, 14, 0); check_error(parse(w), "overflows"); }
  SECTION("unknown type without data") { w.add_raw_tensor("t", {1}, 4, 0); check_error(parse(w), "tensor 't': 1 bytes at offset 0 exceed the 0 bytes"); }
  SECTION("unknown types in one place") { w.add_raw_tensor("s", {1}, 4, 0); w.add_raw_tensor("t", {1}, 5, 0); w.add_f32("u", {1}, {1}); check_error(parse(w), "overlap at offset 0"); }
  SECTION("row that is no whole number of blocks") { w.add_raw_tensor("t", {48, 2}, 2, 0); check_error(parse(w), "rows of 48 values are no multiple of the 32 values in a block of Q4_0"); }
  SECTION("misaligned offset") { w.add_raw_tensor("t", {1}, 0, 4); check_error(parse(w), "offset 4 is no multiple of the alignment 32"); }
  SECTION("offset past the end") { w.add_f32("s", {1}, {1}); w.add_raw_tensor("t", {1}, 0, 1024); check_error(parse(w), "tensor 't': 4 bytes at offset 1024 exceed the 4 bytes"); }
  SECTION("offset that wraps") { w.add_f32("s", {1}, {1}); w.add_raw_tensor("t", {64}, 0, huge - 31); check_error(parse(w), "exceed"); }
  SECTION("data missing") { w.add_raw_tensor("t", {1000}, 0, 0); check_error(parse(w), "exceed the 0 bytes of data: the file is truncated"); }
  SECTION("same offset") { w.add_f32("s", {1}, {1}); w.add_raw_tensor("t", {1}, 0, 0); check_error(parse(w), "overlap at offset 0"); }
  SECTION("overlap") {
    w.add_f32("s", {16}, std::vector<float>(16));
    w.add_raw_tensor("t", {1}, 0, 32);
    check_error(parse(w), "tensors 's' and 't' overlap at offset 32");
  }
  SECTION("overlap by one byte") {
    w.add_tensor("s", {33}, "I8", std::string(33, 'x'));
    w.add_raw_tensor("t", {1}, 24, 32);
    check_error(parse(w), "overlap at offset 32");
  }
  SECTION("a name that would move the cursor") { w.add_raw_tensor("\x1B[2J\n", {1}, 0, 4); check_error(parse(w), "'\\x1b[2J\\x0a'"); }
}
// clang-format on

TEST_CASE("GGUF: mutated files are refused or read, never read past the end") {
  const std::string good = small_file().bytes();
  const int accepted = bad_bytes::mutate(good, 20000, good.size() - 200, [](auto bytes) {
    const auto file = parse(bytes);
    if (!file) {
      CHECK(file.error().message.find('\n') == std::string::npos);
      return false;
    }
    for (const auto& t : file->tensors()) (void)file->read_f32(t.name);
    for (const auto& key : file->keys()) {
      (void)file->get_u64(key), (void)file->get_f64(key), (void)file->get_bool(key), (void)file->get_string(key);
      (void)file->get_strings(key), (void)file->get_floats(key), (void)file->get_ints(key);
    }
    return true;
  });
  CHECK(accepted > 1000);
  CHECK(accepted < 19000);
}

TEST_CASE("GGUF: a split model is opened by its first part, with the others beside it") {
  const test_support::TemporaryFolder folder;
  const auto part = [&](std::uint16_t number, std::uint16_t count, const std::string& name) {
    GgufWriter w;
    if (number == 0) w.add_metadata("general.architecture", "llama");
    w.add_metadata("split.no", number), w.add_metadata("split.count", count);
    w.add_metadata("split.tensors.count", std::int32_t{3});
    w.add_f32("t" + std::to_string(number), {2}, {static_cast<float>(number), 7});
    REQUIRE(w.save(folder / name).ok());
  };
  const std::string first = "m-00001-of-00003.gguf", second = "m-00002-of-00003.gguf", third = "m-00003-of-00003.gguf";
  part(0, 3, first), part(1, 3, second), part(2, 3, third);
  const auto file = GgufFile::open(folder / first);
  INFO((file ? "" : file.error().message));
  REQUIRE(file.ok());
  CHECK(file->tensors().size() == 3);
  for (Index i = 0; i < 3; ++i) CHECK((*file->read_f32("t" + std::to_string(i)))(0, 0) == static_cast<float>(i));
  CHECK(*file->get_string("general.architecture") == "llama");
  CHECK(file->paths() == std::vector<std::string>{folder / first, folder / second, folder / third});

  const auto refused = [&](const std::string& name, std::string_view what) {
    const auto r = GgufFile::open(folder / name);
    REQUIRE(!r.ok());
    CAPTURE(r.error().message, what);
    CHECK(r.error().message.find(what) != std::string::npos);
    CHECK(r.error().message.rfind(folder / name, 0) == 0);
  };
  refused(second, "is part 2 of 3: open the first, ");
  refused(second, "m-00001-of-00003.gguf");
  part(1, 2, second);
  refused(first, "m-00002-of-00003.gguf says that it is part 2 of 2: fetch the parts of one model");
  part(0, 3, second);
  refused(first, "says that it is part 1 of 3");
  std::filesystem::remove(folder / second);
  refused(first, "is part 1 of 3; part 2: ");
  refused(first, "m-00002-of-00003.gguf: cannot open (");
  std::filesystem::rename(folder / first, folder / "renamed.gguf");
  refused("renamed.gguf", "is part 1 of 3, but its name does not end in -00001-of-00003.gguf");
  part(2, 2, "bad.gguf");
  refused("bad.gguf", "split.no is 2 of 2 parts");
  {
    GgufWriter w;
    w.add_metadata("split.count", std::uint16_t{2}), w.add_metadata("split.no", std::uint16_t{0});
    w.add_metadata("split.tensors.count", std::int32_t{3});
    w.add_f32("t", {1}, {1});
    REQUIRE(w.save(folder / "n-00001-of-00002.gguf").ok());
    part(1, 2, "n-00002-of-00002.gguf");
    refused("n-00001-of-00002.gguf", "split.tensors.count is 3, but the 2 parts hold 2");
    check_error(parse(w), "is part 1 of 2: open the file of the first part");
  }
}

TEST_CASE("GGUF: files that cannot be opened") {
  const auto absent = GgufFile::open("no/such/file.gguf");
  REQUIRE(!absent.ok());
  CHECK(absent.error().code == ErrorCode::io);
  CHECK(absent.error().message.rfind("no/such/file.gguf: cannot open (", 0) == 0);
  CHECK(!GgufFile::open("").ok());
  CHECK(!GgufFile::open(".").ok());
}

TEST_CASE("GGUF: the size of a streamed file is known before it is written") {
  const test_support::TemporaryFolder folder;
  GgufWriter metadata;
  metadata.add_metadata("general.architecture", "llama");
  const std::vector<io::GgufStream::Tensor> tensors = {
      {"a.weight", {3, 32}, "Q4_0"}, {"b.weight", {5}, "F32"}, {"c.weight", {1, 256}, "Q6_K"}};
  for (std::size_t count = 0; count <= tensors.size(); ++count) {
    const std::vector<io::GgufStream::Tensor> some(tensors.begin(), tensors.begin() + static_cast<std::ptrdiff_t>(count));
    const auto bytes = io::GgufStream::file_bytes(metadata, some);
    REQUIRE(bytes.ok());
    auto stream = io::GgufStream::create(folder / "s.gguf", metadata, some);
    REQUIRE(stream.ok());
    const std::vector<std::byte> zeros(1000);
    std::size_t i = 0;
    for (const std::size_t size : std::vector<std::size_t>{54, 20, 210})
      if (i++ < count) REQUIRE(stream->write(std::span(zeros).first(size)).ok());
    REQUIRE(stream->commit().ok());
    CHECK(std::filesystem::file_size(folder / "s.gguf") == *bytes);
  }
  CHECK(!io::GgufStream::file_bytes(metadata, {{"d.weight", {1, 33}, "Q4_0"}}).ok());
}
