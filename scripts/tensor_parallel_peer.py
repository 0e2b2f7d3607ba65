#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times a decode step with tensor parallelism in PyTorch: what a step of starattn has to stand beside.

The Llama-3.1-8B shape with random bf16 weights, cut as Megatron cuts it: q, k, v, gate and up by columns, o
and down by rows, an all-reduce behind both, the head by its vocabulary. All queries share one document's
keys and values, whose heads are split over the ranks, so that their rows attend to them together; each query
has --own tokens of its own. A whole step is one CUDA graph, from tokens to tokens. Norms, RoPE and SwiGLU are
Triton kernels; each product, the attention and the all-reduce are the fastest of several that are tried here.
The median of --replays replays, one behind the other: the host takes no part, which favours this peer.

  torchrun --nproc-per-node T scripts/tensor_parallel_peer.py [--tokens 8192,131072] [--queries 1,32]
  torchrun --nproc-per-node T scripts/tensor_parallel_peer.py --check [--device cpu]

--check compares T ranks, as they are timed, with one rank and PyTorch's plain operations, on a small shape.
Prints a JSON object a line; what could not be tried stands in `left_out`, with its reason.
"""
import argparse
import json
import math
import os
import statistics
import sys
from dataclasses import dataclass
from datetime import timedelta

# Never the multicast of NVLink.
os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
os.environ.setdefault("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")

import torch
import torch.distributed as dist
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # plain operations remain
    triton = None


@dataclass
class Shape:
    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    kv_heads: int = 8
    d: int = 128
    ffn: int = 14336
    vocab: int = 128256

    def of_rank(self, n_ranks):
        if any(n % n_ranks for n in (self.heads, self.kv_heads, self.ffn, self.vocab)):
            sys.exit(f"the shape cannot be split over {n_ranks} ranks")
        return Shape(self.layers, self.hidden, self.heads // n_ranks, self.kv_heads // n_ranks, self.d,
                     self.ffn // n_ranks, self.vocab // n_ranks)


TINY = Shape(layers=2, hidden=512, heads=8, kv_heads=4, d=64, ffn=1024, vocab=2048)
EPSILON, THETA, LOG2_E = 1e-5, 500000.0, 1.4426950408889634

if triton:
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


class Plain:
    """The operations of a layer in PyTorch's own, on any device."""

    def __init__(self, shape, n_queries, n_own):
        self.s, self.n_queries, self.n_own = shape, n_queries, n_own

    def add_norm(self, h, delta, weight):
        if delta is not None:
            h += delta
        x = h.float()
        return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight.float()).to(h.dtype)

    def linear(self, x, w, out=None):
        return torch.mm(x, w.T, out=out) if out is not None else F.linear(x, w)

    def rope(self, qkv, cos, sin, own_k, own_v):
        s, n = self.s, self.n_queries
        x = qkv.view(n, s.heads + 2 * s.kv_heads, s.d)
        a, b = x[:, : s.heads + s.kv_heads].float().chunk(2, -1)
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(qkv.dtype)
        own_k[:, :, -1] = turned[:, s.heads:]
        own_v[:, :, -1] = x[:, s.heads + s.kv_heads:]
        group = s.heads // s.kv_heads
        return turned[:, : s.heads].reshape(n, s.kv_heads, group, s.d).transpose(0, 1).reshape(s.kv_heads, -1, s.d)

    def attend(self, q, k, v, own_k, own_v):
        s, n = self.s, self.n_queries
        grouped = q.view(s.kv_heads, n, -1, s.d)
        scores = torch.cat((torch.einsum("hqgd,hkd->hqgk", grouped.float(), k.float()),
                            torch.einsum("hqgd,qhkd->hqgk", grouped.float(), own_k.float())), -1)
        p = torch.softmax(scores / math.sqrt(s.d), -1)
        n_keys = k.shape[1]
        out = (torch.einsum("hqgk,hkd->qhgd", p[..., :n_keys], v.float()) +
               torch.einsum("hqgk,qhkd->qhgd", p[..., n_keys:], own_v.float()))
        return out.reshape(n, -1).to(q.dtype)

    def swiglu(self, gate_up):
        gate, up = gate_up.float().chunk(2, -1)
        return (F.silu(gate) * up).to(gate_up.dtype)


def power_of_two(n):
    return 1 << (n - 1).bit_length()


class Fused(Plain):
    """The same as Triton kernels; `attention` and `products` name what was found to be the fastest."""

    def __init__(self, shape, n_queries, n_own):
        super().__init__(shape, n_queries, n_own)
        self.attention, self.products = None, {}

    def add_norm(self, h, delta, weight):
        out = torch.empty_like(h)
        add_norm_kernel[(len(h),)](h, delta if delta is not None else h, weight, out, h.shape[1], EPSILON,
                                   ADDS=delta is not None, BLOCK=power_of_two(h.shape[1]), num_warps=8)
        return out

    def rope(self, qkv, cos, sin, own_k, own_v):
        s = self.s
        q = torch.empty(s.kv_heads, self.n_queries * s.heads // s.kv_heads, s.d, device=qkv.device, dtype=qkv.dtype)
        rope_kernel[(self.n_queries, s.heads + 2 * s.kv_heads)](
            qkv, cos, sin, q, own_k, own_v, self.n_queries, self.n_own, HEADS=s.heads, KV=s.kv_heads, D=s.d, num_warps=1)
        return q

    def swiglu(self, gate_up):
        n, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty(n, width, device=gate_up.device, dtype=gate_up.dtype)
        swiglu_kernel[(triton.cdiv(width, 1024), n)](gate_up, out, width, BLOCK=1024)
        return out

    # --- products ---
    def ways_of_linear(self, n_out, n_in):
        ways = {"cublas": ("cublas",), "cublaslt": ("cublaslt",)}
        for bn, bk, stages, warps in ((16, 256, 4, 4), (32, 128, 5, 4), (32, 256, 3, 4), (64, 128, 4, 4)):
            if n_out % bn == 0 and n_in % bk == 0:
                ways[f"triton {bn}x{bk}"] = ("triton", bn, bk, stages, warps)
        return ways

    def linear_by(self, way, x, w, out=None):
        if way[0] != "triton":
            torch.backends.cuda.preferred_blas_library(way[0])
            return Plain.linear(self, x, w, out)
        _, bn, bk, stages, warps = way
        (n, n_in), n_out = x.shape, w.shape[0]
        y = out if out is not None else torch.empty(n, n_out, device=x.device, dtype=x.dtype)
        thin_kernel[(n_out // bn,)](x, w, y, n, n_out, n_in, BM=max(16, power_of_two(n)), BN=bn, BK=bk,
                                    num_stages=stages, num_warps=warps)
        return y

    def linear(self, x, w, out=None):
        return self.linear_by(self.products.get(tuple(w.shape), ("cublas",)), x, w, out)

    # --- attention ---
    def ways_of_attention(self, n_keys, n_sms):
        ways = {"flash": ("flash",), "cudnn": ("cudnn",)}
        n_rows = self.n_queries * self.s.heads // self.s.kv_heads
        tiles = ([(16, 64, 4, 3), (16, 128, 4, 2)] if n_rows <= 16 else
                 [(128, 64, 8, 3), (128, 128, 8, 2), (64, 64, 4, 3)])
        for bm, bn, warps, stages in tiles:
            n_tiles = self.s.kv_heads * triton.cdiv(n_rows, bm)
            for waves in (1, 2):
                splits = max(1, min(n_sms * waves // n_tiles, n_keys // bn, 128))
                ways[f"triton {bm}x{bn}, {splits} splits"] = ("triton", bm, bn, warps, stages, splits)
        return ways

    def combine(self, o, lse, lse_scale, q, own_k, own_v):
        s = self.s
        n_splits, n_rows = o.shape[0], q.shape[1]
        out = torch.empty(self.n_queries, s.heads * s.d, device=q.device, dtype=q.dtype)
        combine_kernel[(self.n_queries, s.heads)](
            o, lse, q, own_k, own_v, out, n_splits, n_rows, self.n_own, LOG2_E / math.sqrt(s.d), lse_scale, KV=s.kv_heads,
            GROUP=s.heads // s.kv_heads, D=s.d, SPLITS=power_of_two(n_splits), OWN=power_of_two(self.n_own),
            num_warps=8 if n_splits > 16 else 4)
        return out

    def attend_by(self, way, q, k, v, own_k, own_v):
        s, n_rows, n_keys = self.s, q.shape[1], k.shape[1]
        if way[0] == "flash":
            o, lse = torch.ops.aten._scaled_dot_product_flash_attention(q[None], k[None], v[None])[:2]
            return self.combine(o.contiguous(), lse.contiguous(), LOG2_E, q, own_k, own_v)
        if way[0] == "cudnn":
            o, lse = torch.ops.aten._scaled_dot_product_cudnn_attention(q[None], k[None], v[None], None, True)[:2]
            return self.combine(o.contiguous(), lse.contiguous(), LOG2_E, q, own_k, own_v)
        _, bm, bn, warps, stages, splits = way
        keys_a_split = triton.cdiv(triton.cdiv(n_keys, splits), bn) * bn
        splits = triton.cdiv(n_keys, keys_a_split)
        o = torch.empty(splits, s.kv_heads, n_rows, s.d, device=q.device, dtype=torch.float32)
        lse = torch.empty(splits, s.kv_heads, n_rows, device=q.device, dtype=torch.float32)
        decode_kernel[(splits, s.kv_heads, triton.cdiv(n_rows, bm))](
            q, k, v, o, lse, n_rows, n_keys, keys_a_split, k.stride(0), LOG2_E / math.sqrt(s.d), BM=bm, BN=bn, D=s.d,
            num_warps=warps, num_stages=stages)
        return self.combine(o, lse, 1.0, q, own_k, own_v)

    def attend(self, q, k, v, own_k, own_v):
        return self.attend_by(self.attention, q, k, v, own_k, own_v)


# --- all-reduce: buffer() is what the product before it writes, and reduce() returns the sum ---
class NoReduce:
    name = "none"

    def buffer(self, *size, dtype):
        return torch.empty(*size, device=DEVICE, dtype=dtype)

    def reduce(self, x):
        return x


class NcclReduce(NoReduce):
    name = "nccl"

    def reduce(self, x):
        dist.all_reduce(x)
        return x


class OneShotReduce:
    """Symmetric memory without multicast: each rank reads all others' buffers."""
    name = "one shot"

    def __init__(self):
        import torch.distributed._symmetric_memory as symmetric
        self.symmetric, self.buffers = symmetric, {}
        self.group = dist.group.WORLD.group_name

    def buffer(self, *size, dtype):
        # Two in turn, so that what a peer still reads is not overwritten.
        at = (size, dtype)
        if at not in self.buffers:
            pair = [self.symmetric.empty(*size, device=DEVICE, dtype=dtype) for _ in range(2)]
            for x in pair:
                self.symmetric.rendezvous(x, self.group)
            self.buffers[at] = pair
        self.buffers[at].reverse()
        return self.buffers[at][0]

    def reduce(self, x):
        return torch.ops.symm_mem.one_shot_all_reduce(x, "sum", self.group)


class TwoShotReduce(OneShotReduce):
    name = "two shot"

    def reduce(self, x):
        if x.numel() * x.element_size() < 4096:  # it cuts what it sums into a part for each rank
            return OneShotReduce.reduce(self, x)
        torch.ops.symm_mem.two_shot_all_reduce_(x, "sum", self.group)
        return x


class Model:
    """A rank's part of the weights, of the document's keys and values, and of each query's own."""

    def __init__(self, shape, n_tokens, n_queries, n_own, rank, n_ranks, make):
        self.part, self.rank, self.n_ranks = shape.of_rank(n_ranks), rank, n_ranks
        self.n_own = n_own
        s, p = shape, self.part

        def columns(n_out, n_in):  # outputs of this rank
            return make(n_out, n_in)[rank * (n_out // n_ranks):][: n_out // n_ranks]

        def rows(n_out, n_in):  # inputs of this rank
            return make(n_out, n_in)[:, rank * (n_in // n_ranks):][:, : n_in // n_ranks].contiguous()

        self.embedding = make(s.vocab, s.hidden, whole=True)
        self.layers = []
        for _ in range(s.layers):
            q, k, v = columns(s.heads * s.d, s.hidden), columns(s.kv_heads * s.d, s.hidden), columns(s.kv_heads * s.d, s.hidden)
            o = rows(s.hidden, s.heads * s.d)
            gate, up = columns(s.ffn, s.hidden), columns(s.ffn, s.hidden)
            down = rows(s.hidden, s.ffn)
            norms = [1 + make(s.hidden, 1, whole=True)[:, 0] for _ in range(2)]
            kv = [columns(s.kv_heads * n_tokens, s.d).view(p.kv_heads, n_tokens, s.d) * KV_SCALE for _ in range(2)]
            own = [columns(s.kv_heads * n_queries * n_own, s.d).view(p.kv_heads, n_queries, n_own, s.d)
                   .transpose(0, 1).contiguous() * KV_SCALE for _ in range(2)]
            self.layers.append(dict(qkv=torch.cat((q, k, v)), o=o, gate_up=torch.cat((gate, up)), down=down, norms=norms,
                                    k=kv[0], v=kv[1], own_k=own[0], own_v=own[1]))
        self.norm = 1 + make(s.hidden, 1, whole=True)[:, 0]
        self.head = columns(s.vocab, s.hidden)
        angles = (n_tokens + n_own - 1) / THETA ** (torch.arange(s.d // 2, dtype=torch.float64) * 2 / s.d)
        self.cos, self.sin = angles.cos().float().to(DEVICE), angles.sin().float().to(DEVICE)

    def step(self, tokens, n_tokens, ops, reducer):
        """tokens [queries] -> logits of this rank's columns; tokens become the next ones."""
        n, hidden = len(tokens), self.part.hidden
        h = self.embedding[tokens]
        delta = None
        for layer in self.layers:
            x = ops.add_norm(h, delta, layer["norms"][0])
            q = ops.rope(ops.linear(x, layer["qkv"]), self.cos, self.sin, layer["own_k"][:n], layer["own_v"][:n])
            attended = ops.attend(q, layer["k"][:, :n_tokens], layer["v"][:, :n_tokens], layer["own_k"][:n],
                                  layer["own_v"][:n])
            buffer = reducer.buffer(n, hidden, dtype=h.dtype)
            delta = reducer.reduce(ops.linear(attended, layer["o"], buffer))
            x = ops.add_norm(h, delta, layer["norms"][1])
            active = ops.swiglu(ops.linear(x, layer["gate_up"]))
            buffer = reducer.buffer(n, hidden, dtype=h.dtype)
            delta = reducer.reduce(ops.linear(active, layer["down"], buffer))
        logits = ops.linear(ops.add_norm(h, delta, self.norm), self.head)
        values, best = logits.max(-1)
        if self.n_ranks == 1:
            tokens.copy_(best)
            return logits
        # The best of each rank: all others add zeros, which makes the sum a gather.
        pairs = reducer.buffer(self.n_ranks, n, 2, dtype=torch.float32)
        pairs.zero_()
        pairs[self.rank, :, 0] = values.float()
        pairs[self.rank, :, 1] = (best + self.rank * self.part.vocab).float()
        all_pairs = reducer.reduce(pairs)
        winner = all_pairs[:, :, 0].argmax(0)
        tokens.copy_(all_pairs[:, :, 1].gather(0, winner[None])[0].long())
        return logits


DEVICE = torch.device("cpu")
KV_SCALE = 1.0


def reason_of(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def agreed(ok):
    """Whether all ranks could: they go on together or not at all."""
    flag = torch.tensor([1 if ok else 0])
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


def slowest(ms):
    value = torch.tensor([ms], dtype=torch.float64)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value.item()


def graph_of(call, n_warm=2):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(n_warm):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        call()
    return graph


def median_ms(graph, n):
    events = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
    for _ in range(5):
        graph.replay()
    torch.cuda.synchronize()
    agreed(True)  # all begin together
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return slowest(statistics.median(a.elapsed_time(b) for a, b in zip(events, events[1:])))


def fastest(what, ways, call, left_out):
    """The way of `ways` whose call(way) takes least, without other ranks; the same on all of them."""
    times = {}
    for name, way in ways.items():
        try:
            graph, reason = graph_of(lambda: call(way)), None
        except Exception as e:  # a backend refuses a shape in its own ways
            graph, reason = None, reason_of(e)
            torch.cuda.synchronize()
        if agreed(reason is None):
            times[name] = median_ms(graph, 7)
        else:
            left_out[f"{what}: {name}"] = reason or "failed on another rank"
        del graph
    name = min(times, key=times.get)
    return name, ways[name]


def reducers_of(n_ranks, left_out):
    if n_ranks == 1:
        return [NoReduce()]
    found = [NcclReduce()]
    for kind in (OneShotReduce, TwoShotReduce):
        try:
            reducer, reason = kind(), None
            x = reducer.buffer(2, 512, dtype=torch.bfloat16)
            x.fill_(1)
            right = bool((reducer.reduce(x) == n_ranks).all())
            if not right:
                reason = "a wrong sum"
        except Exception as e:
            reason = reason_of(e)
        if agreed(reason is None):
            found.append(reducer)
        else:
            left_out[f"all-reduce: {kind.name}"] = reason or "failed on another rank"
    return found


def time_steps(args, rank, n_ranks):
    shape = Shape(layers=args.layers)
    lengths, counts = args.tokens, args.queries
    generator = torch.Generator(DEVICE).manual_seed(rank)

    def make(n_out, n_in, whole=False):
        # Only what this rank keeps has to differ from zero; a scale of 1 / sqrt(inputs) keeps numbers in bounds.
        return torch.randn(n_out, n_in, device=DEVICE, dtype=torch.bfloat16, generator=generator) / math.sqrt(n_in)

    global KV_SCALE
    KV_SCALE = math.sqrt(shape.d)  # keys and values like those of norms: about 1
    model = Model(shape, max(lengths), max(counts), args.own, rank, n_ranks, make)
    n_sms = torch.cuda.get_device_properties(DEVICE).multi_processor_count
    for n_queries in counts:
        ops = Fused(model.part, n_queries, args.own)
        left_out = {}
        chosen = {}
        reducers = reducers_of(n_ranks, left_out)
        for name in ("qkv", "o", "gate_up", "down", "head"):
            weights = [model.head] if name == "head" else [layer[name] for layer in model.layers[:8]]
            n_out, n_in = weights[0].shape
            x = torch.randn(n_queries, n_in, device=DEVICE, dtype=torch.bfloat16)

            def products(way):
                for w in weights:
                    ops.linear_by(way, x, w)
            chosen[name], ops.products[(n_out, n_in)] = fastest(name, ops.ways_of_linear(n_out, n_in), products, left_out)
        for n_tokens in lengths:
            q = torch.randn(model.part.kv_heads, n_queries * shape.heads // shape.kv_heads, shape.d, device=DEVICE,
                            dtype=torch.bfloat16)

            def attention(way):
                for layer in model.layers[:4]:
                    ops.attend_by(way, q, layer["k"][:, :n_tokens], layer["v"][:, :n_tokens],
                                  layer["own_k"][:n_queries], layer["own_v"][:n_queries])
            chosen["attention"], ops.attention = fastest(
                "attention", ops.ways_of_attention(n_tokens, n_sms), attention, left_out)
            by_reducer, is_finite = {}, True
            for reducer in reducers:
                tokens = torch.randint(0, shape.vocab, (n_queries,), device=DEVICE)
                if n_ranks > 1:
                    dist.broadcast(tokens, 0)
                result = {}

                def step():
                    result["logits"] = model.step(tokens, n_tokens, ops, reducer)
                try:
                    graph, reason = graph_of(step), None
                except Exception as e:
                    graph, reason = None, reason_of(e)
                if not agreed(reason is None):
                    left_out[f"step, all-reduce {reducer.name}"] = reason or "failed on another rank"
                    continue
                by_reducer[reducer.name] = median_ms(graph, args.replays)
                is_finite = is_finite and bool(torch.isfinite(result["logits"]).all())
                del graph
            if not by_reducer:
                if rank == 0:
                    print(json.dumps({"ranks": n_ranks, "tokens": n_tokens, "queries": n_queries, "ms": None,
                                      "left_out": left_out}), flush=True)
                continue
            best = min(by_reducer, key=by_reducer.get)
            if rank == 0:
                print(json.dumps({
                    "peer": "tensor parallel, PyTorch " + torch.__version__, "device": torch.cuda.get_device_name(),
                    "ranks": n_ranks, "tokens": n_tokens, "queries": n_queries, "own_tokens": args.own,
                    "layers": shape.layers, "ms": round(by_reducer[best], 4), "all_reduce": best,
                    "ms_by_all_reduce": {k: round(v, 4) for k, v in by_reducer.items()}, "chosen": chosen,
                    "is_finite": is_finite, "replays": args.replays, "left_out": left_out}), flush=True)


def check(args, rank, n_ranks):
    """T ranks as they are timed beside one rank and plain operations; the largest relative error of all ranks."""
    n_tokens, n_queries, n_own = 300, 3, 4
    dtype = torch.bfloat16
    global KV_SCALE
    KV_SCALE = 8.0

    def model_of(rank, n_ranks):
        generator = torch.Generator().manual_seed(1)

        def make(n_out, n_in, whole=False):
            return (torch.randn(n_out, n_in, generator=generator) / math.sqrt(max(n_in, 64))).to(dtype).to(DEVICE)
        return Model(TINY, n_tokens, n_queries, n_own, rank, n_ranks, make)

    tokens = torch.arange(n_queries, device=DEVICE) * 37
    one = model_of(0, 1)
    expected_tokens = tokens.clone()
    expected = one.step(expected_tokens, n_tokens, Plain(TINY, n_queries, n_own), NoReduce())
    part = TINY.of_rank(n_ranks)
    mine = expected[:, rank * part.vocab:][:, : part.vocab].float()
    left_out, bad = {}, 0
    if DEVICE.type == "cpu":
        variants = [("plain", Plain(part, n_queries, n_own), None)]
        reducers = [NcclReduce() if n_ranks > 1 else NoReduce()]
        reducers[0].name = "gloo" if n_ranks > 1 else "none"
    else:
        variants = [("plain", Plain(part, n_queries, n_own), None)]
        ways = Fused(part, n_queries, n_own).ways_of_attention(n_tokens, 132)
        variants += [(name, Fused(part, n_queries, n_own), way) for name, way in ways.items()]
        reducers = reducers_of(n_ranks, left_out)
    for reducer in reducers:
        for name, ops, way in variants:
            if reducer is not reducers[0] and not name.startswith("triton"):
                continue
            ops.attention = way
            got_tokens, error = tokens.clone(), None
            try:
                got = model_of(rank, n_ranks).step(got_tokens, n_tokens, ops, reducer).float()
                error = ((got - mine).norm() / mine.norm()).item()
            except Exception as e:
                left_out[name] = reason_of(e)
            if not agreed(error is not None):
                continue
            error = slowest(error if error == error else math.inf)
            same = (got_tokens == expected_tokens).float().mean().item()
            is_right = error < 0.03  # bf16 on both sides
            bad += not is_right
            if rank == 0:
                print(json.dumps({"check": name, "all_reduce": reducer.name, "ranks": n_ranks, "relative_error": error,
                                  "same_tokens": same, "right": is_right}), flush=True)
    if DEVICE.type == "cuda":
        for n in (1, 3, 32):
            x = torch.randn(n, 1024, device=DEVICE, dtype=dtype)
            w = torch.randn(512, 1024, device=DEVICE, dtype=dtype)
            ops = Fused(part, n, n_own)
            for name, way in ops.ways_of_linear(512, 1024).items():
                exact = x.double() @ w.double().T
                error = ((ops.linear_by(way, x, w).double() - exact).norm() / exact.norm()).item()
                bad += not error < 0.01
                if rank == 0 and not error < 0.01:
                    print(json.dumps({"check": f"product of {n} rows, {name}", "relative_error": error, "right": False}))
    if rank == 0:
        print(json.dumps({"checks_failed": bad, "left_out": left_out}), flush=True)
    return bad


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: sorted({int(x) for x in text.split(",")})
    parser.add_argument("--tokens", type=numbers, default=[8192, 131072])
    parser.add_argument("--queries", type=numbers, default=[1, 32])
    parser.add_argument("--own", type=int, default=16, help="tokens of each query's own")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--replays", type=int, default=50)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.device == "cpu" and not args.check:
        parser.error("only --check runs on a CPU")
    rank, n_ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29555")):
        os.environ.setdefault(name, value)
    global DEVICE
    backend = "gloo"
    if args.device == "cuda":
        DEVICE = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(DEVICE)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=60))
    bad = check(args, rank, n_ranks) if args.check else time_steps(args, rank, n_ranks)
    sys.stdout.flush()
    agreed(True)
    dist.destroy_process_group()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
