// EXPECT: anybit: as_view needs unit inner stride
#include <anybit/core/eigen_view.hpp>

#ifdef ANYBIT_FIXED
using Stride = Eigen::OuterStride<>;
#else
using Stride = Eigen::Stride<Eigen::Dynamic, 2>;
#endif

float first(Eigen::Map<anybit::RowMatrix, 0, Stride>& w) { return anybit::as_view(w)(0, 0); }
