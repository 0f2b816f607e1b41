#include "work.hpp"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

namespace {

anybit::PackedTensor<SF5> make(anybit::ConstMatrix w) {
  anybit::QuantizedMatrix<SF5> q(w.extents());
  for (anybit::Affine& a : q.affines) a = {1.0f, 0.0f};
  for (anybit::Index r = 0; r < w.rows; ++r) {
    const auto codes = q.row(r);
    for (std::size_t c = 0; c < codes.size(); ++c)
      codes[c] = static_cast<SF5::code>(SF5::format::encode(w(r, static_cast<anybit::Index>(c))));
  }
  return anybit::pack(q);
}

}  // namespace

const Work WORK = {
    TEXT(ANYBIT_CODE),
    make,
    [](const anybit::PackedTensor<SF5>& t) { return anybit::dequantize(t); },
    [](anybit::PackedTensor<SF5>) {},
};
