#!/usr/bin/env python3
"""Encodes the same text by anybit and by Hugging Face's tokenizers in turns, one thread each, and prints MB/s and their ratio.

  bench/tokenizer_speed.py build/bench/bench/bench_tokenizer TEXT tokenizer.json...

Figures are medians over --rounds, in processor time, so that other work on the machine counts little. The text is given whole and
in documents of about 4 KB; tokenizers gets encode_batch_fast, which does without offsets. Needs the package tokenizers.
"""
import argparse, json, os, statistics, subprocess, time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("program"), ap.add_argument("text"), ap.add_argument("vocabularies", nargs="+")
ap.add_argument("--rounds", type=int, default=3)
args = ap.parse_args()
data = open(args.text, "rb").read()


def documents(size):
    out, at = [], 0
    while at < len(data):
        line = data.find(b"\n", min(at + size, len(data)))
        end = len(data) if line < 0 else line + 1
        out.append(data[at:end].decode()), (at := end)
    return out


print(f"{len(data) / 1e6:.1f} MB, one thread, median of {args.rounds}")
print(f"{'vocabulary':40} {'text':10} {'anybit':>8} {'tokenizers':>10} {'ratio':>6}")
for path in args.vocabularies:
    peer = Tokenizer.from_file(path)
    peer.no_truncation(), peer.no_padding()
    peer.encode_special_tokens = True
    for name, size in (("whole", len(data)), ("documents", 4000)):
        ours, theirs, texts = [], [], documents(size)
        for _ in range(args.rounds):
            start = time.process_time()
            tokens = sum(len(e) for e in peer.encode_batch_fast(texts, add_special_tokens=False))
            theirs.append(len(data) / (time.process_time() - start) / 1e6)
            run = subprocess.run([args.program, path, args.text, f"--benchmark_filter=^{name}$", "--benchmark_format=json"],
                                 capture_output=True, check=True)
            result = json.loads(run.stdout)["benchmarks"][0]
            ours.append(result["bytes_per_second"] / 1e6)
            if int(result["tokens"]) != tokens:
                raise SystemExit(f"{path}, {name}: {int(result['tokens'])} tokens, tokenizers has {tokens}")
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"{os.path.basename(path)[-40:]:40} {name:10} {a:8.2f} {b:10.2f} {a / b:6.1f}", flush=True)
