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
import math
import os
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

MAX_SEGMENTS = 8


class Shape(ctypes.Structure):
    _fields_ = [("n_heads", ctypes.c_int), ("n_kv_heads", ctypes.c_int), ("head_dim", ctypes.c_int)]


class Segment(ctypes.Structure):
    _fields_ = [("k", ctypes.c_void_p), ("v", ctypes.c_void_p), ("n_tokens", ctypes.c_int64), ("first_seen", ctypes.c_int64)]

    def __init__(self, k=None, v=None, n_tokens=0):
        super().__init__(k, v, n_tokens, -(1 << 62))  # rows see it from its first token on


class Partial(ctypes.Structure):
    _fields_ = [("o", ctypes.c_void_p), ("m", ctypes.c_void_p), ("l", ctypes.c_void_p)]


class Input(ctypes.Structure):
    _fields_ = [("shape", Shape), ("q", ctypes.c_void_p), ("n_rows", ctypes.c_int64),
                ("q_row_stride", ctypes.c_int64), ("segments", ctypes.POINTER(Segment)),
                ("n_segments", ctypes.c_int), ("causal", ctypes.c_bool), ("scale", ctypes.c_float),
                ("is_f8", ctypes.c_bool)]


class Output(ctypes.Structure):
    _fields_ = [("out", ctypes.c_void_p), ("lse", ctypes.c_void_p), ("partial", Partial)]


class F8Rows(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("n_rows", ctypes.c_int64), ("n_heads", ctypes.c_int),
                ("head_dim", ctypes.c_int)]


class RoundedRows(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("scales", ctypes.c_void_p), ("n_rows", ctypes.c_int64),
                ("width", ctypes.c_int64)]


class ScaledMatrix(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("n_rows", ctypes.c_int64), ("n_cols", ctypes.c_int64),
                ("scales", ctypes.c_void_p), ("block_rows", ctypes.c_int64), ("block_cols", ctypes.c_int64),
                ("first_row", ctypes.c_int64)]


class F8Linear(ctypes.Structure):
    _fields_ = [("x", RoundedRows), ("w", ScaledMatrix), ("bias", ctypes.c_void_p), ("y", ctypes.c_void_p),
                ("add", ctypes.c_bool)]


class Asking(ctypes.Structure):
    _fields_ = [("shape", Shape), ("q", ctypes.c_void_p), ("n_rows", ctypes.c_int64), ("scale", ctypes.c_float)]


class Kernels:
    def __init__(self, path):
        self.name = os.path.basename(path).removesuffix(".so")
        self.lib = ctypes.CDLL(os.path.abspath(path))
        self.lib.starattn_last_error.restype = ctypes.c_char_p

    def call(self, function, *args):
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if getattr(self.lib, "starattn_" + function)(*args, stream):
            raise RuntimeError(self.lib.starattn_last_error().decode())

    def prefill(self, inp, out):
        self.call("prefill_attention", ctypes.byref(inp), ctypes.byref(out))

    def workspace(self, inp):
        n = ctypes.c_size_t()
        if self.lib.starattn_partial_workspace(ctypes.byref(inp), ctypes.byref(n)):
            raise RuntimeError(self.lib.starattn_last_error().decode())
        return torch.empty(n.value, dtype=torch.uint8, device="cuda")

    def partial(self, inp, partial, workspace):
        self.call("partial_attention", ctypes.byref(inp), ctypes.byref(partial),
                  ctypes.c_void_p(workspace.data_ptr()))

    def block_workspace(self, inp):
        n = ctypes.c_size_t()
        if self.lib.starattn_block_workspace(ctypes.byref(inp), ctypes.byref(n)):
            raise RuntimeError(self.lib.starattn_last_error().decode())
        return torch.empty(n.value, dtype=torch.uint8, device="cuda")

    def block(self, inp, partial, workspace):
        self.call("block_attention", ctypes.byref(inp), ctypes.byref(partial),
                  ctypes.c_void_p(workspace.data_ptr()))

    def narrow(self, x):
        """x [tokens, kv_heads, d] as FP8 rows, and what these stand for."""
        n, heads, d = x.shape
        rows = torch.full((n, (heads * (d + 1) + 15) // 16 * 16), 255, dtype=torch.uint8, device="cuda")
        to = F8Rows(rows.data_ptr(), n, heads, d)
        self.call("narrow_rows", ctypes.c_void_p(x.data_ptr()), ctypes.byref(to))
        wide = poisoned(n, heads, d, dtype=torch.bfloat16)
        self.call("widen_rows", ctypes.byref(to), ctypes.c_void_p(wide.data_ptr()))
        return rows, wide

    def round(self, x, values=None, scales=None):
        """x [rows, width] as FP8 and the rows' scales."""
        if values is None:
            values = torch.full(x.shape, 255, dtype=torch.uint8, device="cuda").view(torch.float8_e4m3fn)
            scales = poisoned(x.shape[0], dtype=torch.float32)
        to = RoundedRows(values.data_ptr(), scales.data_ptr(), *x.shape)
        self.call("round_rows", ctypes.c_void_p(x.data_ptr()), ctypes.byref(to))
        return values, scales

    def f8_linear(self, x, w, block, y, bias=None, add=False):
        """y [rows, n_out] = x w^T; x and w: numbers and scales, those of w for blocks [rows, columns]."""
        product = F8Linear(RoundedRows(x[0].data_ptr(), x[1].data_ptr(), *x[0].shape),
                           ScaledMatrix(w[0].data_ptr(), *w[0].shape, w[1].data_ptr(), *block, 0),
                           bias.data_ptr() if bias is not None else None, y.data_ptr(), add)
        self.call("f8_linear", ctypes.byref(product))

    def log_sum_exp(self, asking, keys, z):
        self.call("log_sum_exp", ctypes.byref(asking), ctypes.byref(keys), ctypes.c_void_p(z.data_ptr()))

    def score_workspace(self, asking):
        n = ctypes.c_size_t()
        if self.lib.starattn_score_workspace(ctypes.byref(asking), ctypes.byref(n)):
            raise RuntimeError(self.lib.starattn_last_error().decode())
        return torch.empty(n.value, dtype=torch.uint8, device="cuda")

    def score_keys(self, asking, z, keys, scores, workspace):
        self.call("score_keys", ctypes.byref(asking), ctypes.c_void_p(z.data_ptr()), ctypes.byref(keys),
                  ctypes.c_void_p(scores.data_ptr()), ctypes.c_void_p(workspace.data_ptr()))

    def choose_best(self, scores, best, best_scores):
        self.call("choose_best", ctypes.c_void_p(scores.data_ptr()), ctypes.c_int64(scores.numel()),
                  ctypes.c_int64(best.numel()), ctypes.c_void_p(best.data_ptr()),
                  ctypes.c_void_p(best_scores.data_ptr()))


def make_asking(q, k):
    """q [rows, heads, d] that asks keys k [tokens, kv_heads, d]; values are not read."""
    asking = Asking(Shape(q.shape[1], k.shape[1], q.shape[2]), q.data_ptr(), q.shape[0], 1 / math.sqrt(q.shape[2]))
    return asking, Segment(k.data_ptr(), k.data_ptr(), k.shape[0])


def make_input(q, segments, causal):
    """q [rows, heads, d]; segments: list of (k, v), each [tokens, kv_heads, d]."""
    array = (Segment * MAX_SEGMENTS)()
    for i, (k, v) in enumerate(segments):
        array[i] = Segment(k.data_ptr(), v.data_ptr(), k.shape[0])
    kv_heads = segments[0][0].shape[1]
    inp = Input(Shape(q.shape[1], kv_heads, q.shape[2]), q.data_ptr(), q.shape[0], q.stride(0),
                array, len(segments), causal, 1 / math.sqrt(q.shape[2]))
    inp.keep = (q, segments, array)
    return inp


def make_f8_input(q, k, v, kv_heads):
    """The same of one segment whose keys and values are FP8 rows."""
    inp = make_input(q, [(k.view(k.shape[0], 1, -1), v)], False)
    inp.shape.n_kv_heads, inp.is_f8 = kv_heads, True
    return inp


def poisoned(*shape, dtype=torch.float32):
    return torch.full(shape, float("nan"), dtype=dtype, device="cuda")


def make_partial(n_rows, n_heads, d):
    tensors = poisoned(n_rows, n_heads, d), poisoned(n_rows, n_heads), poisoned(n_rows, n_heads)
    return tensors, Partial(*(t.data_ptr() for t in tensors))


def random(*shape, spread=1.0):
    return (torch.randn(*shape, device="cuda") * spread).bfloat16()


def reference(q, segments, causal):
    """float64: out [rows, heads, d], m and l [rows, heads] of the scaled scores."""
    n, heads, d = q.shape
    k = torch.cat([k for k, _ in segments]).double()
    v = torch.cat([v for _, v in segments]).double()
    group = heads // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = torch.einsum("qhd,khd->hqk", q.double(), k) / math.sqrt(d)
    if causal:
        own = segments[-1][0].shape[0]
        row = torch.arange(n, device="cuda")[:, None]
        key = torch.arange(k.shape[0], device="cuda")[None, :] - (k.shape[0] - own)
        s.masked_fill_(key > own - n + row, -math.inf)
    m = s.amax(-1) if k.shape[0] else torch.full(s.shape[:2], -math.inf, device="cuda")
    p = torch.exp(s - torch.where(m == -math.inf, 0, m)[..., None])
    l = p.sum(-1)
    o = torch.einsum("hqk,khd->qhd", p, v)
    return o, m.T, l.T


def error(x, ref):
    x = x.double()
    if not torch.isfinite(x).all():
        return math.inf
    return ((x - ref).norm() / ref.norm().clamp_min(1e-30)).item()


# rows, segment lengths, causal, heads, kv heads, d
CASES = [
    (128, [128], False, 4, 4, 128), (128, [128], True, 4, 4, 128), (1, [1], True, 8, 2, 128),
    (7, [300], False, 8, 2, 128), (257, [257], True, 8, 2, 128), (1000, [1000], True, 32, 8, 128),
    (513, [129, 513], True, 8, 2, 128), (300, [64, 1, 700, 300], True, 8, 1, 128),
    (300, [1024, 2048], False, 16, 4, 128), (129, [100, 400], True, 14, 2, 128),
    (65, [31, 65], True, 6, 2, 128), (300, [200], True, 8, 2, 128), (2049, [511, 3000], True, 8, 8, 128),
    (4096, [4096, 4096], True, 4, 1, 128), (77, [333], False, 5, 1, 128),
]
CASES += [case[:5] + (64,) for case in CASES]


def check(kernels):
    worst = 0
    for n, lengths, causal, heads, kv_heads, d in CASES:
        q = random(n, heads, d, spread=2)
        segments = [(random(t, kv_heads, d), random(t, kv_heads, d)) for t in lengths]
        ref_o, ref_m, ref_l = reference(q, segments, causal)
        ref = torch.where(ref_l[..., None] == 0, 0, ref_o / ref_l[..., None])
        out, lse = poisoned(n, heads, d, dtype=torch.bfloat16), poisoned(n, heads)
        kernels.prefill(make_input(q, segments, causal), Output(out.data_ptr(), lse.data_ptr()))
        (o, m, l), partial = make_partial(n, heads, d)
        kernels.prefill(make_input(q, segments, causal), Output(None, None, partial))
        (o2, m2, l2), partial2 = make_partial(n, heads, d)
        inp = make_input(q, segments, causal)
        work = kernels.workspace(inp)
        work.fill_(255)
        kernels.partial(inp, partial2, work)
        torch.cuda.synchronize()
        seen = ref_l > 0
        ok_empty = bool((lse[~seen] == -math.inf).all() and (l[~seen] == 0).all()
                        and (m2[~seen] == -math.inf).all() and (o2[~seen] == 0).all())
        ref_lse = (ref_m + ref_l.log())[seen]
        errors = [error(out, ref), (lse[seen] - ref_lse).abs().max().item(),
                  error(o, ref_o), (m[seen] - ref_m[seen]).abs().max().item(),
                  error(l, ref_l), error(o2, ref_o), (m2[seen] - ref_m[seen]).abs().max().item(),
                  error(l2, ref_l)]
        good = ok_empty and errors[0] < 6e-3 and errors[1] < 1e-3 and errors[2] < 6e-3 and \
            errors[3] < 1e-4 and errors[4] < 1e-4 and errors[5] < 6e-3 and errors[6] < 1e-4 and errors[7] < 1e-4
        worst += not good
        if not good or os.environ.get("VERBOSE"):
            print("ok  " if good else "BAD ", kernels.name, n, lengths, causal, heads, kv_heads, d,
                  " ".join(f"{e:.1e}" for e in errors), "" if ok_empty else "empty rows wrong", flush=True)
    # One row alone has the bits that it has among others.
    for d in (64, 128):
        segments = [(random(5000, 2, d), random(5000, 2, d))]
        q = random(100, 8, d)
        results = []
        for rows in (slice(0, 100), slice(20, 21), slice(11, 31), slice(3, 27)):
            (o, m, l), partial = make_partial(q[rows].shape[0], 8, d)
            inp = make_input(q[rows].contiguous(), segments, False)
            kernels.partial(inp, partial, kernels.workspace(inp))
            at = 20 - rows.start
            torch.cuda.synchronize()
            results.append(torch.cat([o[at].flatten(), m[at], l[at]]))
        same = all(torch.equal(results[0], r) for r in results[1:])
        worst += not same
        print(kernels.name, "d", d, "a row's bits among others:", "same" if same else "DIFFERENT")
    print(kernels.name, "check:", "ok" if not worst else f"{worst} of {len(CASES)} BAD", flush=True)
    return worst


def check_recall(kernels):
    """z, scores and the choice of recall (kernels/recall.h)."""
    n_bad = 0
    for n, n_seen, n_keys, heads, kv_heads, d in [
            (64, 300, 1000, 6, 2, 64), (1, 1, 1, 8, 8, 128), (129, 257, 4097, 8, 2, 128), (200, 64, 777, 14, 2, 128),
            (1024, 2048, 8192, 32, 8, 128), (65, 130, 129, 6, 2, 64)]:
        q = random(n, heads, d, spread=2)
        seen, k = random(n_seen, kv_heads, d), random(n_keys, kv_heads, d)
        s = lambda keys: torch.einsum("qhd,khd->qhk", q.double(),
                                      keys.double().repeat_interleave(heads // kv_heads, 1)) / math.sqrt(d)
        ref_z = s(seen).logsumexp(-1)
        z, scores = poisoned(n, heads), poisoned(n_keys)
        asking, segment = make_asking(q, seen)
        kernels.log_sum_exp(asking, segment, z)
        asking, segment = make_asking(q, k)
        work = kernels.score_workspace(asking)
        work.fill_(255)
        kernels.score_keys(asking, z, segment, scores, work)
        torch.cuda.synchronize()
        ref = (s(k) - z.double()[..., None]).clamp_max(80).exp().amax(0).mean(0)
        errors = [(z - ref_z).abs().max().item(), error(scores, ref)]
        n_best = max(1, n_keys // 3)
        best, best_scores = torch.full((n_best,), -1, dtype=torch.int32, device="cuda"), poisoned(n_best)
        scores[: n_keys // 2] = scores[: n_keys // 2].round(decimals=1)  # many equals: of these the earlier
        kernels.choose_best(scores, best, best_scores)
        wanted = scores.sort(descending=True, stable=True).indices[:n_best].sort().values
        right = torch.equal(best.long(), wanted) and torch.equal(best_scores, scores[wanted])
        good = errors[0] < 1e-3 and errors[1] < 1e-3 and right
        n_bad += not good
        if not good or os.environ.get("VERBOSE"):
            print("ok  " if good else "BAD ", kernels.name, "recall", n, n_seen, n_keys, heads, kv_heads, d,
                  " ".join(f"{e:.1e}" for e in errors), "" if right else "other tokens chosen", flush=True)
    print(kernels.name, "check of recall:", "ok" if not n_bad else f"{n_bad} BAD", flush=True)
    return n_bad


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


def check_f8(kernels):
    """FP8 rows against torch's own FP8, and attention to them against that to the same numbers in bf16."""
    worst = 0
    if torch.cuda.get_device_capability()[0] != 9 or os.environ.get("STARATTN_KERNELS") == "sm80":
        return worst  # others widen first
    for n, rows, heads, kv_heads, d in [(1, 1, 4, 2, 64), (130, 3, 8, 1, 128), (5000, 1, 32, 8, 128),
                                        (9000, 7, 32, 8, 128), (4111, 40, 40, 20, 64), (20000, 64, 32, 4, 128)]:
        sizes = torch.randn(n, kv_heads, 1, device="cuda").mul(2).exp()
        k, v = ((random(n, kv_heads, d) * sizes).bfloat16() for _ in range(2))
        (k8, wide_k), (v8, wide_v) = kernels.narrow(k), kernels.narrow(v)
        exponent = k8[:, kv_heads * d:kv_heads * (d + 1)].float() - 127
        scaled = k.float() * (-exponent).exp2()[:, :, None]
        good = bool((scaled.abs().amax(-1) <= 448).all() and (scaled.abs().amax(-1) > 224).all())
        mine = k8[:, :kv_heads * d].view(torch.float8_e4m3fn).view(n, kv_heads, d)
        good &= torch.equal(mine.float(), scaled.to(torch.float8_e4m3fn).float())
        good &= torch.equal(wide_k.float(), mine.float() * exponent.exp2()[:, :, None])
        q = random(rows, heads, d, spread=2)
        results = []
        for inp in (make_f8_input(q, k8, v8, kv_heads), make_input(q, [(wide_k, wide_v)], False)):
            tensors, partial = make_partial(rows, heads, d)
            kernels.block(inp, partial, kernels.block_workspace(inp))
            torch.cuda.synchronize()
            results.append(torch.cat([t.flatten() for t in tensors]))
        good &= torch.equal(*results) and bool(torch.isfinite(results[0]).all())
        worst += not good
        if not good:
            print("BAD ", kernels.name, "FP8", n, rows, heads, kv_heads, d, flush=True)
    print(kernels.name, "check of FP8:", "ok" if not worst else f"{worst} BAD", flush=True)
    return worst


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
                keep.append(f8)

                def make_f8(lib=lib, partial=partial, f8=f8):
                    inputs = [make_f8_input(q, k, v, kv_heads) for k, v in f8]
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


def random_f8(n_out, n_in, block):
    """A matrix in FP8 with a scale for each block, of numbers that a trained one might have."""
    w = torch.randn(n_out, n_in, device="cuda").mul_(100).clamp_(-448, 448).to(torch.float8_e4m3fn)
    scales = torch.rand(-(-n_out // block[0]), -(-n_in // block[1]), device="cuda").add_(0.5).div_(100 * n_in ** 0.5)
    return w, scales


def check_products(kernels):
    """Rounded rows against torch's own FP8; products of them against float64, and a row's bits alone."""
    worst = 0
    if torch.cuda.get_device_capability()[0] != 9 or os.environ.get("STARATTN_KERNELS") == "sm80":
        return worst  # others widen first
    whole = 1 << 20
    for rows, n_out, n_in, block, has_bias, add in [
            (1, 8, 16, (1, whole), False, False), (300, 136, 144, (1, whole), True, True),
            (512, 256, 128, (whole, whole), False, False), (257, 264, 1040, (24, whole), True, False),
            (700, 640, 1152, (128, 128), False, True), (2048, 1000, 4096, (256, 384), True, True),
            (8192, 4096, 4096, (128, 128), False, False), (4500, 14336, 4096, (1, whole), False, False),
            (8191, 4096, 14336, (1, whole), False, True)]:
        block = min(block[0], n_out), min(block[1], n_in)
        x = (torch.randn(rows, n_in, device="cuda") * torch.randn(rows, 1, device="cuda").mul(2).exp()).bfloat16()
        x8, x_scales = kernels.round(x)
        scaled = x.float() / x_scales[:, None]
        good = bool((scaled.abs().amax(1) <= 448).all() and (scaled.abs().amax(1) > 224).all())
        good &= bool((x_scales.log2() == x_scales.log2().round()).all())
        good &= torch.equal(x8.float(), scaled.to(torch.float8_e4m3fn).float())
        w, w_scales = random_f8(n_out, n_in, block)
        bias = random(n_out) if has_bias else None
        before = random(rows, n_out) if add else poisoned(rows, n_out, dtype=torch.bfloat16)
        y = before.clone()
        kernels.f8_linear((x8, x_scales), (w, w_scales), block, y, bias, add)
        torch.cuda.synchronize()
        wide = w_scales.double().repeat_interleave(block[0], 0)[:n_out].repeat_interleave(block[1], 1)[:, :n_in] * w.double()
        expected = (x8.double() * x_scales[:, None].double()) @ wide.T
        size = expected.abs().amax(1, keepdim=True)  # of a row: its scale is its own
        if has_bias:
            expected += bias.double()
        if add:
            expected += before.double()
        error = ((y.double() - expected).abs() - expected.abs() * 2 ** -8) / size
        good &= bool(torch.isfinite(y).all()) and error.max().item() < 1e-3
        first, n = rows // 3, min(rows - rows // 3, 77)
        part = before[first:first + n].clone()
        kernels.f8_linear((x8[first:first + n].contiguous(), x_scales[first:first + n].contiguous()), (w, w_scales),
                          block, part, bias, add)
        good &= torch.equal(part, y[first:first + n])
        worst += not good
        print("ok  " if good else "BAD ", kernels.name, "FP8 product", rows, n_out, n_in, block,
              f"error beyond rounding to bf16 {error.max().item():.1e}", flush=True)
    return worst


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


class ThinOutput(ctypes.Structure):
    _fields_ = [("w", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("plus", ctypes.c_void_p),
                ("y", ctypes.c_void_p), ("n_out", ctypes.c_int64), ("scales", ctypes.c_void_p),
                ("block_rows", ctypes.c_int64), ("block_cols", ctypes.c_int64), ("first_row", ctypes.c_int64)]


class ThinLinear(ctypes.Structure):
    _fields_ = [("x", ctypes.c_void_p), ("n_rows", ctypes.c_int64), ("n_in", ctypes.c_int64),
                ("kind", ctypes.c_int), ("n_outputs", ctypes.c_int), ("outputs", ThinOutput * 3)]


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
    for rows in (1, 8, 16, 32):
        contenders = {}
        for n_out, n_in in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)):
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
