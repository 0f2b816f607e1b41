// Many tokens times a 4096 x 4096 weight matrix.

#include "product_setup.hpp"

int main(int argc, char** argv) {
  using namespace bench;
  benchmark::Initialize(&argc, argv);
  EigenProduct eigen(0);
  for (const Index tokens : {2, 8, 32, 256, 512}) add_eigen("matmul/eigen_f32/N:" + std::to_string(tokens), tokens, eigen);
  for_each_type(Benched{}, [&]<class S>() {
    for (const Way way : ways) {
      for (const Index tokens : {2, 8, 32, 256, 512}) add_product<S>("matmul", tokens, way, 1, eigen, 0);
      add_product<S>("matmul", 512, way, 2, eigen, 0);
    }
  });
  for_each_type(BenchedFine{}, [&]<class S>() {
    for (const Way way : ways)
      if (way.tiled) add_product<S>("matmul", 512, way, 1, eigen, 0);
  });
  benchmark::RunSpecifiedBenchmarks();
}
