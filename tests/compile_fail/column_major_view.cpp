// EXPECT: anybit: as_view needs a row-major Eigen matrix
#include <anybit/core/eigen_view.hpp>

#ifdef ANYBIT_FIXED
using Weights = anybit::RowMatrix;
#else
using Weights = Eigen::MatrixXf;
#endif

float first(const Weights& w) { return anybit::as_view(w)(0, 0); }
