# SPDX-License-Identifier: Apache-2.0
"""The kernels against float64 references, on fresh random data. Each check returns how many cases are wrong."""
import math
import os

import torch

from gpu_kernels import Output, make_asking, make_f8_input, make_input, make_partial, poisoned, random, random_f8


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
        exponents = kernels.lay_out_exponents(k8, v8, kv_heads, d)
        for inp in (make_f8_input(q, k8, v8, None, kv_heads), make_f8_input(q, k8, v8, exponents, kv_heads),
                    make_input(q, [(wide_k, wide_v)], False)):
            tensors, partial = make_partial(rows, heads, d)
            kernels.block(inp, partial, kernels.block_workspace(inp))
            torch.cuda.synchronize()
            results.append(torch.cat([t.flatten() for t in tensors]))
        good &= all(torch.equal(x, results[0]) for x in results) and bool(torch.isfinite(results[0]).all())
        worst += not good
        if not good:
            print("BAD ", kernels.name, "FP8", n, rows, heads, kv_heads, d, flush=True)
    print(kernels.name, "check of FP8:", "ok" if not worst else f"{worst} BAD", flush=True)
    return worst


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
