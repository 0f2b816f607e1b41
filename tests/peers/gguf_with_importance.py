#!/usr/bin/env python3
"""gguf_with_importance.py ANYBIT MODEL.gguf LIBGGML-BASE.so CALIBRATION.txt EVALUATION.txt [--tokens N] [--ways WAY,..] [--keep FOLDER] [MIX]...

MODEL (F16 or F32) is quantized to every mix by nearest rounding, by ggml with the importance matrix of CALIBRATION (ggml_quantize_chunk() of LIBGGML-BASE.so,
tensor by tensor), and by `anybit convert` with --imatrix, with --calibrate on the same text, and with types chosen for the size of the mix (--target-size). llama.cpp
runs every file; the table has the mean KL divergence of its predictions from those of MODEL, over the second half of every window of 512 tokens of EVALUATION, with
its standard error. By hand, not in ctest: it needs the Python packages cyllama (llama.cpp 2026), gguf and numpy, and a build of ggml.
"""
import argparse, ctypes, os, pathlib, shutil, subprocess, tempfile

import cyllama.llama.llama_cpp as llama
import numpy as np
from gguf import GGUFReader

MIXES = ["Q2_K", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M"]
WAYS = {"nearest": "nearest", "importance": "ggml with importance", "imatrix": "`--imatrix`", "calibrate": "`--calibrate`", "target": "`--target-size`"}
WINDOW = 512


class Llama(llama.LlamaModel):
    n_vocab = property(lambda self: self.get_vocab().n_vocab)  # which the package's own get_logits_ith() asks for


class Model:
    def __init__(self, path):
        options = llama.LlamaModelParams()
        options.n_gpu_layers = 0
        self.model = Llama(str(path), options, verbose=False)
        self.vocabulary = self.model.get_vocab()

    def log_probabilities(self, ids):
        """Of the second half of a window, one row for every token."""
        options = llama.LlamaContextParams()
        options.n_ctx = options.n_batch = options.n_ubatch = WINDOW
        options.n_threads = options.n_threads_batch = os.cpu_count()
        context = llama.LlamaContext(self.model, options, verbose=False)
        batch = llama.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        batch.set_batch(ids, 0, True)
        assert not context.decode(batch)
        rows = range(len(ids) // 2, len(ids))
        logits = np.stack([np.asarray(context.get_logits_ith(i), np.float32) for i in rows])
        logits -= logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


class Measure:
    """KL divergence from the float model."""

    def __init__(self, path, text, tokens):
        reference = Model(path)
        ids = reference.vocabulary.tokenize(text, False, False)[:tokens]
        self.windows = [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]
        self.truth = [reference.log_probabilities(w) for w in self.windows]

    def __call__(self, path):
        model = Model(path)
        kl = np.concatenate([(np.exp(p) * (p - model.log_probabilities(w))).sum(-1, dtype=np.float64) for p, w in zip(self.truth, self.windows)])
        return kl.mean(), kl.std() / len(kl) ** 0.5


def importance(path):
    """Mean squares of every column by tensor, as llama-quantize hands them over."""
    tensors = {t.name: t.data for t in GGUFReader(path).tensors}
    return {n[: -len(".in_sum2")]: (s.ravel() / max(1, tensors[n[: -len("in_sum2")] + "counts"].ravel()[0])).astype(np.float32)
            for n, s in tensors.items() if n.endswith(".in_sum2")}


def quantize_by_ggml(library, source, like, target, weights):
    """`like` with the bytes of its matrices by ggml for these weights; tensors without any (the embedding) stay."""
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    floats = {t.name: t for t in GGUFReader(source).tensors}
    shutil.copyfile(like, target)
    reader = GGUFReader(target, "r+")
    for t in reader.tensors:
        if t.name not in weights or int(t.tensor_type) < 2 or int(t.tensor_type) == 30:
            continue
        x = np.ascontiguousarray(floats[t.name].data, np.float32)
        rows, columns = x.shape
        assert len(weights[t.name]) == columns, t.name
        out = np.empty(t.data.nbytes, np.uint8)
        written = ggml.ggml_quantize_chunk(int(t.tensor_type), x.ctypes.data, out.ctypes.data, 0, rows, columns, weights[t.name].ctypes.data)
        assert written == out.nbytes, t.name
        t.data[:] = out.reshape(t.data.shape)
    reader.data.flush()


def main():
    parser = argparse.ArgumentParser()
    for name in ("anybit", "model", "ggml", "calibration", "evaluation"):
        parser.add_argument(name)
    parser.add_argument("mixes", nargs="*")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--calibration-tokens", type=int, default=8192)
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS), help="some of " + ",".join(WAYS))
    parser.add_argument("--keep", help="a folder; the files that lie there are not made again")
    a = parser.parse_intermixed_args()
    llama.disable_logging()
    llama.llama_backend_init()
    measure = Measure(a.model, pathlib.Path(a.evaluation).read_text(), a.tokens)
    ways = [way for way in WAYS if way in a.ways]
    print("| type | bytes | " + " | ".join(WAYS[way] for way in ways) + " |\n" + "|---" * (2 + len(ways)) + "|", flush=True)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(a.keep or work)
        work.mkdir(exist_ok=True)
        matrix = work / "importance.gguf"
        convert = lambda to, *more: subprocess.run([a.anybit, "convert", a.model, to, "--to", "gguf", *more], check=True, stdout=subprocess.DEVNULL)
        text = ["--calibrate", a.calibration, "--calibration-tokens", str(a.calibration_tokens)]
        if not matrix.exists():
            convert(work / "unused.gguf", "--type", "F16", *text, "--write-imatrix", matrix)
        mixes, targets = a.mixes or MIXES, work / "targets"
        wanted = [mix for mix in mixes if "target" in ways and not (work / f"{mix}-target.gguf").exists()]
        if len(wanted) > 1:  # in one go they share the measurements
            convert(targets, *sum((["--target-size", mix] for mix in wanted), []), *text)
        elif wanted:
            targets.mkdir(exist_ok=True)
            convert(targets / f"{wanted[0]}.gguf", "--target-size", wanted[0], *text)
        for mix in mixes:
            files = {way: work / f"{mix}-{way}.gguf" for way in WAYS}
            make = {"nearest": lambda to: convert(to, "--type", mix),
                    "importance": lambda to: quantize_by_ggml(a.ggml, a.model, files["nearest"], to, importance(matrix)),
                    "imatrix": lambda to: convert(to, "--type", mix, "--imatrix", matrix),
                    "calibrate": lambda to: convert(to, "--type", mix, *text),
                    "target": lambda to: shutil.move(targets / f"{mix}.gguf", to)}
            for way in ["nearest"] + ways:
                if not files[way].exists():
                    make[way](files[way])
            size = files["nearest"].stat().st_size
            for way in ways:
                assert files[way].stat().st_size <= size and (way == "target" or files[way].stat().st_size == size), way
            kl = [measure(files[way]) for way in ways]
            print(f"| {mix} | {size} | " + " | ".join(f"{mean:.4f} ± {error:.4f}" for mean, error in kl) + " |", flush=True)


if __name__ == "__main__":
    main()
