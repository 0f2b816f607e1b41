#!/usr/bin/env python3
"""Times GPTQ's published algorithm (Frantar et al. 2022, algorithm 1, with the Cholesky form of the inverse) on torch, one
thread, on the problem of bench_gptq: a square matrix, 4 bits with zero points in groups of 128, its Hessian given.

    bench/gptq_torch.py [--size N] [--runs N]      needs torch (pip install torch)
"""

import argparse
import statistics
import time

import torch

GROUP = BLOCK = 128


def problem(n):
    i = torch.arange(n, dtype=torch.float64)
    gain = 1 + 0.5 * torch.sin(i)
    hessian = 0.7 ** (i[:, None] - i[None, :]).abs() * gain[:, None] * gain[None, :]
    torch.manual_seed(1)
    return 0.05 * torch.randn(n, n), hessian.float()


def gptq(weights, hessian, damp=0.01):
    w, h, n = weights.clone(), hessian.clone(), weights.shape[1]
    h.diagonal().add_(damp * h.diagonal().mean())
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    rounded = torch.zeros_like(w)
    for begin in range(0, n, BLOCK):
        end = min(begin + BLOCK, n)
        block, errors = w[:, begin:end].clone(), torch.zeros_like(w[:, begin:end])
        for k in range(begin, end):
            if k % GROUP == 0:
                group = w[:, k : k + GROUP]
                low, high = group.amin(1).clamp(max=0), group.amax(1).clamp(min=0)
                scale = (high - low) / 15
                zero = torch.round(-low / scale)
            column = block[:, k - begin]
            q = scale * (torch.clamp(torch.round(column / scale) + zero, 0, 15) - zero)
            rounded[:, k] = q
            error = (column - q) / u[k, k]
            block[:, k - begin :] -= error.unsqueeze(1) @ u[k, k:end].unsqueeze(0)
            errors[:, k - begin] = error
        w[:, end:] -= errors @ u[begin:end, end:]
    return rounded


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=4096)
    options.add_argument("--runs", type=int, default=3)
    asked = options.parse_args()
    torch.set_num_threads(1)
    w, h = problem(asked.size)
    seconds = []
    for _ in range(asked.runs):
        start = time.process_time()
        q = gptq(w, h)
        seconds.append(time.process_time() - start)
    d = (w - q).double()
    error = ((d @ h.double() * d).sum() / (w.double() @ h.double() * w.double()).sum()).sqrt()
    print(f"{asked.size} x {asked.size}: {statistics.median(seconds):.2f} s of one processor, relative output error {error:.4f}")


if __name__ == "__main__":
    main()
