#!/usr/bin/env python3
"""gguf_with_llama_cpp.py ANYBIT MODEL.gguf [MIX]...: llama.cpp on what `anybit convert --to gguf` writes.

MODEL is a GGUF file of F16 or F32. For every mix the file that anybit writes must have the types of the file that llama.cpp's own quantizer writes, and the
same bytes. Then llama.cpp loads it, and its logits of a text are compared with those of `anybit logits`: mean KL divergence over the tokens. llama.cpp rounds
activations to 8 bits where weights are quantized and anybit does not, so only the float model agrees closely. By hand, not in ctest: it needs the Python
packages cyllama (llama.cpp 2026), gguf and safetensors.
"""
import json, pathlib, subprocess, sys, tempfile

import cyllama.llama.llama_cpp as llama
import numpy as np
from gguf import GGUFReader
from safetensors.numpy import load_file

FILE_TYPES = {"Q4_0": 2, "Q8_0": 7, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "IQ4_XS": 30}
TEXT = "The fox had lived under the old mill for as long as anyone could remember. In 1987, 3 of its cubs crossed the river; nobody knew why they left. " * 2


class Model(llama.LlamaModel):
    n_vocab = property(lambda self: self.get_vocab().n_vocab)  # which the package's own get_logits_ith() asks for


def open_model(path):
    options = llama.LlamaModelParams()
    options.n_gpu_layers = 0
    return Model(str(path), options, verbose=False)


def llama_logits(model, ids):
    options = llama.LlamaContextParams()
    options.n_ctx = options.n_batch = options.n_ubatch = max(512, len(ids))
    context = llama.LlamaContext(model, options, verbose=False)
    batch = llama.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
    batch.set_batch(ids, 0, True)
    assert not context.decode(batch)
    return np.stack([np.asarray(context.get_logits_ith(i), np.float64) for i in range(len(ids))])


def kl(p, q):
    p, q = (x - np.logaddexp.reduce(x, -1, keepdims=True) for x in (p.astype(np.float64), q.astype(np.float64)))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def main():
    program, source, *mixes = sys.argv[1:]
    llama.disable_logging()
    llama.llama_backend_init()
    bad, reference = 0, None
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        float_model = open_model(source)  # the vocabulary is a part of it, and does not keep it alive
        ids = float_model.get_vocab().tokenize(TEXT, False, False)
        (work / "ids.json").write_text(json.dumps([{"ids": ids}]))
        for mix in ["F16", *(mixes or FILE_TYPES)]:
            ours, theirs = work / "ours.gguf", work / "theirs.gguf"
            subprocess.run([program, "convert", source, ours, "--to", "gguf", "--type", mix], check=True, stdout=subprocess.DEVNULL)
            line = f"{mix}: {ours.stat().st_size} bytes"
            if mix != "F16":
                options = llama.LlamaModelQuantizeParams()
                options.ftype = FILE_TYPES[mix]
                llama.model_quantize(str(source), str(theirs), options)
                a, b = ({t.name: (t.tensor_type, t.data.tobytes()) for t in GGUFReader(f).tensors} for f in (ours, theirs))
                equal = sum(a[name] == b[name] for name in a if name in b)
                line += f", {equal} of {len(b)} tensors equal llama.cpp's"
                bad += equal != len(b) or len(a) != len(b)
            logits = llama_logits(open_model(ours), ids)
            subprocess.run([program, "logits", ours, "--ids", work / "ids.json", "--out", work / "l.safetensors"], check=True)
            own = kl(load_file(work / "l.safetensors")["p0.logits"], logits)
            reference = logits if reference is None else reference
            bad += mix == "F16" and own > 1e-4
            print(f"{line}, KL of llama.cpp's logits from anybit's {own:.1e}, from the float model's {kl(reference, logits):.4f}", flush=True)
    print(f"{bad} failed")
    return bad != 0


sys.exit(main())
