# SPDX-License-Identifier: Apache-2.0
"""The kernels behind C names (tests/kernels/c_api.cpp) as Python sees them, and random data for them."""
import ctypes
import math
import os

import torch

MAX_SEGMENTS = 8


class Shape(ctypes.Structure):
    _fields_ = [("n_heads", ctypes.c_int), ("n_kv_heads", ctypes.c_int), ("head_dim", ctypes.c_int)]


class Segment(ctypes.Structure):
    _fields_ = [("k", ctypes.c_void_p), ("v", ctypes.c_void_p), ("n_tokens", ctypes.c_int64), ("first_seen", ctypes.c_int64),
                ("exponents", ctypes.c_void_p)]

    def __init__(self, k=None, v=None, n_tokens=0):
        super().__init__(k, v, n_tokens, -(1 << 62), None)  # rows see it from its first token on


class Partial(ctypes.Structure):
    _fields_ = [("o", ctypes.c_void_p), ("m", ctypes.c_void_p), ("l", ctypes.c_void_p)]


class Input(ctypes.Structure):
    _fields_ = [("shape", Shape), ("q", ctypes.c_void_p), ("n_rows", ctypes.c_int64),
                ("q_row_stride", ctypes.c_int64), ("segments", ctypes.POINTER(Segment)),
                ("n_segments", ctypes.c_int), ("causal", ctypes.c_bool), ("scale", ctypes.c_float),
                ("is_f8", ctypes.c_bool), ("are_keys_at_rest", ctypes.c_bool)]


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

    def lay_out_exponents(self, k, v, heads, d):
        """Of FP8 rows k and v."""
        n = k.shape[0]
        to = torch.full((2, heads, (n + 31) // 32 * 32), 255, dtype=torch.uint8, device="cuda")
        rows = [F8Rows(x.data_ptr(), n, heads, d) for x in (k, v)]
        self.call("lay_out_exponents", ctypes.byref(rows[0]), ctypes.byref(rows[1]), ctypes.c_void_p(to.data_ptr()))
        return to

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


class ThinOutput(ctypes.Structure):
    _fields_ = [("w", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("plus", ctypes.c_void_p),
                ("y", ctypes.c_void_p), ("n_out", ctypes.c_int64), ("scales", ctypes.c_void_p),
                ("block_rows", ctypes.c_int64), ("block_cols", ctypes.c_int64), ("first_row", ctypes.c_int64)]


class ThinLinear(ctypes.Structure):
    _fields_ = [("x", ctypes.c_void_p), ("n_rows", ctypes.c_int64), ("n_in", ctypes.c_int64),
                ("kind", ctypes.c_int), ("n_outputs", ctypes.c_int), ("outputs", ThinOutput * 3)]


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


def make_f8_input(q, k, v, exponents, kv_heads):
    """The same of one segment whose keys and values are FP8 rows, with their exponents laid out or None."""
    inp = make_input(q, [(k.view(k.shape[0], 1, -1), v)], False)
    inp.shape.n_kv_heads, inp.is_f8 = kv_heads, True
    inp.segments[0].exponents = exponents.data_ptr() if exponents is not None else None
    return inp


def poisoned(*shape, dtype=torch.float32):
    return torch.full(shape, float("nan"), dtype=dtype, device="cuda")


def make_partial(n_rows, n_heads, d):
    tensors = poisoned(n_rows, n_heads, d), poisoned(n_rows, n_heads), poisoned(n_rows, n_heads)
    return tensors, Partial(*(t.data_ptr() for t in tensors))


def random(*shape, spread=1.0):
    return (torch.randn(*shape, device="cuda") * spread).bfloat16()


def random_f8(n_out, n_in, block):
    """A matrix in FP8 with a scale for each block, of numbers that a trained one might have."""
    w = torch.randn(n_out, n_in, device="cuda").mul_(100).clamp_(-448, 448).to(torch.float8_e4m3fn)
    scales = torch.rand(-(-n_out // block[0]), -(-n_in // block[1]), device="cuda").add_(0.5).div_(100 * n_in ** 0.5)
    return w, scales
