#include <memory>

#include <anybit/core/checked.hpp>
#include <anybit/core/eigen_view.hpp>
#include <anybit/core/fixed_string.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

Result<std::unique_ptr<int>> positive(int v) {
  if (v <= 0) return Error{ErrorCode::invalid_argument, "value is " + std::to_string(v)};
  return std::make_unique<int>(v);
}
Result<int> sum(int a, int b) {
  ANYBIT_TRY(const auto x, positive(a));
  ANYBIT_TRY(const auto y, positive(b));
  return *x + *y;
}
Status check(int a) {
  ANYBIT_TRY_STATUS(sum(a, 1));
  return Ok{};
}

}  // namespace

TEST_CASE("Result carries move-only values and errors through ANYBIT_TRY") {
  CHECK(sum(2, 3).value() == 5);
  const auto failed = sum(2, -3);
  REQUIRE_FALSE(failed.ok());
  CHECK(failed.error().code == ErrorCode::invalid_argument);
  CHECK(in_context(failed.error(), "file.gguf").message == "file.gguf: value is -3");
  CHECK(check(1).ok());
  CHECK_FALSE(check(0).ok());
}

TEST_CASE("CheckedSize notices each overflow") {
  constexpr std::uint64_t big = std::uint64_t{1} << 63;
  CHECK((CheckedSize(3) * 4 + 5).get() == Index{17});
  CHECK_FALSE((CheckedSize(big) * 2).get());
  CHECK_FALSE((CheckedSize(big) + big).get());
  CHECK_FALSE(CheckedSize(big).get());            // does not fit a signed index
  CHECK_FALSE((CheckedSize(big) * 2 * 0).get());  // an overflow is not forgotten
  CHECK((CheckedSize(0) * big).get() == Index{0});
  CHECK(CheckedSize(33).rounded_up(32).get() == Index{64});
  CHECK(CheckedSize(64).rounded_up(32).get() == Index{64});
  CHECK_FALSE(CheckedSize(~std::uint64_t{0}).rounded_up(32).get());
  CHECK_FALSE(CheckedSize(1).rounded_up(0).get());
}

TEST_CASE("FixedString builds names at compile time") {
  constexpr auto s = "sf" + decimal<128>() + "/" + FixedString("x");
  STATIC_REQUIRE(std::string_view(s) == "sf128/x");
  STATIC_REQUIRE(decimal<0>().view() == "0");
}

TEST_CASE("views of Eigen matrices, blocks and maps share memory and keep strides") {
  RowMatrix m(4, 6);
  for (int i = 0; i < 24; ++i) m.data()[i] = static_cast<float>(i);
  auto block = m.block(1, 2, 3, 4);
  const auto v = as_view(block);
  CHECK(v.stride == 6);
  CHECK(v(2, 3) == m(3, 5));
  v(0, 0) = -1;
  CHECK(m(1, 2) == -1);
  CHECK(as_eigen(ConstMatrix(v)).row(2).sum() == m.block(3, 2, 1, 4).sum());
  const Matrix copy{ConstMatrix(v)};
  CHECK(copy(2, 1) == m(3, 3));
  CHECK(Matrix(0, 5).empty());
  CHECK(reinterpret_cast<std::uintptr_t>(copy.data()) % AlignedBuffer::alignment == 0);
}
