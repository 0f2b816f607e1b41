#include "support/catch.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <anybit/core/aligned_buffer.hpp>

using namespace anybit;

namespace {

bool all_are(const AlignedBuffer& b, std::byte value) {
  return std::all_of(b.bytes().begin(), b.bytes().end(), [&](std::byte x) { return x == value; });
}
std::uintptr_t address(const AlignedBuffer& b) { return reinterpret_cast<std::uintptr_t>(b.data()); }

}  // namespace

TEST_CASE("buffers of every size are aligned and zero, and copies are copies", "[core]") {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{4096}, 2 * LargePages::size - 1,
                                  2 * LargePages::size, 2 * LargePages::size + 12345}) {
    CAPTURE(bytes);
    AlignedBuffer a(bytes);
    CHECK(a.size() == bytes);
    CHECK(address(a) % AlignedBuffer::alignment == 0);
    if (bytes >= 2 * LargePages::size) CHECK(address(a) % LargePages::size == 0);
    CHECK(all_are(a, std::byte{0}));
    std::fill(a.bytes().begin(), a.bytes().end(), std::byte{7});
    AlignedBuffer copy = a;
    CHECK((copy.size() == bytes && all_are(copy, std::byte{7})));
    std::fill(a.bytes().begin(), a.bytes().end(), std::byte{9});
    CHECK(all_are(copy, std::byte{7}));
    const std::uintptr_t where = address(a);
    AlignedBuffer moved = std::move(a);
    CHECK((address(moved) == where && all_are(moved, std::byte{9})));
    copy = std::move(moved);
    CHECK((address(copy) == where && all_are(copy, std::byte{9})));
    CHECK(AlignedBuffer(bytes, AlignedBuffer::Uninitialized{}).size() == bytes);
  }
}

TEST_CASE("a buffer of nothing has no memory", "[core]") {
  CHECK((AlignedBuffer().empty() && AlignedBuffer(0).data() == nullptr));
  CHECK(AlignedBuffer(0, AlignedBuffer::Uninitialized{}).data() == nullptr);
  const AlignedBuffer none(0), copy = none;
  CHECK(copy.empty());
}
