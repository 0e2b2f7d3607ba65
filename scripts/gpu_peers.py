#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times Hugging Face transformers on this GPU, at the shape that `starattn bench --shape` has under the same name.

Random bf16 weights, sdpa attention (cuDNN where PyTorch takes it). Prints seconds of prefill, what the
published way of Star Attention (the anchor in front of every block again) would take at that speed with
four blocks and b = a = n/4, milliseconds of a decode step behind the longest context, and peak memory. Of a
mixture, --experts names the way to multiply that transformers is to take.

  gpu_peers.py [--lengths 32,64,128] [--shape 8b|30b-a3b] [--experts grouped_mm] [--device cuda]
"""
import argparse
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3MoeConfig

DENSE = {
    "8b": dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
               num_attention_heads=32, num_key_value_heads=8),
    "tiny": dict(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2),
}
MIXTURES = {
    "30b-a3b": dict(vocab_size=151936, hidden_size=2048, num_hidden_layers=48, num_attention_heads=32,
                    num_key_value_heads=4, head_dim=128, num_experts=128, num_experts_per_tok=8,
                    moe_intermediate_size=768, norm_topk_prob=True),
    "tiny-mixture": dict(vocab_size=512, hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=32, num_experts=8, num_experts_per_tok=2,
                         moe_intermediate_size=64, norm_topk_prob=True),
}
SHAPES = DENSE | MIXTURES


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device, call):
    synchronize(device)
    start = time.perf_counter()
    result = call()
    synchronize(device)
    return time.perf_counter() - start, result


def build(shape, device, n_positions, experts):
    kind, theta = (LlamaConfig, 500000.0) if shape in DENSE else (Qwen3MoeConfig, 1e6)
    config = kind(**SHAPES[shape], max_position_embeddings=n_positions, rope_theta=theta)
    way = {"experts_implementation": experts} if experts else {}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", **way)
    torch.set_default_dtype(before)
    return model.eval()


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="32,64,128", help="in 1024 tokens")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--experts", help="how a mixture's experts are multiplied: eager, batched_mm or grouped_mm")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=8, help="decode steps")
    args = parser.parse_args()
    lengths = sorted({int(1024 * float(x)) for x in args.lengths.split(",")})
    model = build(args.shape, args.device, lengths[-1] + 1024, args.experts)
    tokens = torch.randint(0, model.config.vocab_size, (1, lengths[-1]), device=args.device)
    print(f"peer: transformers {transformers.__version__}, PyTorch {torch.__version__}, shape {args.shape}", flush=True)

    # Logits of the last position alone, as a generation needs them.
    def prefill(n):
        return model(tokens[:, :n], use_cache=True, logits_to_keep=1)

    timed(args.device, lambda: prefill(min(4096, lengths[0])))  # libraries set themselves up
    seconds = {}
    for n in lengths:
        seconds[n], output = timed(args.device, lambda: prefill(n))
        print(f"peer: dense prefill of {n:,} tokens: {seconds[n]:.3f} s", flush=True)
        if n != lengths[-1]:
            del output
    longest = lengths[-1]
    quarter, half = longest // 4, longest // 2
    if quarter in seconds and half in seconds:
        published = seconds[quarter] + 3 * seconds[half]
        print(f"peer: star as published, {longest:,} tokens in 4 blocks, at that speed: {published:.3f} s", flush=True)
    cache = output.past_key_values
    step = tokens[:, :1]
    times = [timed(args.device, lambda: model(step, past_key_values=cache, use_cache=True))[0] for _ in range(args.steps + 1)]
    print(f"peer: decode step behind {longest:,} tokens: {1e3 * sorted(times[1:])[args.steps // 2]:.1f} ms")
    if args.device == "cuda":
        print(f"peer: peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
