"""The side of a library that is reached from Python: the same lines of text as worker.hpp describes."""

import os
import sys
import time

import numpy as np

ROWS, COLS, MOST_TOKENS = 4096, 4096, 512


def copies_for(byte_count, rotate):
    return max(1, -(-rotate // byte_count))


def time_passes(seconds, products, one_pass):
    """Median seconds of one product, and how many passes were timed after one to warm up, as in worker.hpp."""
    one_pass()
    times = []
    while not times or sum(times) < seconds or (len(times) < 3 and sum(times) < 3 * seconds):
        begin = time.perf_counter()
        one_pass()
        times.append(time.perf_counter() - begin)
    return float(np.median(times)) / products, len(times)


def symmetric_levels(weights, bits, block):
    """Whole numbers and one scale a block: nearest rounding, the largest magnitude of a block on the outermost level."""
    blocks = weights.reshape(ROWS, -1, block)
    low = -(1 << (bits - 1))
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
    scales = extreme / low
    levels = np.clip(np.rint(blocks / scales), low, -low - 1)
    return levels.astype(np.int8), scales.astype(np.float32)


def matrices(folder):
    """Weights and activations of all workers."""
    weights = np.fromfile(f"{folder}/weights.f32", np.float32).reshape(ROWS, COLS)
    return weights, np.fromfile(f"{folder}/activations.f32", np.float32).reshape(MOST_TOKENS, COLS)


def serve(library_type):
    """Answers until the input ends. Libraries have open(format) -> bytes, weights(format) -> array,
    run(format, tokens, threads, rotate, seconds) -> (seconds, passes, y) and drop(); what they raise becomes the answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not pass for an answer
    weights, activations = matrices(sys.argv[1])

    def answer(text):
        print(text, file=answers, flush=True)

    try:
        library = library_type(weights, activations)
    except Exception as problem:  # whatever it is, the driver shows it
        answer("no " + " ".join(str(problem).split()))
        return 1
    answer("ready")
    for line in sys.stdin:
        command, *words = line.split()
        try:
            if command == "open":
                answer(f"ok {library.open(words[0])}")
            elif command == "weights":
                library.weights(words[0]).astype(np.float32).tofile(words[1])
                answer("ok")
            elif command == "run":
                seconds, passes, y = library.run(words[0], *map(int, words[1:4]), float(words[4]))
                if words[5] != "-":
                    np.asarray(y, np.float32).tofile(words[5])
                answer(f"ok {seconds} {passes}")
            elif command == "drop":
                library.drop()
                answer("ok")
            else:
                answer(f"no unknown command {command}")
        except Exception as problem:
            answer("no " + " ".join(f"{type(problem).__name__}: {problem}".split())[:300])
    return 0
