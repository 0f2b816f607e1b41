// EXPECT: success
// What the files beside this one get wrong, done right: if this fails, they may fail for a reason that is not theirs.
#include <anybit/core/eigen_view.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>

float sum_of_views(const anybit::RowMatrix& w, Eigen::VectorXf& x) {
  return anybit::as_view(w)(0, 0) + anybit::as_view(w.block(0, 0, 1, 1))(0, 0) + anybit::as_view(x)(0, 0);
}

anybit::Result<anybit::Matrix> checked(anybit::Index rows) {
  if (rows < 1) return {anybit::ErrorCode::invalid_argument, "rows"};
  return anybit::Matrix(rows, 1);
}
