// A scheme of another kind than Scheme<..>: weights are coded two at a time, granules are 16 x 16.

#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <anybit/io/anybit_file.hpp>
#include <anybit/tensor/pack_nearest.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace anybit;

namespace {

/// Pairs of rows 2 i and 2 i + 1 of a column share a byte, the place of a vector in a list of 256 points of a spiral; each
/// granule has a scale of its own. 4 bits a weight and 1/16.
struct Pairs {
  static constexpr std::string_view name = "pairs/16x16";
  static constexpr Index granule_rows = 16, granule_cols = 16;
  static constexpr SectionTag pairs{'p', 'a', 'i', 'r'}, scales{'g', 's', 'c', 'l'};

  static constexpr Index granules(Extents e) { return ceil_div(e.rows, 16) * ceil_div(e.cols, 16); }
  static constexpr std::array<SectionSize, 2> sections(Extents e) {
    return {{{pairs, 128 * granules(e)}, {scales, 2 * granules(e)}}};
  }
  static const std::array<std::array<float, 2>, 256>& points() {
    static const auto list = [] {
      std::array<std::array<float, 2>, 256> l{};
      for (std::size_t i = 0; i < 256; ++i) {
        const double radius = std::sqrt((static_cast<double>(i) + 0.5) / 256), angle = 2.399963 * static_cast<double>(i);
        l[i] = {static_cast<float>(radius * std::cos(angle)), static_cast<float>(radius * std::sin(angle))};
      }
      return l;
    }();
    return list;
  }
  static float scale(const std::byte* p) {
    std::uint16_t half;
    std::memcpy(&half, p, 2);
    return f16_to_f32(half);
  }
  static Status check(Sections s, Extents e) {
    for (Index g = 0; g < granules(e); ++g)
      if (!(scale(s[1].data() + 2 * g) <= 65504.0f))
        return Error{ErrorCode::corrupt_data, "pairs: the scale of granule " + std::to_string(g) + " is not finite"};
    return Ok{};
  }
  static void decode(Sections s, Extents e, Index row, Index col, float* out) {
    const Index g = row / 16 * ceil_div(e.cols, 16) + col / 16;
    const float a = scale(s[1].data() + 2 * g);
    for (Index i = 0; i < 8; ++i)
      for (Index c = 0; c < 16; ++c) {
        const auto& point = points()[std::to_integer<std::size_t>(s[0][static_cast<std::size_t>(128 * g + 16 * i + c)])];
        for (Index j = 0; j < 2; ++j) out[(2 * i + j) * 16 + c] = a * point[static_cast<std::size_t>(j)];
      }
  }
};
static_assert(PackedScheme<Pairs> && !ScalarScheme<Pairs>);
static_assert(PackedScheme<Scheme<SInt<4>>> && ScalarScheme<Scheme<SInt<4>>>);

PackedTensor<Pairs> pack_pairs(const Matrix& w, bool ordered = false) {
  const Extents e{w.rows(), w.cols()};
  auto t = PackedTensor<Pairs>::allocate(e, ordered, "by hand");
  PackedBytes& b = t.bytes();
  const auto codes = b.mutable_section(b.section(Pairs::pairs)), scales = b.mutable_section(b.section(Pairs::scales));
  const auto at = [&](Index r, Index c) { return r < e.rows && c < e.cols ? w(r, c) : 0.0f; };
  Index g = 0;
  for (Index row = 0; row < e.rows; row += 16)
    for (Index col = 0; col < e.cols; col += 16, ++g) {
      float most = 0;
      for (Index i = 0; i < 256; ++i) most = std::max(most, std::fabs(at(row + i / 16, col + i % 16)));
      const std::uint16_t half = f32_to_f16(1.3f * most);
      std::memcpy(scales.data() + 2 * g, &half, 2);
      const float a = f16_to_f32(half);
      for (Index i = 0; i < 128; ++i) {
        const float x = at(row + i / 16 * 2, col + i % 16), y = at(row + i / 16 * 2 + 1, col + i % 16);
        float best = 1e30f;
        for (std::size_t p = 0; p < 256; ++p) {
          const float u = a * Pairs::points()[p][0] - x, v = a * Pairs::points()[p][1] - y;
          if (const float d = u * u + v * v; d < best) best = d, codes[static_cast<std::size_t>(128 * g + i)] = std::byte(p);
        }
      }
    }
  if (ordered)
    for (Index j = 0; j < e.cols; ++j) {
      const auto original = static_cast<std::uint32_t>(e.cols - 1 - j);
      std::memcpy(b.mutable_section(b.order()).data() + 4 * j, &original, 4);
    }
  return t;
}

Matrix normal(Index rows, Index cols, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  Matrix m(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) m.data()[i] = distribution(random);
  return m;
}

std::string message(const Result<PackedTensor<Pairs>>& r) { return r ? "" : r.error().message; }
Result<PackedTensor<Pairs>> open_pairs(std::span<const std::byte> bytes) {
  ANYBIT_TRY(PackedBytes view, PackedBytes::view(bytes));
  return PackedTensor<Pairs>::from(std::move(view));
}
std::string error_of(std::span<const std::byte> bytes) { return message(open_pairs(bytes)); }

}  // namespace

TEST_CASE("packed scheme: one that is no Scheme<> packs, goes through a file, opens, dequantizes and multiplies") {
  for (const Extents e : {Extents{16, 16}, Extents{37, 45}, Extents{1, 1}, Extents{33, 1030}, Extents{5, 0}}) {
    INFO(e.rows << " x " << e.cols);
    const Matrix w = normal(e.rows, e.cols, 3);
    const bool ordered = e.cols == 45;
    const PackedTensor<Pairs> t = pack_pairs(w, ordered);
    CHECK(t.bytes().header().version == 2);
    const test_support::TemporaryFolder folder;
    io::AnybitWriter writer;
    writer.add("w", t.bytes());
    REQUIRE(writer.write(folder / "pairs.anybit"));
    const auto file = io::AnybitFile::open(folder / "pairs.anybit");
    REQUIRE(file);
    SchemeRegistry registry;
    auto bytes = file->packed("w");
    REQUIRE(bytes);
    CHECK(registry.open(*PackedBytes::copy(bytes->bytes())).error().message.find("'pairs/16x16'") != std::string::npos);
    registry.add<Pairs>();
    const auto any = registry.open(*std::move(bytes));
    REQUIRE(any);
    CHECK(any->bits_per_weight() == t.bits_per_weight());
    CHECK(any->scheme_name() == Pairs::name);

    // Weights against the definition, granule by granule.
    const PackedTensor<Pairs>::SectionsOf sections(t.bytes());
    Matrix expected(e.rows, e.cols);
    double error = 0, size = 0;
    for (Index r = 0; r < e.rows; ++r)
      for (Index c = 0; c < e.cols; ++c) {
        float granule[256];
        Pairs::decode(sections, e, r / 16 * 16, c / 16 * 16, granule);
        expected(r, ordered ? e.cols - 1 - c : c) = granule[r % 16 * 16 + c % 16];
        error += std::pow(granule[r % 16 * 16 + c % 16] - w(r, c), 2), size += std::pow(w(r, c), 2);
      }
    CHECK(error <= 0.05 * size);
    std::vector<float> row(static_cast<std::size_t>(e.cols));
    for (Index r = 0; r < e.rows; ++r) {
      any->dequantize_row(r, row);
      for (Index c = 0; c < e.cols; ++c) REQUIRE(row[static_cast<std::size_t>(c)] == expected(r, c));
    }
    // Products: every way of rounding activations; integers ask for codes, so they fall back to float.
    for (const Index tokens : {1, 3, 40})
      for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
        const Matrix x = normal(tokens, e.cols, 5);
        Matrix y(tokens, e.rows);
        Workspace workspace;
        Serial serial;
        AnyPacked prepared = *any;
        prepared.prepare(compute);
        prepared.matmul(x.view(), y.view(), compute, serial, workspace);
        double off = 0, all = 0;
        for (Index i = 0; i < tokens; ++i)
          for (Index r = 0; r < e.rows; ++r) {
            double sum = 0;
            for (Index c = 0; c < e.cols; ++c) sum += static_cast<double>(x(i, c)) * static_cast<double>(expected(r, c));
            off += (sum - y(i, r)) * (sum - y(i, r)), all += sum * sum;
          }
        CHECK(std::sqrt(off) <= (compute == Compute::f32 ? 1e-6 : 0.02) * std::sqrt(all));
        // Any slicing of rows gives the same bits.
        if (compute != Compute::f32 || ordered) continue;
        Matrix sliced(tokens, e.rows);
        for (Index r = 0; r < e.rows; r += 7) matmul_rows(t, x.view(), sliced.view(), r, std::min(r + 7, e.rows));
        for (Index i = 0; i < tokens * e.rows; ++i) REQUIRE(sliced.data()[i] == y.data()[i]);
      }
  }
}

TEST_CASE("packed scheme: version 2's table keeps what it does not know, and refuses it by name where it is required") {
  const auto t = pack_pairs(normal(20, 20, 1));
  const auto from = t.bytes().bytes();
  std::vector<std::byte> bytes(from.begin(), from.end());
  REQUIRE(error_of(bytes) == "");
  // The header's names leave room for no third entry: build one with another section by allocating for three.
  const SectionSize three[] = {{Pairs::pairs, 4 * 128}, {Pairs::scales, 8}, {{'n', 'e', 'w', '\1'}, 3}};
  PackedBytes more = PackedBytes::allocate(Pairs::name, "", {20, 20}, three, 0);
  CHECK(more.section({'n', 'e', 'w', '\1'}).size() == 3);
  CHECK(error_of(more.bytes()) ==
        "packed tensor: section 'new?' is required, and this build's 'pairs/16x16' does not know it; read it with a newer one");
  std::vector<std::byte> optional(more.bytes().begin(), more.bytes().end());
  optional[64 + 2 * 24 + 4] = std::byte{0};
  const auto kept = open_pairs(optional);
  REQUIRE(kept);
  CHECK(kept->bytes().sections().size() == 3);
  CHECK(kept->bytes().section({'n', 'e', 'w', '\1'}).size() == 3);
  CHECK(kept->bytes().bytes().size() == optional.size());

  const auto with = [&](auto change) {
    std::vector<std::byte> damaged(bytes);
    PackedHeader header;
    PackedSection table[2];
    std::memcpy(&header, damaged.data(), 64);
    std::memcpy(table, damaged.data() + 64, 48);
    change(header, table);
    std::memcpy(damaged.data(), &header, 64);
    std::memcpy(damaged.data() + 64, table, 48);
    return error_of(damaged);
  };
  const auto says = [](const std::string& text, const char* part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  using H = PackedHeader;
  using T = PackedSection;
  says(with([](H& h, T*) { h.version = 3; }), "layout version 3; this build reads versions 1 and 2");
  says(with([](H& h, T*) { h.version = 0; }), "layout version 0");
  says(with([](H& h, T*) { h.codes_bytes = 1025; }), "1025 sections");
  says(with([](H& h, T*) { h.codes_bytes = 6; }), "does not hold its names");
  says(with([](H& h, T*) { h.codes_bytes = 1; }), "holds scheme");
  says(with([](H&, T* s) { s[0].tag = s[1].tag; }), "section 'gscl' stands in the table twice");
  says(with([](H&, T* s) { s[1].tag = {'x', 'x', 'x', 'x'}; }), "section 'gscl' take 0 bytes, the scheme needs 8");
  says(with([](H&, T* s) { s[1].offset += 1; }), "section 'gscl' starts at byte");
  says(with([](H&, T* s) { s[1].offset = s[0].offset; }), "no multiple of 64 behind the section before it");
  says(with([](H&, T* s) { s[0].offset = 0; }), "section 'pair' starts at byte 0");
  says(with([](H&, T* s) { s[1].bytes = 1 << 20; }), "truncated");
  says(with([](H&, T* s) { s[1].bytes = ~std::uint64_t{0}; }), "overflow");
  says(with([](H&, T* s) { s[0].bytes -= 1; }), "section 'pair' take 511 bytes, the scheme needs 512");
  says(with([](H& h, T*) { h.rows = 36; }), "the scheme needs 768");
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const std::vector<std::byte> part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    REQUIRE(error_of(part).find("truncated") != std::string::npos);
  }
  std::vector<std::byte> infinite(bytes);
  const std::uint16_t infinity = 0x7C00;
  std::memcpy(infinite.data() + (t.bytes().section(Pairs::scales).data() - from.data()) + 2, &infinity, 2);
  CHECK(error_of(infinite) == "pairs: the scale of granule 1 is not finite");
}
