# SPDX-License-Identifier: Apache-2.0
"""A small Llama in PyTorch: fp32 weights, bf16 arithmetic, and Hugging Face's names on disk."""
import json
import math
import os
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Shape:
    vocab: int = 2304
    hidden: int = 384
    layers: int = 8
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 64
    mlp: int = 768
    rope_theta: float = 500000.0
    eps: float = 1e-5


def linear(x, weight):
    return F.linear(x, weight.to(torch.bfloat16))


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        out_std = 0.02 / math.sqrt(2 * shape.layers)
        self.input_norm = nn.Parameter(torch.ones(shape.hidden))
        self.q = nn.Parameter(0.02 * torch.randn(width, shape.hidden))
        self.k = nn.Parameter(0.02 * torch.randn(kv_width, shape.hidden))
        self.v = nn.Parameter(0.02 * torch.randn(kv_width, shape.hidden))
        self.o = nn.Parameter(out_std * torch.randn(shape.hidden, width))
        self.mlp_norm = nn.Parameter(torch.ones(shape.hidden))
        self.gate = nn.Parameter(0.02 * torch.randn(shape.mlp, shape.hidden))
        self.up = nn.Parameter(0.02 * torch.randn(shape.mlp, shape.hidden))
        self.down = nn.Parameter(out_std * torch.randn(shape.hidden, shape.mlp))

    def norm(self, x, weight):
        return F.rms_norm(x.float(), (self.shape.hidden,), weight, self.shape.eps).bfloat16()

    def heads(self, x, weight, n_heads):
        return linear(x, weight).unflatten(-1, (n_heads, self.shape.head_dim)).transpose(1, 2)

    def forward(self, x, cos, sin):  # x [n_rows, length, hidden] bf16; cos, sin [length, head_dim]
        a = self.norm(x, self.input_norm)
        q = rotate(self.heads(a, self.q, self.shape.heads), cos, sin)
        k = rotate(self.heads(a, self.k, self.shape.kv_heads), cos, sin)
        v = self.heads(a, self.v, self.shape.kv_heads)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + linear(a.transpose(1, 2).flatten(2), self.o)
        a = self.norm(x, self.mlp_norm)
        return x + linear(F.silu(linear(a, self.gate)) * linear(a, self.up), self.down)


def rotate(x, cos, sin):
    low, high = x.float().chunk(2, dim=-1)
    return (x * cos + torch.cat((-high, low), dim=-1) * sin).bfloat16()


class Network(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.table = nn.Parameter(0.02 * torch.randn(shape.vocab, shape.hidden))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))

    def angles(self, length):
        pairs = torch.arange(0, self.shape.head_dim, 2, dtype=torch.float64)
        frequency = self.shape.rope_theta ** (-pairs / self.shape.head_dim)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos().float().to(self.table.device), angle.sin().float().to(self.table.device)

    def forward(self, tokens, cos, sin):  # [n_rows, length] -> bf16 [n_rows, length, hidden]
        x = F.embedding(tokens, self.table).bfloat16()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return x

    def loss(self, x, targets, weights):
        """The weighted mean of the cross entropy, and which targets would have been guessed."""
        x = F.rms_norm(x.float(), (self.shape.hidden,), self.norm, self.shape.eps).bfloat16()
        logits = linear(x, self.table).float().flatten(0, 1)
        losses = F.cross_entropy(logits, targets.flatten(), reduction="none")
        weights = weights.flatten()
        return (losses * weights).sum() / weights.sum(), logits.argmax(-1) == targets.flatten()

    def stored(self):
        """Hugging Face's names of the weights."""
        names = {"model.embed_tokens.weight": self.table, "model.norm.weight": self.norm}
        of_layer = {"input_norm": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj",
                    "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj",
                    "mlp_norm": "post_attention_layernorm", "up": "mlp.up_proj",
                    "down": "mlp.down_proj"}
        for i, layer in enumerate(self.layers):
            for name, weight in layer.named_parameters():
                names[f"model.layers.{i}.{of_layer[name]}.weight"] = weight
        return names

    @torch.no_grad()
    def load(self, folder):
        """The weights of a model of this shape that `save` wrote."""
        from safetensors.torch import load_file
        found, wanted = load_file(os.path.join(folder, "model.safetensors")), self.stored()
        if found.keys() != wanted.keys():
            raise ValueError(f"{folder} has not this network's weights: "
                             f"{sorted(found.keys() ^ wanted.keys())[:3]}")
        for name, weight in wanted.items():
            if found[name].shape != weight.shape:
                raise ValueError(f"{folder}: {name} has the shape {tuple(found[name].shape)}, "
                                 f"not {tuple(weight.shape)}")
            weight.copy_(found[name])

    def save(self, folder, positions, begin, end):
        """config.json and model.safetensors, bf16, as transformers reads them; the weights are there whole."""
        from safetensors.torch import save_file
        save_file({name: weight.detach().bfloat16().cpu().contiguous()
                   for name, weight in self.stored().items()},
                  os.path.join(folder, "model.safetensors.part"), {"format": "pt"})
        os.replace(os.path.join(folder, "model.safetensors.part"),
                   os.path.join(folder, "model.safetensors"))
        s = self.shape
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                  "vocab_size": s.vocab, "hidden_size": s.hidden, "intermediate_size": s.mlp,
                  "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
                  "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim,
                  "max_position_embeddings": positions, "rope_theta": s.rope_theta,
                  "rms_norm_eps": s.eps, "tie_word_embeddings": True, "hidden_act": "silu",
                  "torch_dtype": "bfloat16", "bos_token_id": begin, "eos_token_id": end}
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2)
            file.write("\n")
