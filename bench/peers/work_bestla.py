"""BesTLA's products with packed weights, in the extension of auto-round-lib: raw pointers, no torch tensors. Formats
s<bits>_g<block> or s<bits>_row (one scale a row) have 8-bit activations; with _bf16 behind them products are bfloat16."""

import concurrent.futures
import glob
import importlib.util
import multiprocessing
import os
import re
import sys

import numpy as np

import worker

FLOAT32, BFLOAT16, INT8 = 32, 65552, 264  # its numbers for types; whole numbers of fewer bits count down from INT8


def load_extension():
    """Without its package, whose first line asks for torch."""
    folder = importlib.util.find_spec("auto_round_kernel").submodule_search_locations[0]
    files = glob.glob(f"{folder}/auto_round_kernel_cpu.*.so")
    spec = importlib.util.spec_from_file_location("auto_round_kernel_cpu", files[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def aligned(size):
    """Zeroed bytes that begin a line of the cache."""
    memory = np.zeros(size + 64, np.int8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


class Products:
    """What one process multiplies."""

    def __init__(self, weights, activations):
        self.w, self.x, self.lib = weights, activations, load_extension()
        self.quantized, self.packed, self.copies, self.copies_key = {}, None, [], None

    @staticmethod
    def parts(name):
        """Bits, columns of a group, and how the library is told: group, compute type, weight type, scale type, no zeros."""
        bits, block, bf16 = re.fullmatch(r"s(\d)_(?:g(\d+)|row)(_bf16)?", name).groups()
        group = int(block or worker.COLS)
        return int(bits), group, (group, BFLOAT16 if bf16 else INT8, INT8 - 8 + int(bits), FLOAT32, False)

    def open(self, name):
        bits, block, types = self.parts(name)
        if name not in self.quantized:
            self.quantized[name] = worker.symmetric_levels(self.w, bits, block)
        levels, scales = self.quantized[name]
        codes = np.ascontiguousarray(levels.reshape(worker.ROWS, worker.COLS).T)
        scale = np.ascontiguousarray(scales.reshape(worker.ROWS, -1).T)
        size = self.lib.packed_weight_size(0, worker.ROWS, worker.COLS, *types)
        packed, none = aligned(size), np.zeros(1, np.int8)
        self.lib.repack_quantized_weight(
            0,
            codes.ctypes.data,
            none.ctypes.data,
            scale.ctypes.data,
            packed.ctypes.data,
            worker.ROWS,
            worker.COLS,
            *types,
        )
        self.drop()
        self.packed = packed
        self.product(name, packed, self.x[:1], np.zeros((1, worker.ROWS), np.float32))
        return size

    def weights(self, name):
        levels, scales = self.quantized[name]
        return (levels * scales).reshape(worker.ROWS, worker.COLS)

    def product(self, name, packed, x, y):
        self.lib.woqgemm(
            0,
            x.shape[0],
            worker.ROWS,
            worker.COLS,
            x.ctypes.data,
            FLOAT32,
            packed.ctypes.data,
            y.ctypes.data,
            0,  # no bias
            *self.parts(name)[2],
            packed.size,
        )

    def run(self, name, tokens, rotate, seconds):
        if self.copies_key != (name, rotate):
            self.open(name)
            self.copies = [self.packed]
            for _ in range(worker.copies_for(self.packed.size, rotate) - 1):
                self.copies.append(aligned(self.packed.size))
                self.copies[-1][:] = self.packed
            self.copies_key = (name, rotate)
        x = np.ascontiguousarray(self.x[:tokens])
        y = np.zeros((tokens, worker.ROWS), np.float32)

        def one_pass():
            for packed in self.copies:
                self.product(name, packed, x, y)

        median, passes = worker.time_passes(seconds, len(self.copies), one_pass)
        return median, passes, y

    def drop(self):
        self.packed, self.copies, self.copies_key = None, [], None


PRODUCTS = None


def in_process(method, *arguments):
    global PRODUCTS
    PRODUCTS = PRODUCTS or Products(*worker.matrices(sys.argv[1]))
    return getattr(PRODUCTS, method)(*arguments)


class BesTla:
    """A process for each number of threads: the library splits work among as many as there were when it was loaded."""

    def __init__(self, weights, activations):
        self.first, self.processes = Products(weights, activations), {}
        self.open, self.weights = self.first.open, self.first.weights

    def run(self, name, tokens, threads, rotate, seconds):
        if threads not in self.processes:
            os.environ["OMP_NUM_THREADS"] = str(threads)
            spawn = multiprocessing.get_context("spawn")
            self.processes[threads] = concurrent.futures.ProcessPoolExecutor(1, spawn)
        return self.processes[threads].submit(in_process, "run", name, tokens, rotate, seconds).result()

    def drop(self):
        for process in self.processes.values():
            process.submit(in_process, "drop").result()
        self.first.drop()


if __name__ == "__main__":
    raise SystemExit(worker.serve(BesTla))
