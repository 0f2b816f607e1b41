// One token times a 4096 x 4096 weight matrix that comes from memory: weights rotate over more than 300 MB.

#include "product_setup.hpp"

int main(int argc, char** argv) {
  using namespace bench;
  benchmark::Initialize(&argc, argv);
  EigenProduct eigen(rotate_bytes());
  add_eigen("matvec/eigen_f32", 1, eigen);
  for_each_type(Benched{}, [&]<class S>() {
    for (const Way way : ways)
      for (const Index threads : {1, 2}) add_product<S>("matvec", 1, way, threads, eigen, rotate_bytes());
  });
  benchmark::RunSpecifiedBenchmarks();
}
