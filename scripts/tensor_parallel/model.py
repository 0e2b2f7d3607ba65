# SPDX-License-Identifier: Apache-2.0
"""A Llama cut over ranks as Megatron cuts it, and a decode step of it."""
import sys
from dataclasses import dataclass

import torch

THETA = 500000.0  # of RoPE


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


class Model:
    """A rank's part of the weights, of the document's keys and values, and of each query's own."""

    def __init__(self, shape, n_tokens, n_queries, n_own, rank, n_ranks, make, kv_scale):
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
            kv = [columns(s.kv_heads * n_tokens, s.d).view(p.kv_heads, n_tokens, s.d) * kv_scale for _ in range(2)]
            own = [columns(s.kv_heads * n_queries * n_own, s.d).view(p.kv_heads, n_queries, n_own, s.d)
                   .transpose(0, 1).contiguous() * kv_scale for _ in range(2)]
            self.layers.append(dict(qkv=torch.cat((q, k, v)), o=o, gate_up=torch.cat((gate, up)), down=down, norms=norms,
                                    k=kv[0], v=kv[1], own_k=own[0], own_v=own[1]))
        self.norm = 1 + make(s.hidden, 1, whole=True)[:, 0]
        self.head = columns(s.vocab, s.hidden)
        angles = (n_tokens + n_own - 1) / THETA ** (torch.arange(s.d // 2, dtype=torch.float64) * 2 / s.d)
        self.cos, self.sin = (x.float().to(self.embedding.device) for x in (angles.cos(), angles.sin()))

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
