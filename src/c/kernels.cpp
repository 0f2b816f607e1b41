// The schemes that the C interface knows by name, compiled once for each architecture.

#include "kernels.hpp"

#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit::c {

namespace {

template <AnyScheme S>
Result<AnyPacked> quantize_to(ConstMatrix weights) {
  ANYBIT_TRY(const QuantizedMatrix<S> q, quantize_nearest<S>(weights));
  return AnyPacked(pack(q));
}

Result<AnyPacked> quantize(std::string_view scheme, ConstMatrix weights) {
  Result<AnyPacked> (*found)(ConstMatrix) = nullptr;
  for_each_type(Presets{}, [&]<class S>() {
    if (S::name == scheme) found = &quantize_to<S>;
  });
  if (found) return found(weights);
  return {ErrorCode::unsupported,
          "no scheme has the name '" + std::string(scheme) + "': anybit_scheme_name() gives the names that there are"};
}

}  // namespace

const Kernels& anybit_c_kernels() {
  static constexpr Kernels table{.schemes = [] { return preset_registry(); }, .quantize = &quantize};
  return table;
}

}  // namespace anybit::c
