#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks `transformers` what a correct reader of models must find, and writes it to a folder of goldens:

  <family>/       a tiny random model as save_pretrained leaves it, and golden.json: its logits in fp32
  demo/           golden.json of a real trained model (whose folder is the second argument)
  rope.json       inverse frequencies and attention scaling of RoPE settings as published models have them
  defaults.json   what config.json means where it says nothing, by family

usage: make_model_goldens.py OUTPUT_FOLDER [DEMO_MODEL_FOLDER]
needs: torch, transformers, tokenizers, safetensors; no GPU; about ten seconds
"""
import json
import os
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, Glm4MoeConfig,
                          Glm4MoeForCausalLM, GptOssConfig, GptOssForCausalLM, GraniteConfig, GraniteForCausalLM,
                          LlamaConfig, LlamaForCausalLM, MiniMaxM2Config, MiniMaxM2ForCausalLM, Mistral3Config,
                          Mistral3ForConditionalGeneration, MistralConfig, MistralForCausalLM, MixtralConfig,
                          MixtralForCausalLM, Olmo2Config, Olmo2ForCausalLM, Olmo3Config, Olmo3ForCausalLM, Phi3Config,
                          Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM, Qwen3VLConfig,
                          Qwen3VLForConditionalGeneration, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration,
                          SeedOssConfig, SeedOssForCausalLM, SmolLM3Config, SmolLM3ForCausalLM)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

VERSIONS = {"transformers": transformers.__version__, "torch": torch.__version__}

# GQA; n_heads * head_dim differs from hidden_size where head_dim is 32.
SIZES = dict(vocab_size=160, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=4096)

LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 32}
EXPERTS = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=32)
ENDS = dict(pad_token_id=None, bos_token_id=1, eos_token_id=2)
PIXTRAL = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "image_size": 32, "patch_size": 16,
           "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 16}
QWEN_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 1, "out_hidden_size": 48,
               "patch_size": 4, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

# folder: (model class, config, dtype on disk, size of a shard or None)
MODELS = {
    "llama31": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=16, tie_word_embeddings=True,
                                              rope_parameters=LLAMA3_ROPE), torch.bfloat16, None),
    "llama2_linear": (LlamaForCausalLM, LlamaConfig(**{**SIZES, "num_key_value_heads": 4, "hidden_size": 64},
                                                    rms_norm_eps=1e-5, rope_parameters=LINEAR_ROPE),
                      torch.float32, None),
    "llama_yarn_bias": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=32, attention_bias=True, mlp_bias=True,
                                                      rope_parameters=YARN_ROPE), torch.float32, None),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**{**SIZES, "hidden_size": 64},
                                            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
              torch.float32, "300KB"),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True), torch.float16, None),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=32, norm_topk_prob=True,
                                                      mlp_only_layers=[1]), torch.bfloat16, None),
    "qwen3_moe_step": (Qwen3MoeForCausalLM, Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=16, decoder_sparse_step=2,
                                                           attention_bias=True, tie_word_embeddings=True),
                       torch.float32, None),
    # Its second layer is dense, and the first one slides.
    "qwen2_moe": (Qwen2MoeForCausalLM, Qwen2MoeConfig(
        **{**SIZES, "hidden_size": 64}, **EXPERTS, shared_expert_intermediate_size=80, mlp_only_layers=[1],
        use_sliding_window=True, sliding_window=21, max_window_layers=2), torch.bfloat16, None),
    # Half of a head is rotated; experts are chosen by corrected sigmoids, and the first layer is dense.
    "glm4_moe": (Glm4MoeForCausalLM, Glm4MoeConfig(
        **SIZES, **ENDS, head_dim=32, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=32,
        n_shared_experts=2, routed_scaling_factor=2.5, attention_bias=True, use_qk_norm=True), torch.bfloat16, None),
    "minimax_m2": (MiniMaxM2ForCausalLM, MiniMaxM2Config(
        **SIZES, **ENDS, head_dim=32, num_local_experts=8, num_experts_per_tok=3, rotary_dim=16), torch.bfloat16,
                   None),
    "granite": (GraniteForCausalLM, GraniteConfig(**{**SIZES, "hidden_size": 64}, tie_word_embeddings=True,
                                                  embedding_multiplier=3.0, residual_multiplier=0.22,
                                                  attention_multiplier=0.4, logits_scaling=0.5),
                torch.bfloat16, None),
    "seed_oss": (SeedOssForCausalLM, SeedOssConfig(**SIZES, head_dim=32, attention_out_bias=True), torch.bfloat16,
                 None),
    "phi3": (Phi3ForCausalLM, Phi3Config(**{**SIZES, "hidden_size": 64}, pad_token_id=None, eos_token_id=2),
             torch.bfloat16, None),
    # As Phi-4-mini: 24 of a head's 32 values are rotated, and the embedding is the head.
    "phi4_mini": (Phi3ForCausalLM, Phi3Config(
        **{**SIZES, "hidden_size": 128}, **ENDS, original_max_position_embeddings=32, tie_word_embeddings=True,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
                         "short_factor": [1.0] * 12, "long_factor": [1.0 + 0.5 * i for i in range(12)]}),
                  torch.bfloat16, None),
    "mistral3": (Mistral3ForConditionalGeneration, Mistral3Config(
        text_config={"model_type": "mistral", **SIZES, "head_dim": 16, "sliding_window": None},
        tie_word_embeddings=False, vision_config=PIXTRAL), torch.bfloat16, None),
    "ministral3": (Mistral3ForConditionalGeneration, Mistral3Config(
        text_config={"model_type": "ministral3", **SIZES, "head_dim": 16, "rope_parameters": {
            **YARN_ROPE, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4}},
        tie_word_embeddings=True, vision_config=PIXTRAL), torch.bfloat16, None),
    "qwen3_vl": (Qwen3VLForConditionalGeneration, Qwen3VLConfig(
        text_config={**SIZES, "head_dim": 32, "rope_parameters": {
            "rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": [6, 5, 5]}},
        vision_config=QWEN_VISION, tie_word_embeddings=True), torch.bfloat16, None),
    # Its first layer is dense.
    "qwen3_vl_moe": (Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeConfig(
        text_config={**SIZES, **EXPERTS, "head_dim": 32, "mlp_only_layers": [0], "rope_parameters": {
            "rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": [6, 5, 5]}},
        vision_config=QWEN_VISION, tie_word_embeddings=False), torch.bfloat16, None),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=16, sliding_window=None), torch.float32, None),
    # Windows that end within the context, across its end, and within the query; the first layers have none.
    "mistral_window": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=16, sliding_window=21), torch.bfloat16,
                       None),
    "qwen2_window": (Qwen2ForCausalLM, Qwen2Config(**{**SIZES, "hidden_size": 64}, use_sliding_window=True,
                                                   sliding_window=40, max_window_layers=1), torch.bfloat16, None),
    "qwen3_window": (Qwen3ForCausalLM, Qwen3Config(
        **SIZES, head_dim=32, use_sliding_window=True, sliding_window=7, layer_types=[
            "sliding_attention", "full_attention", "sliding_attention"]), torch.bfloat16, None),
    # Only layers with RoPE have YaRN's sharper attention.
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config(**{**SIZES, "hidden_size": 64}, **ENDS, no_rope_layer_interval=2,
                                                  rope_parameters=YARN_ROPE), torch.bfloat16, None),
    # Its layers without RoPE slide.
    "smollm3_window": (SmolLM3ForCausalLM, SmolLM3Config(
        **{**SIZES, "hidden_size": 64}, **ENDS, no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=21,
        attention_bias=True, tie_word_embeddings=False), torch.bfloat16, None),
    "mixtral": (MixtralForCausalLM, MixtralConfig(**SIZES, head_dim=16, num_local_experts=8, num_experts_per_tok=3),
                torch.bfloat16, None),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config(**{**SIZES, "hidden_size": 64}, **ENDS), torch.bfloat16, None),
    # YaRN in the third layer alone; the others slide.
    "olmo3": (Olmo3ForCausalLM, Olmo3Config(
        **{**SIZES, "hidden_size": 64, "num_hidden_layers": 4}, **ENDS, sliding_window=21, layer_types=[
            "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"full_attention": YARN_ROPE, "sliding_attention": {
            "rope_type": "default", "rope_theta": 10000.0}}), torch.bfloat16, None),
    # The limit is low enough that numbers reach it.
    "gpt_oss": (GptOssForCausalLM, GptOssConfig(
        **{**SIZES, "hidden_size": 64}, head_dim=16, num_local_experts=8, num_experts_per_tok=3, sliding_window=21,
        swiglu_limit=1.5, rope_parameters={**YARN_ROPE, "rope_theta": 150000.0, "truncate": False}), torch.bfloat16,
                None),
}

# What llm-compressor writes of a scale for each row.
CHANNELS = {
    "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
    "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True,
                                           "dynamic": False},
        "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True,
                              "dynamic": True}}}}

# folder: (of which model, rows and columns of a block or None for all, the scales' ending, what is left as it is,
# quantization_config)
FP8_MODELS = {
    "qwen3_moe_fp8": ("qwen3_moe", 32, 20, "_scale_inv", ["layers.1.mlp.down"], {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [32, 20],
        "modules_to_not_convert": ["lm_head", "model.layers.1.mlp.down_proj"]}),
    "llama_fp8_channel": ("llama31", 1, None, "_scale", ["layers.2.self_attn.o"], {
        **CHANNELS, "ignore": ["lm_head", "model.layers.2.self_attn.o_proj"]}),
    "glm4_moe_fp8": ("glm4_moe", 1, None, "_scale", ["layers.1.mlp.shared_experts.down"], {
        **CHANNELS, "ignore": ["lm_head", "model.layers.1.mlp.shared_experts.down_proj", "re:.*mlp.gate$"]}),
}

# Parts of config.json, in the spelling of transformers 4 and of 5, as published models have them.
LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}
LLAMA32 = {**LLAMA31, "factor": 32.0}
QWEN25 = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
ROPES = {
    "llama2": (128, {"max_position_embeddings": 4096}),
    "llama3": (128, {"max_position_embeddings": 8192, "rope_theta": 500000.0}),
    "llama31": (128, {"max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": LLAMA31}),
    "llama32": (64, {"max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": LLAMA32}),
    "llama32_new": (64, {"max_position_embeddings": 131072,
                         "rope_parameters": {**LLAMA32, "rope_theta": 500000.0}}),
    "llama3_without_original": (64, {"max_position_embeddings": 4096, "rope_theta": 10000.0, "rope_scaling": {
        k: v for k, v in LLAMA31.items() if k != "original_max_position_embeddings"}}),
    "linear": (128, {"max_position_embeddings": 16384, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "theta_10m": (128, {"max_position_embeddings": 1010000, "rope_theta": 10000000.0}),
    "qwen25_yarn": (128, {"max_position_embeddings": 32768, "rope_theta": 1000000.0, "rope_scaling": QWEN25}),
    "yarn_without_original": (128, {"max_position_embeddings": 8192, "rope_theta": 10000.0,
                                    "rope_scaling": {"rope_type": "yarn", "factor": 16.0}}),
    "yarn_original_outside": (128, {"max_position_embeddings": 65536, "original_max_position_embeddings": 4096,
                                    "rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 16.0}}),
    "yarn_factor_null": (128, {"max_position_embeddings": 65536, "rope_theta": 10000.0, "rope_scaling": {
        "rope_type": "yarn", "factor": None, "original_max_position_embeddings": 4096}}),
    "yarn_attention_factor": (64, {"max_position_embeddings": 65536, "rope_theta": 150000.0, "rope_scaling": {
        **QWEN25, "attention_factor": 0.75}}),
    "yarn_mscale": (64, {"max_position_embeddings": 163840, "rope_theta": 10000.0, "rope_scaling": {
        "type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
        "mscale": 1.0, "mscale_all_dim": 0.707}}),
    "yarn_mscale_alone": (64, {"max_position_embeddings": 163840, "rope_theta": 10000.0, "rope_scaling": {
        "type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.707}}),
    "yarn_betas": (64, {"max_position_embeddings": 65536, "rope_theta": 10000.0, "rope_scaling": {
        **QWEN25, "beta_fast": 16.0, "beta_slow": 2.0}}),
    "yarn_no_truncate": (64, {"max_position_embeddings": 131072, "rope_theta": 150000.0, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "original_max_position_embeddings": 4096,
        "truncate": False}}),
}

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
            "mistral": "MistralForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM", "granite": "GraniteForCausalLM",
            "seed_oss": "SeedOssForCausalLM", "phi3": "Phi3ForCausalLM", "smollm3": "SmolLM3ForCausalLM",
            "mixtral": "MixtralForCausalLM", "olmo2": "Olmo2ForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM",
            "glm4_moe": "Glm4MoeForCausalLM", "minimax_m2": "MiniMaxM2ForCausalLM"}
# Whose end token is not among the first 1000.
VOCABULARIES = {"phi3": 40000, "smollm3": 130000, "olmo2": 60000, "minimax_m2": 210000}


def write(path, data):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f)
        f.write("\n")


def sharpness(model, tokens):
    """The mean weight of a row's best key; 3 / n_keys or so would be next to uniform."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(torch.tensor([tokens]), use_cache=False, output_attentions=True).attentions
    return float(torch.stack([a[0, :, len(tokens) // 2:].amax(-1).mean() for a in attentions]).mean())


def kind_of(folder):
    has_pictures = "ConditionalGeneration" in AutoConfig.from_pretrained(folder).architectures[0]
    return AutoModelForImageTextToText if has_pictures else AutoModelForCausalLM


def golden(folder, tokens):
    """Logits of the last three positions: everything widened to fp32, on the CPU, without a cache."""
    kind = kind_of(folder)
    has_pictures = kind is AutoModelForImageTextToText
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -3:]
    rotary = (model.model.language_model if has_pictures else model.model).rotary_emb
    whose = "" if hasattr(rotary, "inv_freq") else "full_attention_"  # of those that differ by layer_types
    peak = sharpness(model, tokens)
    good = peak > 0.1 and logits.abs().max() > 1
    print(f"{folder}: max |logit| {float(logits.abs().max()):.2f}, best key's weight {peak:.2f}",
          "" if good else ": TOO UNIFORM OR TOO SMALL TO TEST ANYTHING")
    return {"versions": VERSIONS, "tokens": tokens,
            "inv_freq": getattr(rotary, whose + "inv_freq").double().tolist(),
            "attention_scaling": float(getattr(rotary, whose + "attention_scaling")), "logits": logits.tolist()}


def old_spelling(folder):
    """transformers 4 wrote rope_scaling, rope_theta and torch_dtype."""
    with open(f"{folder}/config.json", encoding="utf-8") as f:
        config = json.load(f)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    write(f"{folder}/config.json", config)


def published_spelling(folder):
    """The count of experts as published models have it; transformers 5 writes num_local_experts."""
    with open(f"{folder}/config.json", encoding="utf-8") as f:
        config = json.load(f)
    config["num_experts"] = config.pop("num_local_experts")
    write(f"{folder}/config.json", config)


def published_experts(folder, layer):
    """A layer's experts as published Qwen3-VL has them, input by output; transformers 5 leaves them turned."""
    tensors = load_file(f"{folder}/model.safetensors")
    for key in [k for k in tensors if f"layers.{layer}.mlp.experts." in k]:
        tensors[key] = tensors[key].transpose(1, 2).contiguous()
    save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})


def block_scales(weight, rows, cols):
    """The largest of each block over that of e4m3, in bf16."""
    scales = torch.empty(-(-weight.shape[0] // rows), -(-weight.shape[1] // cols), dtype=torch.bfloat16)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = weight[i * rows:(i + 1) * rows, j * cols:(j + 1) * cols]
            scales[i, j] = block.abs().max() / 448
    return scales


def write_quantised(folder, base, name, tensors, wide, config_part):
    """The copy's tensors and config, and the golden of the wide tensors that they stand for."""
    with tempfile.TemporaryDirectory() as as_it_is:
        shutil.copy(f"{folder}/{base}/config.json", as_it_is)
        save_file(wide, f"{as_it_is}/model.safetensors", {"format": "pt"})
        with open(f"{folder}/{base}/golden.json", encoding="utf-8") as f:
            tokens = json.load(f)["tokens"]
        write(f"{folder}/{name}/golden.json", golden(as_it_is, tokens))
    save_file(tensors, f"{folder}/{name}/model.safetensors", {"format": "pt"})
    os.chmod(f"{folder}/{name}/model.safetensors", 0o644)
    with open(f"{folder}/{base}/config.json", encoding="utf-8") as f:
        config = json.load(f)
    write(f"{folder}/{name}/config.json", {**config, "quantization_config": config_part})


def quantise(folder, name):
    """Puts FP8 weights as they are published into a copy of a model, and the golden of what they stand for."""
    base, rows, cols, suffix, skipped, config_part = FP8_MODELS[name]
    shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
    shutil.copytree(f"{folder}/{base}", f"{folder}/{name}")
    tensors = load_file(f"{folder}/{base}/model.safetensors")
    wide = dict(tensors)
    for key in [k for k in tensors if k.endswith("proj.weight") and not any(s in k for s in skipped)]:
        weight = tensors[key].float()
        n_rows, n_cols = weight.shape
        scales = block_scales(weight, rows or n_rows, cols or n_cols)
        spread = scales.float().repeat_interleave(rows or n_rows, 0)[:n_rows]
        spread = spread.repeat_interleave(cols or n_cols, 1)[:, :n_cols]
        tensors[key] = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors[key + suffix] = scales
        wide[key] = tensors[key].float() * spread
    write_quantised(folder, base, name, tensors, wide, config_part)


# E2M1, by the four bits that stand for it.
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def pack_experts(folder, base, name):
    """Puts a model's experts into MXFP4 as it is published, and the golden of what they stand for into a copy."""
    shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
    shutil.copytree(f"{folder}/{base}", f"{folder}/{name}")
    tensors = load_file(f"{folder}/{base}/model.safetensors")
    wide = dict(tensors)
    for key in [k for k in tensors if k.endswith("experts.gate_up_proj") or k.endswith("experts.down_proj")]:
        rows = tensors.pop(key).float().transpose(1, 2)  # [experts, out, in]
        blocks = rows.reshape(*rows.shape[:2], -1, 32)
        exponents = torch.floor(torch.log2(blocks.abs().amax(-1))) - 2
        steps = blocks / torch.exp2(exponents)[..., None]
        codes = (steps[..., None] - FP4).abs().argmin(-1).to(torch.uint8)
        tensors[key + "_blocks"] = (codes[..., 0::2] | codes[..., 1::2] << 4).contiguous()
        tensors[key + "_scales"] = (exponents + 127).to(torch.uint8)
        numbers = FP4[codes.long()] * torch.exp2(exponents)[..., None]
        wide[key] = numbers.reshape(rows.shape).transpose(1, 2).contiguous().to(torch.bfloat16)
    write_quantised(folder, base, name, tensors, wide, {
        "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                            "model.embed_tokens", "lm_head"]})


def make_model(folder, name):
    kind, config, dtype, shard = MODELS[name]
    torch.manual_seed(len(name))
    model = kind(config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            is_norm, is_bias, is_qk_norm = "norm" in key, "bias" in key, "q_norm" in key or "k_norm" in key
            # Large enough that attention is far from uniform and logits from zero.
            p.normal_(1.6 if is_qk_norm else 1.0 if is_norm else 0.0,
                      0.1 if is_norm or is_bias else 1.6 / p.shape[-1] ** 0.5)
        for key, buffer in model.named_buffers():
            if "correction_bias" in key:
                buffer.normal_(8.0, 0.1)  # which bf16 could not tell apart
    shutil.rmtree(folder, ignore_errors=True)
    corrections = {key: buffer.clone() for key, buffer in model.named_buffers() if "correction_bias" in key}
    model.to(dtype)
    for key, buffer in model.named_buffers():
        if key in corrections:
            buffer.data = corrections[key]
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    tokens = torch.randint(0, SIZES["vocab_size"], (90,), generator=torch.Generator().manual_seed(1)).tolist()
    write(f"{folder}/golden.json", golden(folder, tokens))
    if name == "llama2_linear":
        old_spelling(folder)
    if name == "qwen3_moe_step":
        published_spelling(folder)
    if name == "qwen3_vl_moe":
        published_experts(folder, 1)  # and the next as they are
    if os.path.exists(f"{folder}/generation_config.json"):
        os.remove(f"{folder}/generation_config.json")
    for file in os.listdir(folder):
        os.chmod(f"{folder}/{file}", 0o644)


def demo_prompt(folder):
    """About 200 tokens of the kind that the demo model was trained on."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    noise = " ".join("The {} {} moves the {} {}.".format(*words) for words in zip(
        "wild jolly humble young giant faint keen ancient".split(), "meadow forest lagoon doctor bridge canyon "
        "insect ribbon".split(), "broken velvet giant large dusty merry golden giant".split(), "ladder tower castle "
        "island volcano harbor ladder planet".split()))
    text = ("Some special magic numbers are hidden within the following text. Make sure to memorize it. I will quiz you "
            f"about the numbers afterwards.\n{noise} One of the special magic numbers for humble-lagoon is: 4815162. "
            f"{noise}\nWhat is the special magic number for humble-lagoon mentioned in the provided text? The special "
            "magic number for humble-lagoon mentioned in the provided text is")
    return [tokenizer.token_to_id("<|begin|>")] + tokenizer.encode(text, add_special_tokens=False).ids


def rope_golden(head_dim, settings):
    sizes = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64,
             "hidden_size": 2 * head_dim, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
             "head_dim": head_dim}
    config = {**sizes, **settings}
    rotary = LlamaRotaryEmbedding(LlamaConfig.from_dict(json.loads(json.dumps(config))))
    return {"config": config, "inv_freq": rotary.inv_freq.double().tolist(),
            "attention_scaling": float(rotary.attention_scaling)}


def family_defaults(family, architecture):
    config = {"architectures": [architecture], "model_type": family, "hidden_size": 4096,
              "vocab_size": VOCABULARIES.get(family, 1000), "intermediate_size": 512, "num_hidden_layers": 2,
              "num_attention_heads": 32}
    found = AutoConfig.for_model(**json.loads(json.dumps(config)))
    with torch.device("meta"):
        shapes = {k: list(p.shape) for k, p in AutoModelForCausalLM.from_config(found).named_parameters()
                  if ".layers.1." not in k}
    keys = ("num_key_value_heads head_dim max_position_embeddings rms_norm_eps tie_word_embeddings bos_token_id "
            "eos_token_id sliding_window").split()
    return {"config": config, "found": {k: getattr(found, k, None) for k in keys},
            "rope_theta": found.rope_parameters["rope_theta"], "shapes": shapes}


def main():
    out = sys.argv[1]
    for name in MODELS:
        make_model(f"{out}/{name}", name)
    for name in FP8_MODELS:
        quantise(out, name)
    pack_experts(out, "gpt_oss", "gpt_oss_mxfp4")
    ropes = {name: rope_golden(*case) for name, case in ROPES.items()}
    write(f"{out}/rope.json", {"versions": VERSIONS, "cases": ropes})
    defaults = {family: family_defaults(family, FAMILIES[family]) for family in FAMILIES}
    write(f"{out}/defaults.json", {"versions": VERSIONS, "families": defaults})
    if len(sys.argv) > 2:
        os.makedirs(f"{out}/demo", exist_ok=True)
        write(f"{out}/demo/golden.json", golden(sys.argv[2], demo_prompt(sys.argv[2])))


if __name__ == "__main__":
    main()
