// Somebody else's program: quantizes a matrix, packs it, and multiplies with the packed form.
#include <anybit/format/superfloat.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/version.hpp>

#include <cmath>
#include <cstdio>

using SF5 = anybit::Scheme<anybit::Superfloat<5>, anybit::PerGroup<32>, anybit::ScaleF16>;

int main() {
  constexpr anybit::Index rows = 5, cols = 77;  // the last group of a row is ragged
  anybit::Matrix w(rows, cols);
  for (anybit::Index r = 0; r < rows; ++r)
    for (anybit::Index c = 0; c < cols; ++c) w(r, c) = std::sin(static_cast<float>(r * cols + c));

  anybit::QuantizedMatrix<SF5> q(w.extents());
  for (anybit::Affine& a : q.affines) a = {1.0f, 0.0f};
  for (anybit::Index r = 0; r < rows; ++r) {
    const auto codes = q.row(r);
    for (std::size_t c = 0; c < codes.size(); ++c)
      codes[c] = static_cast<SF5::code>(SF5::format::encode(w(r, static_cast<anybit::Index>(c))));
  }

  const anybit::PackedTensor<SF5> packed = anybit::pack(q);
  const anybit::Matrix back = anybit::dequantize(packed);
  float worst = 0;
  for (anybit::Index r = 0; r < rows; ++r)
    for (anybit::Index c = 0; c < cols; ++c) worst = std::fmax(worst, std::fabs(back(r, c) - w(r, c)));
  std::printf("anybit %d.%d: %.3f bits per weight, largest error %.4f\n", ANYBIT_VERSION_MAJOR, ANYBIT_VERSION_MINOR,
              packed.bits_per_weight(), static_cast<double>(worst));
  // SF5 has levels k/16 up to 15/16.
  return worst > 0 && worst <= 0.0626f && anybit::pack(anybit::unpack(packed)) == packed ? 0 : 1;
}
