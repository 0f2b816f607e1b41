#include <anybit/io/imatrix.hpp>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "bad_bytes.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;
using bad_bytes::check_error;
using bad_bytes::Exact;
using io::Imatrix;

namespace {

io::GgufWriter imatrix_file() {
  io::GgufWriter w;
  w.add_metadata("general.type", "imatrix");
  w.add_metadata("imatrix.datasets", std::vector<std::string>{"wiki.txt", "code.txt"});
  w.add_metadata("imatrix.chunk_count", std::uint32_t{5});
  w.add_metadata("imatrix.chunk_size", std::uint32_t{512});
  w.add_f32("blk.0.attn_q.weight.in_sum2", {1, 3}, {2560, 0, 1280});
  w.add_f32("blk.0.attn_q.weight.counts", {1, 1}, {2560});
  w.add_f32("blk.0.ffn_up_exps.weight.in_sum2", {2, 2}, {4, 8, 0, 0});
  w.add_f32("blk.0.ffn_up_exps.weight.counts", {2, 1}, {4, 0});  // the second expert saw no token
  return w;
}

Result<Imatrix> parse(const std::string& bytes) { return Imatrix::parse(Exact(bytes).bytes(), "bad.file"); }

/// The older form, by hand: numbers are int32.
struct Older {
  std::string bytes;
  Older& number(std::int32_t n) { return bytes.append(reinterpret_cast<const char*>(&n), 4), *this; }
  Older& text(std::string_view s) { return number(static_cast<std::int32_t>(s.size())), bytes.append(s), *this; }
  Older& values(const std::vector<float>& v) {
    number(static_cast<std::int32_t>(v.size()));
    return bytes.append(reinterpret_cast<const char*>(v.data()), v.size() * 4), *this;
  }
};

}  // namespace

TEST_CASE("imatrix: the form in GGUF, with experts of which one saw no token") {
  const auto m = parse(imatrix_file().bytes());
  REQUIRE(m.ok());
  CHECK(m->datasets == std::vector<std::string>{"wiki.txt", "code.txt"});
  CHECK(m->chunks == 5);
  CHECK(m->chunk_size == 512);
  REQUIRE(m->entries.size() == 2);
  CHECK(m->entries.at("blk.0.attn_q.weight").mean_squares() == std::vector<float>{1, 0, 0.5f});
  CHECK(m->entries.at("blk.0.ffn_up_exps.weight").mean_squares() == std::vector<float>{1, 2, 1, 1});
}

TEST_CASE("imatrix: the older form stores means times the number of calls") {
  Older file;
  file.number(1).text("blk.1.ffn_down.weight").number(4).values({4, 8, 1}).number(7).text("prose.txt");
  const auto m = parse(file.bytes);
  REQUIRE(m.ok());
  CHECK(m->chunks == 7);
  CHECK(m->datasets == std::vector<std::string>{"prose.txt"});
  CHECK(m->entries.at("blk.1.ffn_down.weight").mean_squares() == std::vector<float>{1, 2, 0.25f});
  // The first versions wrote nothing behind the entries.
  Older first;
  first.number(1).text("a").number(0).values({3});
  CHECK(parse(first.bytes)->entries.at("a").mean_squares() == std::vector<float>{3});
}

TEST_CASE("imatrix: both forms read back what was written") {
  const test_support::TemporaryFolder folder;
  const auto m = parse(imatrix_file().bytes());
  REQUIRE(m->save(folder / "m.gguf").ok());
  const auto same = Imatrix::open(folder / "m.gguf");
  REQUIRE(same.ok());
  CHECK(same->datasets == m->datasets);
  CHECK(same->chunks == 5);
  CHECK(same->chunk_size == 512);
  for (const auto& [name, entry] : m->entries) {
    CHECK(same->entries.at(name).sums == entry.sums);
    CHECK(same->entries.at(name).counts == entry.counts);
  }
  REQUIRE(m->save_older_form(folder / "m.dat").ok());
  const auto older = Imatrix::open(folder / "m.dat");
  REQUIRE(older.ok());
  CHECK(older->chunks == 5);
  CHECK(older->datasets == std::vector<std::string>{"wiki.txt"});
  for (const auto& [name, entry] : m->entries) CHECK(older->entries.at(name).mean_squares() == entry.mean_squares());
}

TEST_CASE("imatrix: files that are none or contradict themselves") {
  io::GgufWriter model;
  model.add_metadata("general.architecture", "llama");
  check_error(parse(model.bytes()), "general.type is '', not 'imatrix': give a file");
  io::GgufWriter number;
  number.add_metadata("general.type", 3);
  check_error(parse(number.bytes()), "not 'imatrix'");
  io::GgufWriter alone = imatrix_file();
  alone.add_f32("x.in_sum2", {1, 2}, {1, 2});
  check_error(parse(alone.bytes()), "tensor 'x.in_sum2' has no .counts beside it");
  io::GgufWriter other = imatrix_file();
  other.add_f32("token_embd.weight", {1, 2}, {1, 2});
  check_error(parse(other.bytes()), "tensor 'token_embd.weight' has no .in_sum2 beside it");
  io::GgufWriter uneven = imatrix_file();
  uneven.add_f32("x.in_sum2", {1, 3}, {1, 2, 3}), uneven.add_f32("x.counts", {2, 1}, {1, 2});
  check_error(parse(uneven.bytes()), "entry 'x': 3 sums for 2 counts");
  io::GgufWriter negative = imatrix_file();
  negative.add_f32("x.in_sum2", {1, 2}, {1, -2}), negative.add_f32("x.counts", {1, 1}, {1});
  check_error(parse(negative.bytes()), "entry 'x': sum 1 is -2");

  check_error(parse(""), "the number of entries at byte 0 needs 4 bytes");
  check_error(parse(Older().number(0).bytes), "declares 0 entries");
  check_error(parse(Older().number(1 << 30).bytes + std::string(64, 'x')), "declares 1073741824 entries, but has 64 bytes");
  check_error(parse(Older().number(-1).bytes + std::string(64, 'x')), "the number of entries is -1");
  check_error(parse(Older().number(1).text("a").number(1).number(1 << 30).bytes + std::string(64, 'x')),
              "needs 4294967296 bytes");
  check_error(parse(Older().number(2).text("a").number(1).values({1}).text("a").number(1).values({1}).bytes),
              "entry 'a': comes twice");
  check_error(parse(Older().number(1).text("a").number(1).values({}).bytes + std::string(4, 'x')),
              "entry 'a': 0 sums for 1 counts");
}

TEST_CASE("imatrix: every prefix of a file is an error or readable") {
  Older file;
  file.number(1).text("blk.1.ffn_down.weight").number(4).values({4, 8, 1}).number(7).text("prose.txt");
  for (const std::string& whole : {file.bytes, imatrix_file().bytes()})
    for (std::size_t n = 0; n < whole.size(); ++n)
      if (const auto m = parse(whole.substr(0, n)))
        for (const auto& [name, entry] : m->entries) CHECK(entry.mean_squares().size() == entry.sums.size());
}
