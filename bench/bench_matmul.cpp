// Many tokens times a 4096 x 4096 weight matrix.

#include "product_setup.hpp"

int main(int argc, char** argv) {
  using namespace bench;
  benchmark::Initialize(&argc, argv);
  EigenProduct eigen(0);
  for (const Index tokens : {2, 8, 32, 256}) add_eigen("matmul/eigen_f32/N:" + std::to_string(tokens), tokens, eigen);
  for_each_type(Benched{}, [&]<class S>() {
    for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
      for (const Index tokens : {2, 8, 32, 256}) add_product<S>("matmul", tokens, compute, 1, eigen, 0);
      add_product<S>("matmul", 256, compute, 2, eigen, 0);
    }
  });
  benchmark::RunSpecifiedBenchmarks();
}
