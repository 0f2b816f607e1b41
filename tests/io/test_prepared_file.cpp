// Prepared weights in memory of the caller and in a file: the same products, or an error that names what differs.

#include <cstring>

#include <anybit/format/codebook.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/io/prepared_file.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/tensor/quantize.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;

namespace {

using Int4 = Scheme<SInt<4>, PerGroup<32>>;

Matrix waves(Index rows, Index cols, float step) {
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = std::sin(step * static_cast<float>(i));
  return m;
}
template <AnyScheme S = Int4>
AnyPacked some(Index rows, Index cols, float step = 0.37f) {
  return AnyPacked(pack(*quantize_nearest<S>(waves(rows, cols, step).view())));
}
Matrix product(const AnyPacked& w, Compute compute = Compute::int8_per_token) {
  const Matrix x = waves(5, w.extents().cols, 0.11f);
  Matrix y(5, w.extents().rows);
  Workspace workspace;
  w.matmul(x.view(), y.view(), compute, {}, workspace);
  return y;
}
/// Of one error.
template <class T>
std::string message(const Result<T>& r) {
  return r ? "no error" : r.error().message;
}

}  // namespace

TEST_CASE("weights are prepared in memory of the caller and used again from it") {
  AnyPacked w = some(70, 160);
  const Matrix expected = product(w);
  const Index bytes = w.prepared_bytes(Compute::int8_per_token);
  CHECK(bytes > 70 * 80);
  CHECK(bytes < 70 * 80 * 2);
  CHECK(w.prepared_bytes(Compute::f32) == 0);
  AlignedBuffer arena(static_cast<std::size_t>(bytes) + 64);
  std::memset(arena.data(), 0xFF, arena.size());
  const auto memory = arena.bytes().first(static_cast<std::size_t>(bytes));
  auto made = w.prepare_into(memory, Compute::int8_per_token);
  REQUIRE(made);
  CHECK((made->tiled && made->bytes + static_cast<Index>(sizeof(kernel::PreparedHeader)) == bytes));
  CHECK(w.prepared().tiled);
  CHECK(test_support::same_bits(product(w), expected));
  CHECK(arena.data()[bytes] == std::byte{0xFF});  // nothing past the end

  AnyPacked again = some(70, 160);
  made = again.use_prepared(memory, Compute::int8_per_token);
  REQUIRE(made);
  CHECK(test_support::same_bits(product(again), expected));
  CHECK(test_support::same_bits(product(again, Compute::f32), product(w, Compute::f32)));
  // And without the packed bytes.
  REQUIRE(again.release_packed());
  CHECK(again.extents() == Extents{70, 160});
  CHECK(again.scheme_name() == Int4::name.view());
  CHECK(test_support::same_bits(product(again), expected));
  CHECK(again.prepare(Compute::int8_per_token).tiled);
}

TEST_CASE("memory that does not fit is refused with numbers") {
  AnyPacked w = some(70, 160);
  const auto bytes = static_cast<std::size_t>(w.prepared_bytes(Compute::int8_per_token));
  AlignedBuffer arena(bytes + 64);
  CHECK(message(w.prepare_into(arena.bytes().first(bytes - 1), Compute::int8_per_token))
            .find(std::to_string(bytes - 1) + " bytes of memory are given and " + std::to_string(bytes) + " needed") !=
        std::string::npos);
  CHECK(message(w.prepare_into(arena.bytes().subspan(16), Compute::int8_per_token)).find("16 bytes past a multiple of 64") !=
        std::string::npos);
  CHECK_FALSE(w.prepared().tiled);
  CHECK_FALSE(w.release_packed());
  // Nothing is made, and no memory needed, where there is no layout: the answer says why.
  AnyPacked codebook = some<Scheme<Nf4, PerGroup<32>>>(9, 64);
  CHECK(codebook.prepared_bytes(Compute::int8_per_token) == 0);
  const auto none = codebook.prepare_into({}, Compute::int8_per_token);
  REQUIRE(none);
  CHECK((!*none && none->why_not.find("level_error") != std::string_view::npos));
  CHECK(codebook.prepared_bytes(Compute::int8_per_token, 0.004f) > 9 * 32);
}

TEST_CASE("prepared bytes of anything else are refused by what differs") {
  AnyPacked w = some(70, 160);
  const Compute compute = Compute::int8_per_token;
  AlignedBuffer arena(static_cast<std::size_t>(w.prepared_bytes(compute)));
  REQUIRE(w.prepare_into(arena.bytes(), compute));
  const auto refused = [&](AnyPacked other, std::string_view text, Compute as = Compute::int8_per_token) {
    const std::string said = message(other.use_prepared(arena.bytes(), as));
    CAPTURE(said, text);
    CHECK(said.find(text) != std::string::npos);
    CHECK_FALSE(other.prepared().tiled);
  };
  refused(some(71, 160), "a tensor of 70x160, and here it is 71x160");
  refused(some(70, 160, 0.36f), "a tensor with fingerprint");
  refused(some<Scheme<SInt<5>, PerGroup<32>>>(70, 160), "scheme int4/g32/f16/bits, and here it is int5");
  refused(w = some(70, 160), "compute int8_per_token, and here it is int8_per_block", Compute::int8_per_block);
  kernel::PreparedHeader header;
  const auto with = [&](auto change, std::string_view text) {
    std::memcpy(&header, arena.data(), sizeof header);
    const kernel::PreparedHeader right = header;
    change(header);
    std::memcpy(arena.data(), &header, sizeof header);
    refused(some(70, 160), text);
    std::memcpy(arena.data(), &right, sizeof right);
  };
  with([](auto& h) { h.version = 77; }, "layout version 77, and here it is 1");
  with([](auto& h) { std::strcpy(h.isa, "z80"); }, "architecture z80, and here it is ");
  with([](auto& h) { h.magic[3] = 'x'; }, "do not start with");
  with([](auto& h) { h.compute = 250; }, "compute 250");
  AnyPacked other = some(70, 160);
  CHECK(message(other.use_prepared(arena.bytes().first(100), compute)).find("100 bytes are less than a header") !=
        std::string::npos);
  CHECK(message(other.use_prepared(arena.bytes().first(1000), compute)).find("cut off, 1000 bytes of") != std::string::npos);
  CHECK(other.use_prepared(arena.bytes(), compute));
}

TEST_CASE("a file of prepared weights is mapped and used") {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "cache";
  std::vector<AnyPacked> weights{some(70, 160), some(33, 96, 0.2f)};
  std::vector<Matrix> expected;
  {
    std::vector<AlignedBuffer> memory;
    std::vector<io::PreparedBytes> all;
    for (AnyPacked& w : weights) {
      memory.emplace_back(static_cast<std::size_t>(w.prepared_bytes(Compute::int8_per_token)));
      REQUIRE(w.prepare_into(memory.back().bytes(), Compute::int8_per_token));
      expected.push_back(product(w));
    }
    for (std::size_t i = 0; i < 2; ++i) all.push_back({"w" + std::to_string(i), memory[i].bytes()});
    REQUIRE(io::write_prepared(path, all));
    weights = {some(70, 160), some(33, 96, 0.2f)};
  }
  const auto file = io::PreparedFile::open(path);
  REQUIRE(file);
  for (std::size_t i = 0; i < 2; ++i) {
    const auto bytes = file->bytes("w" + std::to_string(i));
    REQUIRE(bytes);
    REQUIRE(weights[i].use_prepared(*bytes, Compute::int8_per_token));
    CHECK(weights[i].release_packed());
    CHECK(test_support::same_bits(product(weights[i]), expected[i]));
  }
  CHECK(message(file->bytes("w2")).find("w2") != std::string::npos);
  CHECK(message(io::PreparedFile::open(path + "x")).find("cachex") != std::string::npos);
}
