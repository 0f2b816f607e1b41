"""Makes the matrices that every library multiplies, and checks what comes out, in double precision.

data                  -> ok             writes weights.f32 and activations.f32 unless they are there
learn NAME WEIGHTS    -> ok ERROR       the weights that a product really has; how far they are from those before quantization
check NAME Y TOKENS   -> ok ERROR OWN   |y - x W^T| / |x W^T| with the weights before quantization, and with those learned
"""

import os
import sys

import numpy as np

from worker import COLS, MOST_TOKENS, ROWS

FOLDER = sys.argv[1]
EXACT = {}  # x W^T by the name of W


def array(name, *shape):
    return np.fromfile(name, np.float32).reshape(shape)


def make_data():
    random = np.random.default_rng(1)
    for name, rows, size in (("weights", ROWS, 0.02), ("activations", MOST_TOKENS, 1.0)):
        path = f"{FOLDER}/{name}.f32"
        values = random.standard_normal((rows, COLS), dtype=np.float32) * np.float32(size)
        if not os.path.exists(path) or os.path.getsize(path) != values.nbytes:
            values.tofile(path)


def relative(y, truth):
    return float(np.linalg.norm(y - truth) / np.linalg.norm(truth))  # not a number if y has any


def learn(name, weights):
    original, own = array(f"{FOLDER}/weights.f32", ROWS, COLS), array(weights, ROWS, COLS)
    x = array(f"{FOLDER}/activations.f32", MOST_TOKENS, COLS).astype(np.float64)
    for key, matrix in (("", original), (name, own)):
        if key not in EXACT:
            EXACT[key] = x @ matrix.astype(np.float64).T
    return [relative(own, original)]


def check(name, y, tokens):
    result = array(y, int(tokens), ROWS).astype(np.float64)
    return [relative(result, EXACT[key][: int(tokens)]) for key in ("", name)]


COMMANDS = {"data": lambda: make_data() or [], "learn": learn, "check": check}
print("ready", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    try:
        print("ok", *COMMANDS[command](*words), flush=True)
    except (OSError, ValueError) as problem:
        print("no", problem, flush=True)
