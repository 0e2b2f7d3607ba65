#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a tiny random model of every supported family and writes the logits that `transformers` gives in fp32.

usage: make_model_goldens.py OUTPUT_FOLDER [PILOT_MODEL]
needs: torch, transformers
"""
import json
import os
import shutil
import sys

import torch
import transformers
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

SIZES = dict(vocab_size=160, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=4096)

MODELS = {
    "llama31": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=16, tie_word_embeddings=True, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}), torch.bfloat16, None),
    "llama2_linear": (LlamaForCausalLM, LlamaConfig(**{**SIZES, "num_key_value_heads": 4, "hidden_size": 64}, rms_norm_eps=1e-5, rope_parameters={
        "rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}), torch.float32, None),
    "llama_yarn_bias": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=32, attention_bias=True, mlp_bias=True, rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 32}), torch.float32, None),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**{**SIZES, "hidden_size": 64}, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
              torch.float32, "40KB"),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True), torch.float16, None),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=16, sliding_window=None), torch.float32, None),
}


def golden(model, tokens):
    """Logits of the last three positions, in fp32, without a cache."""
    model = model.float().eval()
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -3:]
    rotary = model.model.rotary_emb
    return {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}, "tokens": tokens,
            "inv_freq": rotary.inv_freq.double().tolist(), "attention_scaling": float(rotary.attention_scaling),
            "logits": [row.tolist() for row in logits]}


def write(path, data):
    with open(path, "w") as f:
        json.dump(data, f)
        f.write("\n")


def old_spelling(folder):
    """transformers 4 wrote rope_scaling, rope_theta and torch_dtype."""
    with open(f"{folder}/config.json") as f:
        config = json.load(f)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    write(f"{folder}/config.json", config)


def main():
    out = sys.argv[1]
    for name, (kind, config, dtype, shards) in MODELS.items():
        torch.manual_seed(len(name))
        model = kind(config)
        with torch.no_grad():
            for key, p in model.named_parameters():
                # Large enough that attention is far from uniform and logits from zero.
                p.normal_(1.0 if "norm" in key else 0.0, 0.1 if "norm" in key or "bias" in key else 1.6 / p.shape[-1] ** 0.5)
        model = model.to(dtype)
        folder = f"{out}/{name}"
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, **({"max_shard_size": shards} if shards else {}))
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(0, SIZES["vocab_size"], (90,), generator=generator).tolist()
        write(f"{folder}/golden.json", golden(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokens))
        if name == "llama2_linear":
            old_spelling(folder)
        for extra in ("generation_config.json",):
            if os.path.exists(f"{folder}/{extra}"):
                os.remove(f"{folder}/{extra}")
    if len(sys.argv) > 2:
        os.makedirs(f"{out}/pilot", exist_ok=True)
        tokens = [2046] + torch.randint(0, 2000, (200,), generator=torch.Generator().manual_seed(2)).tolist()
        write(f"{out}/pilot/golden.json", golden(AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.float32), tokens))


if __name__ == "__main__":
    main()
