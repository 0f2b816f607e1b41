#include <anybit/algorithm/nearest.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>

#include "integer_schemes.hpp"

namespace reproduce {

using namespace anybit;

namespace {
template <class F, class Store = ScaleF32>
Method nearest() {
  return one_by_one(Nearest<Scheme<F, PerGroup<64>, Store>>{}, false);
}
}  // namespace

Experiment qlora_experiment() {
  Experiment e{"qlora", "QLoRA's data types: 4 bits in groups of 64, one float scale each", {}};
  const auto add = [&](const char* name, const char* description, Method m) {
    e.settings.push_back(setting(name, description, std::move(m)));
  };
  add("int4", "symmetric integers", nearest<SInt<4>>());
  add("fp4-e2m1", "floats of 2 exponent bits and 1 mantissa bit", nearest<Minifloat<2, 1>>());
  add("fp4-e3m0", "floats of 3 exponent bits", nearest<Minifloat<3, 0>>());
  add("fp4-bnb", "bitsandbytes' FP4", nearest<Fp4>());
  add("nf4", "NF4", nearest<Nf4>());
  add("nf4-dq", "NF4, scales in 8 bits", nearest<Nf4, DoubleQuant<256>>());
  add("uint4", "integers with a zero point (not in the paper)", nearest<UInt<4>>());
  return e;
}

}  // namespace reproduce
