#include <anybit/io/safetensors.hpp>
#include <anybit/io/safetensors_writer.hpp>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "bad_bytes.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

using namespace anybit;
using bad_bytes::check_error;
using bad_bytes::Exact;
using io::SafetensorsFile;
using io::TensorInfo;

namespace {

std::string with_header(std::string_view json, std::string_view data) {
  const std::uint64_t size = json.size();
  std::string out(reinterpret_cast<const char*>(&size), sizeof size);
  return (out += json) += data;
}

auto parse_safetensors(std::span<const std::byte> bytes) { return SafetensorsFile::parse(bytes, "bad.file"); }
Result<SafetensorsFile> parse_text(std::string_view json, std::string_view data) {
  return parse_safetensors(Exact(with_header(json, data)).bytes());
}

const std::string small_json =
    R"({"__metadata__":{"format":"pt","\u00e9":"\n"},"b":{"dtype":"I16","shape":[2],"data_offsets":[24,28]},)"
    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("none":{"dtype":"F32","shape":[0,7],"data_offsets":[28,28]},"one":{"dtype":"U8","shape":[],"data_offsets":[28,29]}}   )";
std::string small_data() {
  const float a[6] = {1, 2, 3, 4, 5, -6};
  const std::int16_t b[2] = {-300, 7};
  return std::string(reinterpret_cast<const char*>(a), sizeof a) + std::string(reinterpret_cast<const char*>(b), sizeof b) +
         '\xFF';
}

}  // namespace

TEST_CASE("safetensors: every reference file opens and its typed tensors read") {
  for (const char* name : {"awq", "bitnet", "ggml", "gptq", "model", "nf4", "packing", "prune", "smoothquant", "superfloat"}) {
    const auto path = test_support::test_data("vectors/" + std::string(name) + ".safetensors");
    ANYBIT_HAVE_OR_SKIP(path, "vectors/" << name << ".safetensors is not present");
    const auto file = SafetensorsFile::open(*path);
    REQUIRE(file.ok());
    CHECK(file->tensors().size() >= 13);
    for (const auto& t : file->tensors()) {
      const auto m = file->read_f32(t.name);
      REQUIRE(m.ok());
      CHECK(m->extents().size() == t.size());
    }
  }
}

TEST_CASE("safetensors: a file written by hand reads back") {
  const Exact bytes(with_header(small_json, small_data()));
  const auto file = SafetensorsFile::parse(bytes.bytes(), "small");
  REQUIRE(file.ok());
  CHECK(file->metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"\xC3\xA9", "\n"}});
  REQUIRE(file->tensors().size() == 4);
  CHECK(file->tensors()[0].name == "a");  // in the order of the data
  CHECK(file->tensors()[1].name == "b");
  const auto a = file->read_f32("a");
  CHECK(a->extents() == Extents{2, 3});
  CHECK((*a)(1, 2) == -6);
  CHECK(*file->read<std::int16_t>("b") == std::vector<std::int16_t>{-300, 7});
  CHECK((*file->read_f32("b"))(0, 0) == -300);
  CHECK(file->read_f32("none")->extents() == Extents{0, 7});
  CHECK(file->read<float>("none")->empty());
  CHECK((*file->read_f32("one"))(0, 0) == 255);

  const auto named = SafetensorsFile::parse(bytes.bytes(), "bad.file");
  check_error(named->read<float>("b"), "tensor 'b' has type I16, not F32");
  check_error(named->read<std::uint16_t>("b"), "has type I16, not U16");
  check_error(named->read<float>("c"), "no tensor 'c' among 4");
  CHECK(!io::view_f32(*named->find("b")).ok());
}

TEST_CASE("safetensors: what is written reads back, aligned and untouched by its order") {
  const test_support::TemporaryFolder folder;
  const std::vector<std::uint8_t> u8{1, 2, 255};
  const std::vector<std::int8_t> i8{-128, 127};
  const std::vector<std::uint16_t> u16{65535};
  const std::vector<std::int16_t> i16{-32768, 5, 6};
  const std::vector<std::uint32_t> u32{4294967295u};
  const std::vector<std::int32_t> i32{-5, 6, 7};
  const std::vector<std::uint64_t> u64{1, 1ull << 63};
  const std::vector<std::int64_t> i64{-1};
  const std::vector<float> f32{1.5f, -0.0f, 3e-45f};
  const std::vector<double> f64{1e-300, 2};
  const std::vector<float> big(64, 2.5f);
  const std::vector<TensorInfo> tensors{
      io::tensor_of<std::uint8_t>("u8", {3}, u8),
      io::tensor_of<std::int8_t>("i8", {2}, i8),
      io::tensor_of<std::uint16_t>("u16", {}, u16),
      io::tensor_of<std::int16_t>("i16", {3, 1}, i16),
      io::tensor_of<std::uint32_t>("u32", {1}, u32),
      io::tensor_of<std::int32_t>("i32", {1, 3}, i32),
      io::tensor_of<std::uint64_t>("u64", {2}, u64),
      io::tensor_of<std::int64_t>("i64", {1}, i64),
      io::tensor_of<float>("f32", {3}, f32),
      io::tensor_of<double>("f64", {2}, f64),
      io::tensor_of<float>("big \"quoted\" \xC3\xA9\n", {8, 8}, big),
      io::tensor_of<float>("empty", {0, 4}, {}),
      {"half", "F16", {3}, std::as_bytes(std::span(i16))},
      {"brain", "BF16", {1}, std::as_bytes(std::span(u16))},
      {"flags", "BOOL", {2}, std::as_bytes(std::span(i8))},
      {"fp8", "F8_E4M3", {3}, std::as_bytes(std::span(u8))},
  };
  const std::map<std::string, std::string> metadata{{"format", "anybit \"test\""}, {"line", "a\nb"}};
  const std::string path = folder / "all.safetensors";
  REQUIRE(io::write_safetensors(path, tensors, metadata).ok());
  CHECK(folder.files() == 1);

  const auto file = SafetensorsFile::open(path);
  REQUIRE(file.ok());
  CHECK(file->metadata() == metadata);
  REQUIRE(file->tensors().size() == tensors.size());
  for (const TensorInfo& t : tensors) {
    const TensorInfo* const found = file->find(t.name);
    INFO(t.name);
    REQUIRE(found);
    CHECK(found->dtype == t.dtype);
    CHECK(found->shape == t.shape);
    REQUIRE(found->bytes.size() == t.bytes.size());
    CHECK((t.bytes.empty() || std::memcmp(found->bytes.data(), t.bytes.data(), t.bytes.size()) == 0));
    const auto address = reinterpret_cast<std::uintptr_t>(found->bytes.data());
    CHECK(address % static_cast<std::uintptr_t>(io::find_dtype(t.dtype)->block_bytes) == 0);
    if (t.bytes.size() % 64 == 0) CHECK(address % 64 == 0);
  }
  CHECK(*file->read<std::uint64_t>("u64") == u64);
  CHECK(*file->read<double>("f64") == f64);
  CHECK((*io::view_f32(*file->find("big \"quoted\" \xC3\xA9\n")))(7, 7) == 2.5f);

  // Two files of the same content are the same file; a copy keeps the mapping alive.
  REQUIRE(io::write_safetensors(folder / "again.safetensors", file->tensors(), file->metadata()).ok());
  const auto copy = *file;
  CHECK(*copy.read<float>("f32") == f32);
}

TEST_CASE("safetensors: a tensor of an unknown type is listed, and an error only when its values are wanted") {
  const Exact bytes(with_header(
      R"({"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}})",
      "abc" + std::string(4, '\0')));
  const auto file = SafetensorsFile::parse(bytes.bytes(), "bad.file");
  REQUIRE(file.ok());
  CHECK((*file->read_f32("b"))(0, 0) == 0);
  CHECK(file->find("a")->dtype == "F4");
  CHECK(file->find("a")->bytes.size() == 3);
  check_error(file->read_f32("a"),
              "tensor 'a' has the unknown type 'F4', which anybit cannot turn into floats: convert it to F32");
  check_error(file->read<float>("a"), "tensor 'a' has type F4, not F32");
}

TEST_CASE("safetensors: one-byte floats are read by the formats of the library") {
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  const Exact bytes(with_header(R"({"e4m3":{"dtype":"F8_E4M3","shape":[16,16],"data_offsets":[0,256]},)"
                                R"("e5m2":{"dtype":"F8_E5M2","shape":[256],"data_offsets":[256,512]},)"
                                R"("e8m0":{"dtype":"F8_E8M0","shape":[256],"data_offsets":[512,768]},)"
                                R"("complex":{"dtype":"C64","shape":[1],"data_offsets":[768,776]}})",
                                all + all + all + std::string(8, '\0')));
  const auto file = SafetensorsFile::parse(bytes.bytes(), "bad.file");
  REQUIRE(file.ok());
  const auto e4m3 = file->read_f32("e4m3"), e5m2 = file->read_f32("e5m2"), e8m0 = file->read_f32("e8m0");
  REQUIRE((e4m3 && e5m2 && e8m0));
  CHECK(e4m3->extents() == Extents{16, 16});
  // Values of OCP's tables.
  const auto at = [&](unsigned code) { return (*e4m3)(static_cast<Index>(code / 16), static_cast<Index>(code % 16)); };
  CHECK(at(0x38) == 1);
  CHECK(at(0xB8) == -1);
  CHECK(at(0x7E) == 448);
  CHECK(at(0x01) == 0x1p-9f);
  CHECK(at(0x08) == 0x1p-6f);
  CHECK(std::isnan(at(0x7F)));
  CHECK((*e5m2)(0, 0x3C) == 1);
  CHECK((*e5m2)(0, 0x7B) == 57344);
  CHECK((*e5m2)(0, 0x81) == -0x1p-16f);
  CHECK((*e5m2)(0, 0x7C) == std::numeric_limits<float>::infinity());
  CHECK(std::isnan((*e5m2)(0, 0x7E)));
  CHECK((*e8m0)(0, 127) == 1);
  CHECK((*e8m0)(0, 0) == 0x1p-127f);
  CHECK((*e8m0)(0, 254) == 0x1p127f);
  CHECK(std::isnan((*e8m0)(0, 255)));
  check_error(file->read_f32("complex"),
              "tensor 'complex' has type C64, which anybit cannot turn into floats: convert it to F32, F16");
}

TEST_CASE("safetensors: __metadata__ may be null, and what else it is is named") {
  const auto none = parse_text(R"({"__metadata__": null ,"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x");
  REQUIRE(none.ok());
  CHECK(none->metadata().empty());
  CHECK(none->tensors().size() == 1);
  check_error(parse_text(R"({"__metadata__":1})", ""), "safetensors header: __metadata__: JSON at byte 16");
  check_error(parse_text(R"({"__metadata__":nul})", ""), "__metadata__: JSON at byte 16");
  check_error(parse_text(R"({"__metadata__":{"a":null}})", ""), "__metadata__: JSON at byte");
}

TEST_CASE("safetensors: no tensors, no metadata: still a file") {
  const test_support::TemporaryFolder folder;
  REQUIRE(io::write_safetensors(folder / "empty", {}).ok());
  const auto file = SafetensorsFile::open(folder / "empty");
  REQUIRE(file.ok());
  CHECK(file->tensors().empty());
}

TEST_CASE("safetensors: what cannot be written leaves no file") {
  const test_support::TemporaryFolder folder;
  const std::vector<float> x(4);
  const auto bytes = std::as_bytes(std::span(x));
  const std::string path = folder / "out";
  const auto refused = [&](std::vector<TensorInfo> t, std::string_view part) {
    const auto done = io::write_safetensors(path, t);
    REQUIRE(!done.ok());
    INFO(done.error().message);
    CHECK(done.error().message.find(part) != std::string::npos);
    CHECK(done.error().message.rfind(path, 0) == 0);
    CHECK(folder.files() == 0);
  };
  refused({{"a", "F32", {3}, bytes}}, "tensor 'a': type F32 and shape need 12 bytes, not 16");
  refused({{"a", "Q4_0", {32}, bytes}}, "no type 'Q4_0'");
  refused({{"a", "F32", {-4}, bytes}}, "an extent of -4 is negative");
  refused({{"a", "F32", {Index{1} << 62, 4}, bytes}}, "overflows");
  refused({{"a", "F32", {4}, bytes}, {"a", "F32", {4}, bytes}}, "comes twice");
  refused({{"__metadata__", "F32", {4}, bytes}}, "rename");
  refused({{"\xFF", "F32", {4}, bytes}}, "must be UTF-8");
  const std::vector<TensorInfo> fine{{"a", "F32", {4}, bytes}};
  CHECK(!io::write_safetensors(path, fine, {{"k", "\xFF"}}).ok());
  CHECK(!io::write_safetensors(folder / "no/folder", fine).ok());
  CHECK(folder.files() == 0);
}

TEST_CASE("safetensors: a model in several files opens by its index") {
  const test_support::TemporaryFolder folder;
  const std::vector<float> x{1, 2}, y{3};
  REQUIRE(io::write_safetensors(folder / "m-1.safetensors", std::vector{io::tensor_of<float>("x", {1, 2}, x)}, {{"format", "pt"}})
              .ok());
  REQUIRE(io::write_safetensors(folder / "m-2.safetensors", std::vector{io::tensor_of<float>("y", {1}, y)}).ok());
  const std::string path = folder / "m.safetensors.index.json";
  const auto open = [&](std::string_view json) {
    std::ofstream(path) << json;
    return SafetensorsFile::open(path);
  };
  const auto model = open(
      R"({"metadata": {"total_size": 12.0, "more": [null]}, "weight_map": {"y": "m-2.safetensors", "x": "m-1.safetensors"}})");
  REQUIRE(model.ok());
  CHECK(model->tensors().size() == 2);
  CHECK((*model->read_f32("x"))(0, 1) == 2);
  CHECK(*model->read<float>("y") == y);
  CHECK(model->metadata().at("format") == "pt");

  const auto refused = [&](std::string_view json, std::string_view part) {
    const auto r = open(json);
    REQUIRE(!r.ok());
    INFO(r.error().message);
    CHECK(r.error().message.rfind(path + ": ", 0) == 0);
    CHECK(r.error().message.find(part) != std::string::npos);
  };
  refused("{}", "has no weight_map");
  refused(R"({"weight_map": {}})", "has no weight_map");
  refused(R"({"weight_map": 1})", "'{' must stand here");
  refused(R"({"weight_map": {"x": 1}})", "must stand here");
  refused(R"({"weight_map": {"x": "m-2.safetensors"}})", "no tensor 'x' among 1");
  refused(R"({"weight_map": {"x": "m-3.safetensors"}})", "m-3.safetensors: cannot open");
  refused(R"({"weight_map": {"x": "../m-1.safetensors"}})", "only a file name in the same folder");
  refused(R"({"weight_map": {"x": "/etc/passwd"}})", "only a file name in the same folder");
  refused(R"({"weight_map": {"x": ".."}})", "only a file name");
  refused(R"({"weight_map": {"x": "m\u001b[31m.safetensors"}})", "'m\\x1b[31m.safetensors'; only a file name");
  refused(R"({"weight_map": {"x": "m.safetensors.index.json"}})", "m.safetensors.index.json: ");  // itself: no endless recursion
  refused("{\"weight_map\": {\"x\": \"m-1.safetensors\"}", "'}' must stand here");
  refused("\xFF", "not UTF-8");

  // A tensor in two shards, named by the index or not; one that the index leaves out is kept.
  REQUIRE(io::write_safetensors(folder / "m-4.safetensors",
                                std::vector{io::tensor_of<float>("x", {1, 2}, x), io::tensor_of<float>("z", {1}, y)})
              .ok());
  refused(R"({"weight_map": {"x": "m-1.safetensors", "z": "m-4.safetensors"}})",
          "tensor 'x' is in 'm-4.safetensors' and in 'm-1.safetensors': fetch the shards again");
  REQUIRE(io::write_safetensors(folder / "m-5.safetensors",
                                std::vector{io::tensor_of<float>("z", {1}, y), io::tensor_of<float>("w", {1}, y)})
              .ok());
  refused(R"({"weight_map": {"x": "m-4.safetensors", "w": "m-5.safetensors"}})",
          "tensor 'z' is in 'm-5.safetensors' and in another");
  CHECK(open(R"({"weight_map": {"x": "m-4.safetensors", "y": "m-2.safetensors"}})")->tensors().size() == 3);
}

TEST_CASE("safetensors: a file cut anywhere is an error") {
  bad_bytes::every_prefix_is_refused(with_header(small_json, small_data()),
                                     [](auto bytes) { return parse_safetensors(bytes).ok(); });
}

TEST_CASE("safetensors: bad safetensors: each is an error that names file, tensor, value and remedy") {
  const std::string four(4, '\0'), eight(8, '\0');
  const auto tensor = [](std::string_view fields) { return "{\"t\":{" + std::string(fields) + "}}"; };
  const std::string f32 = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  REQUIRE(parse_text(tensor(f32), four).ok());

  check_error(parse_safetensors(Exact(std::string(8, '\xFF')).bytes()),
              "a header of 18446744073709551615 bytes, more than the 100000000");
  check_error(parse_safetensors(Exact(std::string("\x64\0\0\0\0\0\0\0{", 9)).bytes()),
              "the safetensors header at byte 8 needs 100 bytes, but only 1");
  check_error(parse_safetensors(Exact(std::string(8, '\0')).bytes()), "starts with '{'");
  check_error(parse_text(" " + tensor(f32), four), "starts with '{'");
  check_error(parse_text("{\"\xFF\":1}", ""), "not UTF-8");
  check_error(parse_text(tensor(f32) + "x", four), "text follows the end");
  check_error(parse_text(tensor(f32), four + "x"), "tensors fill 4 of 5 bytes of data");
  check_error(parse_text(tensor(f32), "123"), "data_offsets [0, 4] do not follow byte 0 inside 3 bytes");
  check_error(parse_text("{}", "x"), "tensors fill 0 of 1");
  check_error(parse_text(R"({"t":1})", ""), "tensor 't': JSON at byte 5");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[1])"), four), "must all be given");
  check_error(parse_text(tensor(f32 + R"(,"more":1)"), four), "unknown field 'more'");
  check_error(parse_text(tensor(f32 + R"(,"shape":[1])"), four), "key 'shape' comes twice");
  check_error(parse_text("{\"t\":{" + f32 + "},\"t\":{" + f32 + "}}", four), "key 't' comes twice");
  check_error(parse_text(R"({"__metadata__":{"a":"b","a":"c"}})", ""), "key 'a' comes twice");
  check_error(parse_text(R"({"__metadata__":{"a":1}})", ""), "JSON at byte");
  check_error(parse_text(tensor(R"("dtype":"F33","shape":[4294967296,4294967296],"data_offsets":[0,4])"), four), "overflows");
  check_error(parse_text(tensor(R"("dtype":"Q4_0","shape":[32],"data_offsets":[0,17])"), std::string(17, 'x')),
              "type Q4_0 and shape need 18 bytes, data_offsets give 17");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), four), "a non-negative integer");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])"), four), "not a fraction");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4])"), four),
              "an extent overflows");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])"), four),
              "exceeds 64 bits");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), ""),
              "overflows");  // wraps to 0 == 0
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"), ""), "overflows");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), four), "need 8 bytes, data_offsets give 4");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), four), "must be [begin, end]");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"), eight), "must be [begin, end]");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), four), "data_offsets [4, 0]");
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), eight), "do not follow byte 0");  // a gap
  check_error(parse_text(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615])"), four), "inside 4 bytes");
  check_error(parse_text("{\"s\":{" + f32 + "},\"t\":{" + f32 + "}}", four), "do not follow byte 4");  // overlap
}

TEST_CASE("safetensors: mutated files are refused or read, never read past the end") {
  const std::string good = with_header(small_json, small_data());
  const int accepted = bad_bytes::mutate(good, 20000, good.size() - 29, [](auto bytes) {
    const auto file = parse_safetensors(bytes);
    if (!file) {
      CHECK(file.error().message.find('\n') == std::string::npos);
      return false;
    }
    for (const auto& t : file->tensors()) (void)file->read_f32(t.name);
    return true;
  });
  CHECK(accepted > 100);
  CHECK(accepted < 19500);
}
