#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks and times the kernels against PyTorch's, in one process.

  gpu_bench.py check LIBRARY...            against a float64 reference, on fresh random data
  gpu_bench.py time LIBRARY... [--d 64]    prefill: TFLOP/s, and the ratio to cuDNN's
  gpu_bench.py partial LIBRARY...          phase 2: TB/s of keys and values
  gpu_bench.py recall LIBRARY...           asking rows against earlier keys: TFLOP/s; the choice: us
  gpu_bench.py products LIBRARY...         FP8 products of many rows, checked, then timed: TFLOP/s
  gpu_bench.py rest LIBRARY...             norms, RoPE, SwiGLU, thin products: TB/s beside a copy

LIBRARY is a shared library with tests/kernels/c_api.cpp in it. Rates count 4 * rows * keys * heads *
head_dim operations, halved where causal, and halved where rows only ask, which takes no values. Each round
times every contender once, so that clocks and heat are shared; the median over rounds is printed.
"""
import argparse
import ctypes
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_kernel_checks import check, check_f8, check_products, check_recall
from gpu_kernels import (Kernels, Output, ThinLinear, ThinOutput, make_asking, make_f8_input, make_input,
                         make_partial, poisoned, random, random_f8)


def timed(call, n):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(n):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / n  # ms


def compare(contenders, ms_each, rounds):
    """{name: call} -> {name: median ms}; a contender that fails is left out."""
    counts, times = {}, {}
    for name, call in list(contenders.items()):
        try:
            call()
            torch.cuda.synchronize()
            once = timed(call, 1)
            counts[name] = max(1, int(ms_each / once))
            times[name] = []
        except RuntimeError as e:
            print("left out:", name, str(e)[:100])
            del contenders[name]
    for _ in range(rounds):
        for name, call in contenders.items():
            times[name].append(timed(call, counts[name]))
    return {name: statistics.median(t) for name, t in times.items()}


def sdpa(backend, q, k, v, causal):
    def call():
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal, enable_gqa=True)
    return call


def heads_first(x):
    return x.transpose(0, 1)[None]  # [tokens, heads, d] -> [1, heads, tokens, d], a view


def row(title, result, unit_of, peer):
    best = result.get(peer)
    cells = [f"{name} {unit_of(ms):.0f} ({best / ms:.2f})" if best else f"{name} {unit_of(ms):.0f}"
             for name, ms in result.items()]
    print(f"{title:24s}", "  ".join(cells), flush=True)


def time_prefill(libraries, d, lengths, rounds, ms_each, star, heads=32, kv_heads=8):
    for n in lengths:
        q, k, v = random(n, heads, d), random(n, kv_heads, d), random(n, kv_heads, d)
        out, lse = poisoned(n, heads, d, dtype=torch.bfloat16), poisoned(n, heads)
        flops = 4 * n * n * heads * d / 2
        hq, hk, hv = heads_first(q), heads_first(k), heads_first(v)
        contenders = {"cudnn": sdpa(SDPBackend.CUDNN_ATTENTION, hq, hk, hv, True)}
        for lib in libraries:
            inp, to = make_input(q, [(k, v)], True), Output(out.data_ptr(), lse.data_ptr())
            contenders[lib.name] = lambda lib=lib, inp=inp, to=to: lib.prefill(inp, to)
        row(f"causal d{d} {n // 1024}K", compare(contenders, ms_each, rounds),
            lambda ms: flops / ms / 1e9, "cudnn")
    for n in star:
        q = random(n, heads, d)
        kv = [(random(n, kv_heads, d), random(n, kv_heads, d)) for _ in range(2)]
        out, lse = poisoned(n, heads, d, dtype=torch.bfloat16), poisoned(n, heads)
        flops = 4 * n * n * heads * d * 1.5
        hq = heads_first(q)
        first = [heads_first(x) for x in kv[0]]
        own = [heads_first(x) for x in kv[1]]

        def two_calls():
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                a = torch.ops.aten._scaled_dot_product_cudnn_attention(hq, *first, None, True, 0.0, False)
                b = torch.ops.aten._scaled_dot_product_cudnn_attention(hq, *own, None, True, 0.0, True)
            la, lb = a[1].float(), b[1].float()
            if la.dim() == 3:
                la, lb = la[..., None], lb[..., None]
            wa = torch.sigmoid(la - lb)
            return a[0] * wa + b[0] * (1 - wa)

        def expanded(call):
            return call
        contenders = {"cudnn x2": two_calls}
        for lib in libraries:
            inp, to = make_input(q, kv, True), Output(out.data_ptr(), lse.data_ptr())
            contenders[lib.name] = lambda lib=lib, inp=inp, to=to: lib.prefill(inp, to)
        row(f"anchor + own d{d} {n // 1024}K", compare(contenders, ms_each, rounds),
            lambda ms: flops / ms / 1e9, "cudnn x2")


def time_partial(libraries, d, lengths, row_counts, rounds, heads=32, kv_heads=8):
    for n in lengths:
        sets = max(2, (256 << 20) // (n * kv_heads * d * 4) + 1)  # rotate past the cache
        kvs = [(random(n, kv_heads, d), random(n, kv_heads, d)) for _ in range(sets)]
        n_bytes = n * kv_heads * d * 4
        for rows in row_counts:
            q = random(rows, heads, d)
            contenders = {}
            group = heads // kv_heads
            # Peers: the rows of a group packed as query rows, no mask.
            packed = q.view(rows, kv_heads, group, d).permute(1, 0, 2, 3).reshape(1, kv_heads, rows * group, d)

            def rotating(make):
                calls = [make(*kv) for kv in kvs]

                def call():
                    for c in calls:
                        c()
                return call
            for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
                contenders[name] = rotating(
                    lambda k, v: sdpa(backend, packed, heads_first(k), heads_first(v), False))
            keep = []
            for lib in libraries:
                tensors, partial = make_partial(rows, heads, d)
                keep.append(tensors)

                def make(k, v, lib=lib, partial=partial):
                    inp = make_input(q, [(k, v)], False)
                    work = lib.workspace(inp)
                    return lambda: lib.partial(inp, partial, work)
                contenders[lib.name] = rotating(make)
                f8 = [(lib.narrow(k)[0], lib.narrow(v)[0]) for k, v in kvs]
                f8 = [(k, v, lib.lay_out_exponents(k, v, kv_heads, d)) for k, v in f8]
                keep.append(f8)

                def make_f8(lib=lib, partial=partial, f8=f8):
                    inputs = [make_f8_input(q, *keys, kv_heads) for keys in f8]
                    work = lib.block_workspace(inputs[0])

                    def call():
                        for inp in inputs:
                            lib.block(inp, partial, work)
                    return call
                contenders[lib.name + " FP8"] = make_f8()
            # Graph replays: launch gaps are the host's, not the kernel's.
            graphs = {}
            for name, call in contenders.items():
                try:
                    call()
                    torch.cuda.synchronize()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        call()
                    graphs[name] = graph.replay
                except RuntimeError as e:
                    print("left out:", name, str(e)[:200])
            result = compare(graphs, 20, rounds)
            f8_bytes = 2 * n * ((kv_heads * (d + 1) + 15) // 16 * 16)
            cells = [f"{name} {sets * (f8_bytes if name.endswith('FP8') else n_bytes) / ms / 1e9:.2f}"
                     for name, ms in result.items()]
            print(f"partial d{d} {n // 1024}K keys {rows} rows, TB/s:", "  ".join(cells), flush=True)


def time_products(libraries, rounds, ms_each, rows=8192):
    """An 8B model's matrices and 8192 rows: bf16, torch's FP8 with scales of rows, ours with both kinds of scales."""
    for n_out, n_in in ((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)):
        sets = 3  # rotate past the cache
        xs = [random(rows, n_in) for _ in range(sets)]
        ws = [(torch.randn(n_out, n_in, device="cuda") / n_in ** 0.5).bfloat16() for _ in range(sets)]
        y = torch.empty(rows, n_out, device="cuda", dtype=torch.bfloat16)

        def rotating(one):
            def call():
                for i in range(sets):
                    one(i)
            return call
        contenders = {"bf16": rotating(lambda i: torch.mm(xs[i], ws[i].T, out=y))}
        for lib in libraries:
            x8 = [lib.round(x) for x in xs]
            contenders[f"{lib.name}, rounding alone"] = rotating(
                lambda i, lib=lib, x8=x8: lib.round(xs[i], *x8[i]))
            for name, block in (("a scale a row", (1, n_in)), ("blocks", (128, 128))):
                w8 = [random_f8(n_out, n_in, block) for _ in range(sets)]
                contenders[f"{lib.name}, {name}"] = rotating(
                    lambda i, lib=lib, x8=x8, w8=w8, block=block: lib.f8_linear(x8[i], w8[i], block, y))
        for fast in (False, True):
            w8 = [random_f8(n_out, n_in, (1, n_in)) for _ in range(sets)]
            contenders[f"torch FP8{', fast sums' if fast else ''}"] = rotating(
                lambda i, x8=x8, w8=w8, fast=fast: torch._scaled_mm(
                    x8[i][0], w8[i][0].T, scale_a=x8[i][1][:, None], scale_b=w8[i][1].view(1, -1),
                    out_dtype=torch.bfloat16, use_fast_accum=fast))
        result = compare(contenders, ms_each, rounds)
        print(f"{rows} rows, {n_out} x {n_in}, TFLOP/s:", "  ".join(
            f"{name} {ms / sets * 1e3:.0f} us" if name.endswith("alone") else
            f"{name} {2 * sets * rows * n_out * n_in / ms / 1e9:.0f}" for name, ms in result.items()), flush=True)


def time_recall(libraries, d, lengths, row_counts, rounds, ms_each, heads=32, kv_heads=8):
    """The peer of asking is the bare product of the same rows and keys, which keeps every score of every head."""
    for n in lengths:
        k = random(n, kv_heads, d)
        scores = torch.empty(n, device="cuda")
        for rows in row_counts:
            q = random(rows, heads, d)
            z, z_of_rows = torch.empty(rows, heads, device="cuda"), torch.full((rows, heads), 10.0, device="cuda")
            flops = 2 * rows * n * heads * d
            contenders = {}
            if rows * n * heads * 2 < 16 << 30:
                grouped = q.view(rows, kv_heads, heads // kv_heads, d).permute(1, 2, 0, 3).reshape(kv_heads, -1, d)
                keys = k.permute(1, 2, 0).contiguous()
                contenders["product alone"] = lambda: torch.bmm(grouped, keys)
            for lib in libraries:
                asking, segment = make_asking(q, k)
                work = lib.score_workspace(asking)
                contenders[lib.name + " z"] = lambda lib=lib, a=asking, s=segment: lib.log_sum_exp(a, s, z)
                contenders[lib.name + " scores"] = \
                    lambda lib=lib, a=asking, s=segment, w=work: lib.score_keys(a, z_of_rows, s, scores, w)
            row(f"asking d{d} {n // 1024}K {rows} rows", compare(contenders, ms_each, rounds),
                lambda ms: flops / ms / 1e9, "product alone")
        values = torch.rand(n, device="cuda")
        n_best = n // 8
        best, best_scores = torch.empty(n_best, dtype=torch.int32, device="cuda"), torch.empty(n_best, device="cuda")
        contenders = {"torch.topk": lambda: torch.topk(values, n_best)}
        for lib in libraries:
            contenders[lib.name] = lambda lib=lib: lib.choose_best(values, best, best_scores)
        result = compare(contenders, 20, rounds)
        print(f"choice of {n_best} of {n // 1024}K, us:",
              "  ".join(f"{name} {ms * 1e3:.0f}" for name, ms in result.items()), flush=True)


def time_next_tokens(lib, rounds):
    """From logits to tokens; the kernel overwrites them, so both sides work on a fresh copy of bell-shaped ones."""
    vocab = 128256
    pointer = lambda t: ctypes.c_void_p(t.data_ptr())
    for rows in (1, 32):
        fresh = 3 * torch.randn(rows, vocab, device="cuda")
        logits, tokens = fresh.clone(), torch.empty(rows, device="cuda", dtype=torch.int32)

        def ours(temperature, top_p):
            draws = torch.tensor([[temperature, top_p, (i + 0.5) / rows] for i in range(rows)], device="cuda",
                                 dtype=torch.float64)

            def call():
                logits.copy_(fresh)
                lib.call("next_tokens", pointer(logits), ctypes.c_int64(rows), ctypes.c_int64(vocab), pointer(draws),
                         pointer(tokens))
            return call

        def peer():  # softmax, sort, cumulative sum, draw
            logits.copy_(fresh)
            weights, order = torch.softmax(logits, -1).sort(-1, descending=True)
            weights[weights.cumsum(-1) - weights >= 0.95] = 0
            order.gather(-1, torch.multinomial(weights, 1))

        def alone():
            logits.copy_(fresh)

        ms = compare({"copy": alone, "greedy": ours(0, 1), "all tokens": ours(1, 1), "top-p": ours(1, 0.95),
                      "torch, top-p": peer}, 20, rounds)
        print(f"next token of {rows} row(s), us:", "  ".join(
            f"{name} {(t - ms['copy']) * 1e3:.0f}" for name, t in ms.items() if name != "copy"), flush=True)


def time_rest(libraries, rounds):
    """Bandwidth-bound kernels on 8192 rows of an 8B model, and thin products of its matrices."""
    lib = libraries[0]
    n, hidden, inter, heads, d = 8192, 4096, 14336, 32, 128
    pointer = lambda t: ctypes.c_void_p(t.data_ptr())
    x, y, weight = random(n, hidden), random(n, hidden), random(hidden)
    gate, up = random(n, inter), random(n, inter)
    cos, sin = torch.randn(n, d // 2, device="cuda"), torch.randn(n, d // 2, device="cuda")
    calls = {
        "copy": (2 * x.nbytes, lambda: y.copy_(x)),
        "RMS norm": (2 * x.nbytes, lambda: lib.call("rms_norm", pointer(x), pointer(weight), ctypes.c_float(1e-5),
                     ctypes.c_int64(n), ctypes.c_int64(hidden), pointer(y))),
        "RoPE": (2 * x.nbytes + 2 * cos.nbytes, lambda: lib.call("rotate_rows", pointer(x), pointer(cos),
                 pointer(sin), ctypes.c_int64(n), heads, d)),
        "SwiGLU": (3 * gate.nbytes, lambda: lib.call("swiglu", pointer(gate), pointer(up), pointer(gate),
                   ctypes.c_int64(n * inter))),
        "copy of gate": (2 * gate.nbytes, lambda: up.copy_(gate)),
    }
    result = compare({name: call for name, (_, call) in calls.items()}, 30, rounds)
    print("rest, TB/s:", "  ".join(f"{name} {calls[name][0] / ms / 1e9:.2f}" for name, ms in result.items()), flush=True)

    time_next_tokens(lib, rounds)
    for rows in (1, 8, 16, 32, 64):
        contenders = {}
        for n_out, n_in in ((6144, 4096), (3072, 4096), (4096, 4096), (2048, 4096), (28672, 4096), (14336, 4096),
                            (4096, 14336), (2048, 14336), (128256, 4096)):  # of an 8B model, whole and halved
            sets = max(2, (192 << 20) // (n_out * n_in * 2) + 1)
            ws = [random(n_out, n_in) for _ in range(sets)]
            xs, ys = random(rows, n_in), torch.empty(rows, n_out, device="cuda", dtype=torch.bfloat16)

            def thin(ws=ws, xs=xs, ys=ys, n_out=n_out, n_in=n_in):
                for w in ws:
                    p = ThinLinear(xs.data_ptr(), rows, n_in, 0, 1)
                    p.outputs[0] = ThinOutput(w.data_ptr(), None, None, ys.data_ptr(), n_out)
                    lib.call("thin_linear", ctypes.byref(p))

            f8 = [(torch.randn(n_out, n_in, device="cuda").to(torch.float8_e4m3fn), torch.rand(n_out, device="cuda"))
                  for _ in range(2 * sets)]

            def thin_f8(f8=f8, xs=xs, ys=ys, n_out=n_out, n_in=n_in):
                for w, scales in f8:
                    p = ThinLinear(xs.data_ptr(), rows, n_in, 0, 1)
                    p.outputs[0] = ThinOutput(w.data_ptr(), None, None, ys.data_ptr(), n_out, scales.data_ptr(),
                                              1, n_in, 0)
                    lib.call("thin_linear", ctypes.byref(p))

            def peer(ws=ws, xs=xs):
                for w in ws:
                    torch.nn.functional.linear(xs, w)
            for name, call in (("ours", thin), ("FP8", thin_f8), ("cublas", peer)):
                call()
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    call()
                contenders[f"{name} {n_out}x{n_in}"] = (sets * n_out * n_in * 2, graph, call)
        result = compare({name: g.replay for name, (_, g, _) in contenders.items()}, 20, rounds)
        print(f"thin products, {rows} rows, TB/s:",
              "  ".join(f"{name} {contenders[name][0] / ms / 1e9:.2f}" for name, ms in result.items()), flush=True)


def ceilings():
    a = torch.randn(8192, 8192, device="cuda").bfloat16()
    b = torch.randn(8192, 8192, device="cuda").bfloat16()
    x = torch.randn(1 << 30, device="cuda")
    y = torch.empty_like(x)
    result = compare({"gemm": lambda: a @ b, "copy": lambda: y.copy_(x), "sum": lambda: x.sum()}, 100, 3)
    print(f"ceilings: bf16 gemm {2 * 8192**3 / result['gemm'] / 1e9:.0f} TFLOP/s, "
          f"copy {8 * 2**30 / result['copy'] / 1e9:.2f} TB/s read + written, "
          f"sum {4 * 2**30 / result['sum'] / 1e9:.2f} TB/s read", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["check", "time", "partial", "products", "recall", "rest", "ceilings"])
    parser.add_argument("libraries", nargs="*")
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--lengths", default="8,16,32,64,128", help="in 1024 tokens")
    parser.add_argument("--star", default="32", help="rows = anchor = own, in 1024 tokens")
    parser.add_argument("--rows", default="1,8,32,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ms", type=float, default=50, help="per contender and round")
    args = parser.parse_args()
    torch.manual_seed(time.time_ns() % 2**31)
    sizes = lambda text: [int(x) * 1024 for x in text.split(",") if x]
    libraries = [Kernels(path) for path in args.libraries]
    if args.action == "check":
        sys.exit(1 if sum(check(lib) + check_f8(lib) + check_products(lib) + check_recall(lib) for lib in libraries) else 0)
    if args.action == "ceilings":
        return ceilings()
    if args.action == "time":
        time_prefill(libraries, args.d, sizes(args.lengths), args.rounds, args.ms, sizes(args.star))
    if args.action == "products":
        n_bad = sum(check_products(lib) for lib in libraries)
        time_products(libraries, args.rounds, args.ms)
        sys.exit(1 if n_bad else 0)
    if args.action == "rest":
        time_rest(libraries, args.rounds)
    if args.action == "recall":
        time_recall(libraries, args.d, sizes(args.lengths),
                    [int(x) for x in args.rows.split(",")], args.rounds, args.ms)
    if args.action == "partial":
        time_partial(libraries, args.d, sizes(args.lengths),
                     [int(x) for x in args.rows.split(",")], args.rounds)


if __name__ == "__main__":
    main()
