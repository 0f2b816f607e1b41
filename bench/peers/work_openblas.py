"""OpenBLAS' f32 product. Set OPENBLAS_CORETYPE where it takes the processor for an older one."""

import ctypes
import os

import numpy as np
import scipy_openblas32

import worker

ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE = 101, 111, 112


class OpenBlas:
    def __init__(self, weights, activations):
        self.w, self.x, self.copies = weights, activations, []
        name = f"lib{scipy_openblas32.get_library()}.so"
        self.library = ctypes.CDLL(os.path.join(scipy_openblas32.get_lib_dir(), name))

    def open(self, name):
        if name != "f32":
            raise ValueError("OpenBLAS has no such product")
        return self.w.nbytes

    def weights(self, _):
        return self.w

    def run(self, _, tokens, threads, rotate, seconds):
        self.library.scipy_openblas_set_num_threads(threads)
        count = worker.copies_for(self.w.nbytes, rotate)
        if len(self.copies) != count:
            self.copies = [self.w.copy() for _ in range(count)]
        x, y = np.ascontiguousarray(self.x[:tokens]), np.empty((tokens, worker.ROWS), np.float32)
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)
        addresses = [pointer(w) for w in self.copies]

        def one_pass():
            for w in addresses:
                if tokens == 1:
                    self.library.scipy_cblas_sgemv(
                        ROW_MAJOR,
                        NO_TRANSPOSE,
                        worker.ROWS,
                        worker.COLS,
                        one,
                        w,
                        worker.COLS,
                        pointer(x),
                        1,
                        zero,
                        pointer(y),
                        1,
                    )
                else:
                    self.library.scipy_cblas_sgemm(
                        ROW_MAJOR,
                        NO_TRANSPOSE,
                        TRANSPOSE,
                        tokens,
                        worker.ROWS,
                        worker.COLS,
                        one,
                        pointer(x),
                        worker.COLS,
                        w,
                        worker.COLS,
                        zero,
                        pointer(y),
                        worker.ROWS,
                    )

        return (*worker.time_passes(seconds, count, one_pass), y)

    def drop(self):
        self.copies = []


raise SystemExit(worker.serve(OpenBlas))
