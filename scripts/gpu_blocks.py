#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Phase 2's attention to blocks of FP8 keys beside that to the bf16 numbers they stand for (32 heads, 8 of K and V).

  gpu_blocks.py check LIBRARY...    the bits are bf16's, also with exponents laid out; ends with 1 where they are not
  gpu_blocks.py time LIBRARY...     TB/s of keys, values and exponents (and us), and with exponents laid out

LIBRARY is a shared library with tests/kernels/c_api.cpp in it; times of bf16 are those of the first.
"""
import ctypes
import statistics
import sys

import torch

from gpu_bench import timed
from gpu_kernels import Kernels, Partial, make_input, poisoned, random


def empty_partials(n_blocks, rows, heads, d):
    """Poisoned tensors (o, m, l), each a list by block, and the structures that point to them."""
    shapes = (rows, heads, d), (rows, heads), (rows, heads)
    tensors = [[poisoned(*shape) for _ in range(n_blocks)] for shape in shapes]
    return tensors, (Partial * n_blocks)(*(Partial(*(t.data_ptr() for t in block)) for block in zip(*tensors)))


def attend(lib, q, blocks, kv_heads, is_f8, out=None):
    """blocks: (k, v) of each, bf16 or FP8 rows, and maybe their exponents. Returns what `out` takes for a repetition:
    partials and a workspace."""
    inp = make_input(q, [(k.view(k.shape[0], 1, -1), v) for k, v, *_ in blocks] if is_f8 else blocks, False)
    inp.shape.n_kv_heads, inp.is_f8 = kv_heads, is_f8
    for i, (_, _, *exponents) in enumerate(blocks):
        inp.segments[i].exponents = exponents[0].data_ptr() if exponents else None
    partials, work = out or (empty_partials(len(blocks), *q.shape), lib.block_workspace(inp))
    lib.call("block_attention", ctypes.byref(inp), ctypes.byref(partials[1]), ctypes.c_void_p(work.data_ptr()))
    return partials, work


def both_kinds(lib, tokens, kv_heads, d):
    """Random keys and values of a block: FP8 rows, and what these stand for."""
    (k8, k), (v8, v) = lib.narrow(random(tokens, kv_heads, d)), lib.narrow(random(tokens, kv_heads, d))
    return (k8, v8), (k, v)


def check(lib):
    n_bad = n = 0
    for d, heads, kv_heads in ((128, 32, 8), (128, 8, 1), (64, 14, 2), (64, 32, 8)):
        for lengths in ((1,), (300,), (2048, 1000, 129), (8192, 8192, 64), (16384, 5)):
            f8, wide = zip(*[both_kinds(lib, tokens, kv_heads, d) for tokens in lengths])
            laid_out = [(k, v, lib.lay_out_exponents(k, v, kv_heads, d)) for k, v in f8]
            for rows in (1, 4, 5, 8, 9, 16, 17, 24, 31, 32, 33, 48, 64):
                q = random(rows, heads, d, spread=2)
                results = [attend(lib, q, blocks, kv_heads, is_f8)[0][0]
                           for blocks, is_f8 in ((f8, True), (wide, False), (laid_out, True))]
                for name, first, bf16, again in zip("oml", *results):
                    n += 1
                    same = all(torch.equal(a.view(torch.int32), b.view(torch.int32)) and torch.equal(a, c)
                               for a, b, c in zip(first, bf16, again))
                    if not same:
                        n_bad += 1
                        print("other bits:", lib.name, "d", d, heads, kv_heads, lengths, "rows", rows, name, flush=True)
    print(f"{lib.name}: {n} comparisons with the bits of bf16, {n_bad} wrong", flush=True)
    return n_bad


def time_blocks(libraries, d=128, heads=32, kv_heads=8):
    for lengths in ((32768,) * 4, (131072,), (16384,) * 2):
        f8, wide = zip(*[both_kinds(libraries[0], tokens, kv_heads, d) for tokens in lengths])
        laid_out = [(k, v, libraries[0].lay_out_exponents(k, v, kv_heads, d)) for k, v in f8]
        f8_bytes = sum(2 * k.nbytes for k, _ in f8)
        wide_bytes = sum(2 * k.nbytes for k, _ in wide)
        for rows in (1, 2, 4, 8, 16, 17, 24, 32, 64):
            q = random(rows, heads, d)
            contenders = {"bf16": (libraries[0], wide, False, wide_bytes)}
            contenders |= {lib.name: (lib, f8, True, f8_bytes) for lib in libraries}
            contenders |= {f"{lib.name} laid out": (lib, laid_out, True, f8_bytes) for lib in libraries}
            graphs, keep, times = {}, [], {name: [] for name in contenders}
            for name, (lib, blocks, is_f8, _) in contenders.items():
                keep.append(attend(lib, q, blocks, kv_heads, is_f8))
                torch.cuda.synchronize()
                graphs[name] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graphs[name]):
                    for _ in range(4):
                        attend(lib, q, blocks, kv_heads, is_f8, keep[-1])
            for graph in graphs.values():
                graph.replay()
            for _ in range(5):
                for name, graph in graphs.items():
                    times[name].append(timed(graph.replay, 6) / 4)
            print(f"{len(lengths)} x {lengths[0] // 1024}K keys {rows:2d} rows, TB/s (us):", "  ".join(
                f"{name} {contenders[name][3] / statistics.median(t) / 1e9:.2f} ({statistics.median(t) * 1e3:.0f})"
                for name, t in times.items()), flush=True)


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("check", "time"):
        sys.exit(__doc__)
    libraries = [Kernels(path) for path in sys.argv[2:]]
    if sys.argv[1] == "check":
        sys.exit(1 if sum(check(lib) for lib in libraries) else 0)
    time_blocks(libraries)


if __name__ == "__main__":
    main()
