# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of a decode step: norms, RoPE, SwiGLU, products of few rows, attention in splits."""
import triton
import triton.language as tl


@triton.jit
def add_norm_kernel(h, delta, weight, out, width, eps, ADDS: tl.constexpr, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    mask = cols < width
    x = tl.load(h + row * width + cols, mask=mask, other=0).to(tl.float32)
    if ADDS:
        x += tl.load(delta + row * width + cols, mask=mask, other=0).to(tl.float32)
        x = x.to(tl.bfloat16).to(tl.float32)
        tl.store(h + row * width + cols, x.to(tl.bfloat16), mask=mask)
    scale = 1 / tl.sqrt(tl.sum(x * x) / width + eps)
    tl.store(out + row * width + cols,
             (x * scale * tl.load(weight + cols, mask=mask, other=0).to(tl.float32)).to(tl.bfloat16), mask=mask)


@triton.jit
def rope_kernel(qkv, cos, sin, q, own_k, own_v, n_queries, n_own, HEADS: tl.constexpr, KV: tl.constexpr,
                D: tl.constexpr):
    """qkv [queries, heads + 2 kv, d] -> q [kv, queries * group, d], the last own token's k and v"""
    query, head = tl.program_id(0), tl.program_id(1)
    half = tl.arange(0, D // 2)
    source = qkv + (query * (HEADS + 2 * KV) + head) * D
    a, b = tl.load(source + half), tl.load(source + D // 2 + half)
    if head < HEADS + KV:
        c, s = tl.load(cos + half), tl.load(sin + half)
        x, y = a.to(tl.float32), b.to(tl.float32)
        a, b = (x * c - y * s).to(tl.bfloat16), (y * c + x * s).to(tl.bfloat16)
    GROUP: tl.constexpr = HEADS // KV
    if head < HEADS:
        to = q + ((head // GROUP * n_queries + query) * GROUP + head % GROUP) * D
    elif head < HEADS + KV:
        to = own_k + ((query * KV + head - HEADS) * n_own + n_own - 1) * D
    else:
        to = own_v + ((query * KV + head - HEADS - KV) * n_own + n_own - 1) * D
    tl.store(to + half, a)
    tl.store(to + D // 2 + half, b)


@triton.jit
def swiglu_kernel(gate_up, out, width, BLOCK: tl.constexpr):
    row, cols = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = cols < width
    gate = tl.load(gate_up + row * 2 * width + cols, mask=mask, other=0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + cols, mask=mask, other=0).to(tl.float32)
    tl.store(out + row * width + cols, (gate * tl.sigmoid(gate) * up).to(tl.bfloat16), mask=mask)


@triton.jit
def thin_kernel(x, w, y, n_rows, n_out, n_in, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """y [rows, out] = x [rows, in] w^T, for few rows: one pass over w [out, in]"""
    rows, outs, ks = tl.arange(0, BM), tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BK)
    sums = tl.zeros([BM, BN], tl.float32)
    for k in range(0, n_in, BK):
        a = tl.load(x + rows[:, None] * n_in + k + ks[None, :], mask=rows[:, None] < n_rows, other=0)
        b = tl.load(w + outs[None, :].to(tl.int64) * n_in + k + ks[:, None])
        sums = tl.dot(a, b, sums)
    tl.store(y + rows[:, None] * n_out + outs[None, :], sums.to(y.dtype.element_ty), mask=rows[:, None] < n_rows)


@triton.jit
def decode_kernel(q, k, v, o, lse, n_rows, n_keys, keys_a_split, head_stride, scale, BM: tl.constexpr,
                  BN: tl.constexpr, D: tl.constexpr):
    """Split-K attention: o [splits, kv, rows, d] of a split's keys, lse [splits, kv, rows] to base 2"""
    split, kv, n_kv = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    rows, ds = tl.program_id(2) * BM + tl.arange(0, BM), tl.arange(0, D)
    queries = tl.load(q + (kv * n_rows + rows)[:, None] * D + ds[None, :], mask=rows[:, None] < n_rows, other=0)
    most = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    sums = tl.zeros([BM, D], tl.float32)
    first = split * keys_a_split
    end = tl.minimum(first + keys_a_split, n_keys)
    k += kv * head_stride
    v += kv * head_stride
    for j in range(first, end, BN):
        keys = j + tl.arange(0, BN)
        kt = tl.load(k + keys[None, :] * D + ds[:, None], mask=keys[None, :] < end, other=0)
        s = tl.where(keys[None, :] < end, tl.dot(queries, kt) * scale, -float("inf"))
        higher = tl.maximum(most, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(most - higher)
        total = total * shrink + tl.sum(p, 1)
        vt = tl.load(v + keys[:, None] * D + ds[None, :], mask=keys[:, None] < end, other=0)
        sums = tl.dot(p.to(vt.dtype), vt, sums * shrink[:, None])
        most = higher
    place = (split * n_kv + kv) * n_rows + rows
    tl.store(o + place[:, None] * D + ds[None, :], sums / total[:, None], mask=rows[:, None] < n_rows)
    tl.store(lse + place, most + tl.log2(total), mask=rows < n_rows)


@triton.jit
def combine_kernel(o, lse, q, own_k, own_v, out, n_splits, n_rows, n_own, scale, lse_scale, KV: tl.constexpr,
                   GROUP: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, OWN: tl.constexpr):
    """The splits' partial results and the query's own tokens, one head of one query: out [queries, heads, d]"""
    query, head = tl.program_id(0), tl.program_id(1)
    kv, row = head // GROUP, query * GROUP + head % GROUP
    ds, splits, owns = tl.arange(0, D), tl.arange(0, SPLITS), tl.arange(0, OWN)
    place = (splits * KV + kv) * n_rows + row
    of_splits = tl.load(lse + place, mask=splits < n_splits, other=-float("inf")) * lse_scale
    x = tl.load(q + (kv * n_rows + row) * D + ds).to(tl.float32)
    own = ((query * KV + kv) * n_own + owns)[:, None] * D + ds[None, :]
    mask = owns < n_own
    s = tl.sum(tl.load(own_k + own, mask=mask[:, None], other=0).to(tl.float32) * x[None, :], 1) * scale
    s = tl.where(mask, s, -float("inf"))
    most = tl.maximum(tl.max(of_splits), tl.max(s))
    a, b = tl.exp2(of_splits - most), tl.exp2(s - most)
    parts = tl.load(o + place[:, None] * D + ds[None, :], mask=splits[:, None] < n_splits, other=0).to(tl.float32)
    values = tl.load(own_v + own, mask=mask[:, None], other=0).to(tl.float32)
    sums = tl.sum(a[:, None] * parts, 0) + tl.sum(b[:, None] * values, 0)
    tl.store(out + (query * KV * GROUP + head) * D + ds, (sums / (tl.sum(a) + tl.sum(b))).to(tl.bfloat16))
