#!/usr/bin/env python3
"""open_converted.py ANYBIT CHECKPOINTS [NAME]...: the field's own loaders on what `anybit convert` writes.

For every folder of CHECKPOINTS (those of ../shared/vectors/checkpoints, or NAMEs among them) and every format that holds it exactly, converts it, opens
the result with transformers (which calls compressed-tensors, bitsandbytes or gptqmodel), and compares the logits of its forward pass with those
of the folder's expected/logits.safetensors. A format whose library is not installed is skipped. By hand, not in ctest: it needs torch, transformers,
and compressed-tensors, bitsandbytes, gptqmodel as far as they install. With compressed-tensors 0.20.1 it fails for min-max grids, whose packed zero points
transformers refuses in llm-compressor's own files too, and for MXFP4 and NVFP4, which it restores in bfloat16 beside float32.
"""
import importlib.util, pathlib, subprocess, sys, tempfile, warnings

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

warnings.filterwarnings("ignore")
LIBRARIES = {"compressed-tensors": "compressed_tensors", "bnb": "bitsandbytes", "gptq": "gptqmodel", "gptq_v2": "gptqmodel", "awq": "gptqmodel"}


def logits_of(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32)
    with torch.no_grad():
        return [model(i.long().reshape(1, -1)).logits[0].float() for i in ids]


def main():
    program, root, *names = sys.argv[1:]
    bad = 0
    with tempfile.TemporaryDirectory() as work:
        for folder in sorted(pathlib.Path(root).iterdir()):
            if (names and folder.name not in names) or folder.name.startswith("exl3"):
                continue
            golden = load_file(folder / "expected/logits.safetensors")
            ids = [golden[f"prompt{i}.ids"] for i in (0, 1)]
            for to, library in LIBRARIES.items():
                if importlib.util.find_spec(library) is None:
                    continue
                out = pathlib.Path(work) / f"{folder.name}.{to}"
                said = subprocess.run([program, "convert", folder, out, "--to", to], capture_output=True, text=True)
                if "exact: all" not in said.stdout:
                    continue
                try:
                    worst = max((a - golden[f"prompt{i}.logits"]).abs().max().item() for i, a in enumerate(logits_of(out, ids)))
                    largest = max(golden[f"prompt{i}.logits"].abs().max().item() for i in (0, 1))
                    print(f"{folder.name} -> {to}: logits off by {worst / largest:.1e} of the largest", flush=True)
                    # Weights may be restored in float16, and LLM.int8 rounds activations to 8 bits.
                    bad += worst > (5e-2 if to == "bnb" else 5e-3) * largest
                except Exception as e:
                    print(f"{folder.name} -> {to}: {type(e).__name__}: {str(e).splitlines()[0][:200]}", flush=True)
                    bad += 1
    print(f"{bad} failed")
    return bad != 0


sys.exit(main())
