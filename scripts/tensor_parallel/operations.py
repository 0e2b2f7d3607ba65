# SPDX-License-Identifier: Apache-2.0
"""The operations of a layer: PyTorch's own, and the fastest of several for each."""
import math

import torch
import torch.nn.functional as F

try:
    import triton

    from . import kernels
except ImportError:  # plain operations remain
    triton = None

EPSILON, LOG2_E = 1e-5, 1.4426950408889634


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
        kernels.add_norm_kernel[(len(h),)](h, delta if delta is not None else h, weight, out, h.shape[1], EPSILON,
                                   ADDS=delta is not None, BLOCK=power_of_two(h.shape[1]), num_warps=8)
        return out

    def rope(self, qkv, cos, sin, own_k, own_v):
        s = self.s
        q = torch.empty(s.kv_heads, self.n_queries * s.heads // s.kv_heads, s.d, device=qkv.device, dtype=qkv.dtype)
        kernels.rope_kernel[(self.n_queries, s.heads + 2 * s.kv_heads)](
            qkv, cos, sin, q, own_k, own_v, self.n_queries, self.n_own, HEADS=s.heads, KV=s.kv_heads, D=s.d, num_warps=1)
        return q

    def swiglu(self, gate_up):
        n, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty(n, width, device=gate_up.device, dtype=gate_up.dtype)
        kernels.swiglu_kernel[(triton.cdiv(width, 1024), n)](gate_up, out, width, BLOCK=1024)
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
        kernels.thin_kernel[(n_out // bn,)](x, w, y, n, n_out, n_in, BM=max(16, power_of_two(n)), BN=bn, BK=bk,
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
        kernels.combine_kernel[(self.n_queries, s.heads)](
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
        kernels.decode_kernel[(splits, s.kv_heads, triton.cdiv(n_rows, bm))](
            q, k, v, o, lse, n_rows, n_keys, keys_a_split, k.stride(0), LOG2_E / math.sqrt(s.d), BM=bm, BN=bn, D=s.d,
            num_warps=warps, num_stages=stages)
        return self.combine(o, lse, 1.0, q, own_k, own_v)

    def attend(self, q, k, v, own_k, own_v):
        return self.attend_by(self.attention, q, k, v, own_k, own_v)
