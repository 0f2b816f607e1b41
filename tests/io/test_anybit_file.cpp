#include <anybit/io/anybit_file.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <anybit/format/integer.hpp>
#include <anybit/scheme/layouts.hpp>
#include <anybit/scheme/scheme.hpp>
#include <anybit/tensor/packed_tensor.hpp>

#include "bad_bytes.hpp"
#include "support/catch.hpp"
#include "support/source_dir.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using bad_bytes::check_error;
using bad_bytes::Exact;
using io::AnybitFile;
using io::AnybitWriter;

namespace {

PackedBytes packed(std::string_view scheme, Extents e, Index codes, Index scales, Index zeros, Index order) {
  PackedBytes p = PackedBytes::allocate(scheme, "made by hand", e, codes, scales, zeros, order);
  unsigned value = 1;
  for (const auto section : {p.codes(), p.scales(), p.zeros(), p.order()})
    for (std::byte& b : p.mutable_section(section)) b = static_cast<std::byte>(value++ * 37);
  return p;
}

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream all;
  all << in.rdbuf();
  return all.str();
}

struct Small {
  PackedBytes a = packed("SF5 g128 f16", {3, 40}, 75, 6, 0, 0), b = packed("int4 g32", {2, 7}, 8, 4, 1, 28),
              c = packed("SF5 g128 f16", {1, 1}, 1, 2, 0, 0);
  Matrix m{2, 3};
  AnybitWriter writer() {
    for (Index i = 0; i < 6; ++i) m.data()[i] = static_cast<float>(i) - 2.5f;
    AnybitWriter w;
    w.add("blk.0.a", a);
    w.add("norm", m.view());
    w.add("blk.0.b", b);
    w.add("one", c);
    w.set_metadata("general.architecture", "llama");
    return w;
  }
};

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  REQUIRE(what.size() == with.size());
  const auto at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

}  // namespace

TEST_CASE("container: packed tensors and matrices come back as views on the mapped file") {
  const test_support::TemporaryFolder folder;
  Small s;
  const std::string path = folder / "model.anybit";
  REQUIRE(s.writer().write(path).ok());
  CHECK(folder.files() == 1);

  auto opened = AnybitFile::open(path);
  REQUIRE(opened.ok());
  const AnybitFile file = *opened;  // a copy that outlives the first
  opened = Error{ErrorCode::io, "gone"};
  CHECK(file.metadata() == std::map<std::string, std::string>{{"general.architecture", "llama"}});
  CHECK(file.tensors().size() == 4);
  const std::pair<const char*, const PackedBytes*> all[] = {{"blk.0.a", &s.a}, {"blk.0.b", &s.b}, {"one", &s.c}};
  for (const auto& [name, original] : all) {
    INFO(name);
    REQUIRE(file.is_packed(name));
    const auto p = file.packed(name);
    REQUIRE(p.ok());
    CHECK(p->scheme_name() == original->scheme_name());
    CHECK(p->provenance() == "made by hand");
    CHECK(p->extents() == original->extents());
    CHECK(same(p->codes(), original->codes()));
    CHECK(same(p->scales(), original->scales()));
    CHECK(same(p->zeros(), original->zeros()));
    CHECK(same(p->order(), original->order()));
    CHECK(reinterpret_cast<std::uintptr_t>(p->bytes().data()) % 64 == 0);
  }
  CHECK(!file.is_packed("norm"));
  CHECK((*file.view_f32("norm"))(1, 2) == 2.5f);
  CHECK((*file.read_f32("norm"))(0, 0) == -2.5f);

  const auto wrong = [&](const auto& r, std::string_view part) {
    REQUIRE(!r.ok());
    INFO(r.error().message);
    CHECK(r.error().message.rfind(path + ": ", 0) == 0);
    CHECK(r.error().message.find(part) != std::string::npos);
  };
  wrong(file.packed("norm"), "tensor 'norm' is not packed but F32");
  wrong(file.packed("absent"), "no tensor 'absent'");
  wrong(file.read_f32("one"), "tensor 'one' is packed by 'SF5 g128 f16'");
  wrong(file.view_f32("one"), "is packed by");
  wrong(file.read<std::uint8_t>("one"), "is packed by");
  wrong(file.view_f32("absent"), "no tensor 'absent'");
}

TEST_CASE("container: any safetensors reader can list it") {
  const test_support::TemporaryFolder folder;
  REQUIRE(Small().writer().write(folder / "m").ok());
  const auto file = io::SafetensorsFile::open(folder / "m");
  REQUIRE(file.ok());
  CHECK(file->metadata().at("anybit.version") == "1");
  CHECK(file->metadata().at("anybit.scheme.blk.0.b") == "int4 g32");
  CHECK(file->metadata().at("anybit.shape.blk.0.b") == "2x7");
  CHECK(file->find("blk.0.b")->dtype == "U8");
}

TEST_CASE("container: the same content gives the same file, also when it was read back") {
  const test_support::TemporaryFolder folder;
  Small s;
  REQUIRE(s.writer().write(folder / "1").ok());
  const auto file = AnybitFile::open(folder / "1");
  AnybitWriter again;
  for (const char* name : {"blk.0.a", "norm", "blk.0.b", "one"}) {
    if (file->is_packed(name))
      again.add(name, *file->packed(name));
    else
      again.add(name, *file->view_f32(name));
  }
  for (const auto& [key, value] : file->metadata()) again.set_metadata(key, value);
  REQUIRE(again.write(folder / "2").ok());
  CHECK(text_of(folder / "1") == text_of(folder / "2"));
}

TEST_CASE("container: matrices with a stride, empty ones, and other types") {
  const test_support::TemporaryFolder folder;
  Matrix wide(3, 8);
  for (Index i = 0; i < 24; ++i) wide.data()[i] = static_cast<float>(i);
  AnybitWriter w;
  w.add("part", ConstMatrix(wide.data() + 2, 3, 5, 8));
  w.add("none", ConstMatrix(nullptr, 0, 4));
  const std::vector<std::uint8_t> bytes{0, 255, 10};
  w.add(io::tensor_of<std::uint8_t>("vocabulary", {3}, bytes));
  REQUIRE(w.write(folder / "m").ok());
  const auto file = AnybitFile::open(folder / "m");
  const auto part = file->read_f32("part");
  for (Index r = 0; r < 3; ++r)
    for (Index c = 0; c < 5; ++c) CHECK((*part)(r, c) == wide(r, c + 2));
  CHECK(file->read_f32("none")->extents() == Extents{0, 4});
  CHECK(*file->read<std::uint8_t>("vocabulary") == bytes);
}

TEST_CASE("container: what cannot be written leaves no file") {
  const test_support::TemporaryFolder folder;
  const auto refused = [&](const AnybitWriter& w, std::string_view part) {
    const auto done = w.write(folder / "m");
    REQUIRE(!done.ok());
    INFO(done.error().message);
    CHECK(done.error().message.find(part) != std::string::npos);
    CHECK(folder.files() == 0);
  };
  AnybitWriter empty, twice, key;
  empty.add("w", PackedBytes());
  refused(empty, "'w' holds no bytes");
  const Matrix m(1, 1);
  twice.add("w", m.view());
  twice.add("w", m.view());
  refused(twice, "comes twice");
  key.set_metadata("anybit.version", "2");
  refused(key, "'anybit.version' is a key of the container");
}

TEST_CASE("container: bad containers: each is an error that names file and tensor") {
  const test_support::TemporaryFolder folder;
  REQUIRE(Small().writer().write(folder / "m").ok());
  const std::string good = text_of(folder / "m");
  const auto parse = [](const std::string& s) { return AnybitFile::parse(Exact(s).bytes(), "bad.file"); };
  REQUIRE(parse(good).ok());
  check_error(parse(replaced(good, "anybit.version", "anybit.Version")), "without 'anybit.version'");
  check_error(parse(replaced(good, R"("anybit.version":"1")", R"("anybit.version":"2")")),
              "container version '2'; this build reads 1");
  check_error(parse(replaced(good, "anybit.scheme.one", "anybit.scheme.two")),
              "tensor 'two': metadata gives it the scheme 'SF5 g128 f16', but it is not in the file");
  check_error(parse(replaced(good, "anybit.shape.one", "anybit.shape.two")),
              "tensor 'one': metadata says 'SF5 g128 f16' and no shape");
  check_error(parse(replaced(good, "int4 g32", "int8 g32")),
              "tensor 'blk.0.b': metadata says 'int8 g32' and '2x7', its bytes say 'int4 g32' and 2x7");
  check_error(parse(replaced(good, R"("3x40")", R"("3x41")")), "tensor 'blk.0.a'");
  check_error(parse(replaced(good, "ANYB", "ANYC")), "does not start with ANYB");
  const auto first = good.find("ANYB");
  std::string negative = good;  // 2^64-1 rows of 0 columns: the product is no warning
  std::memset(negative.data() + first + 16, 0xFF, 8);
  std::memset(negative.data() + first + 24, 0, 8);
  check_error(parse(negative), "sizes overflow (18446744073709551615 x 0)");
  check_error(parse("nothing"), "safetensors header");
  bad_bytes::every_prefix_is_refused(good, [&](auto bytes) { return AnybitFile::parse(bytes, "bad.file").ok(); });
}

TEST_CASE("container: mutated containers are refused or read, never read past the end") {
  const test_support::TemporaryFolder folder;
  REQUIRE(Small().writer().write(folder / "m").ok());
  const std::string good = text_of(folder / "m");
  const std::size_t header = good.find("made by hand");
  unsigned sum = 0;  // so that the bytes are really touched
  const int accepted = bad_bytes::mutate(good, 10000, header, [&](auto bytes) {
    const auto file = AnybitFile::parse(bytes, "bad.file");
    if (!file) return false;
    for (const auto& t : file->tensors()) {
      (void)file->read_f32(t.name), (void)file->view_f32(t.name);
      const auto p = file->packed(t.name);
      if (!p) continue;
      for (const auto section : {p->codes(), p->scales(), p->zeros(), p->order()})
        for (const std::byte b : section) sum += std::to_integer<unsigned>(b);
    }
    return true;
  });
  CHECK(accepted > 200);
  CHECK(sum != 0);
}

TEST_CASE("container: the dump in docs/file_format.md opens and decodes to the weights that the page names") {
  using Int4 = Scheme<SInt<4>, PerGroup<32>, ScaleF16>;
  std::istringstream page(text_of(test_support::source_dir() + std::string("/docs/file_format.md")));
  std::string line, bytes;
  while (std::getline(page, line) && line != "```hexdump") {
  }
  while (std::getline(page, line) && line != "```") {
    bytes.resize(std::stoul(line.substr(0, 8), nullptr, 16), '\0');
    for (std::size_t at = 10; at < 49; at += line[at + 2] == ' ' ? 3u : 2u)
      bytes += static_cast<char>(std::stoul(line.substr(at, 2), nullptr, 16));
  }
  bytes.resize((bytes.size() + 63) / 64 * 64, '\0');
  const Exact exact(bytes);
  const auto file = AnybitFile::parse(exact.bytes(), "page");
  INFO((file ? "" : file.error().message));
  REQUIRE(file.ok());
  CHECK(file->metadata().at("general.name") == "example");
  const auto tensor = PackedTensor<Int4>::from(*file->packed("w"));
  REQUIRE(tensor.ok());
  REQUIRE(tensor->extents() == Extents{2, 64});
  for (Index r = 0; r < 2; ++r) {
    std::vector<Int4::code> codes(64);
    tensor->unpack_codes(r, 0, codes);
    for (Index c = 0; c < 64; ++c) {
      const float weight = (r == 0 ? 0.5f : 0.25f) * static_cast<float>(c % 16 - 8), scale = tensor->affine(r, c / 32).scale;
      CHECK(std::abs(SInt<4>::decode(codes[static_cast<std::size_t>(c)]) * scale - weight) <= 0.5001f * scale);
    }
  }
}
