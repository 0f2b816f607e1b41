#pragma once
// Convolution along one axis, as speech encoders begin with: a linear over windows of frames.

#include <anybit/nn/linear.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

struct Conv1dShape {
  Index width = 3;    ///< frames of a window
  Index stride = 1;   ///< from one window to the next
  Index padding = 1;  ///< frames of zeros before the first and behind the last

  Index outputs(Index frames) const {
    const Index all = frames + 2 * padding;
    return all < width ? 0 : (all - width) / stride + 1;
  }
};

/// y_t = W (window of x from frame t stride - padding on) + bias; x (frames, channels), y (outputs(frames), rows of W). Column
/// channel * width + k of W is of frame k of the window.
inline void conv1d(const Linear& w, const Conv1dShape& s, ConstMatrix x, MutableMatrix y, ExecutorRef executor,
                   Workspace& workspace) {
  ANYBIT_CHECK(w.extents().cols == x.cols * s.width && y.rows == s.outputs(x.rows), "nn::conv1d: shapes differ");
  Matrix windows(y.rows, w.extents().cols);
  executor.parallel_for(y.rows, token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index k = 0; k < s.width; ++k) {
        const Index frame = t * s.stride - s.padding + k;
        if (frame < 0 || frame >= x.rows) continue;
        for (Index channel = 0; channel < x.cols; ++channel)
          windows(t, channel * s.width + k) = x.data[frame * x.stride + channel];
      }
  });
  w.apply(windows.view(), y, executor, workspace);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn
