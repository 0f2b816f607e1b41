#include "work.hpp"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

using namespace anybit;

extern "C" {
extern const Work ANYBIT_CONCAT(work_, WORK);
const Work ANYBIT_CONCAT(work_, WORK) = {
    TEXT(ANYBIT_CODE),
    NEEDS,
    ANYBIT_HAS_FAST_MATH != 0,
    [](ConstMatrix w) { return Nearest<SF5>{}.quantize(w).ok(); },
    [](ConstMatrix w) {
      auto q = Nearest<SF5>{}.quantize(w);
      return q ? pack(q->matrix) : PackedTensor<SF5>{};
    },
    [](const PackedBytes& bytes) { return PackedTensor<SF5>::from(bytes).ok(); },
    [](const PackedTensor<SF5>& t) { return dequantize(t); },
    [](const PackedTensor<SF5>& t, std::span<const float> x, std::span<float> y) { matvec(t, x, y); },
    [](PackedTensor<SF5> t) { return AnyPacked(std::move(t)); },
    [](const AnyPacked& t, std::span<const float> x, std::span<float> y) {
      Workspace workspace;
      Serial serial;
      t.matmul({x.data(), 1, static_cast<Index>(x.size())}, {y.data(), 1, static_cast<Index>(y.size())}, Compute::int8_per_token,
               serial, workspace);
    },
    [](AnyPacked) {},
};
}
