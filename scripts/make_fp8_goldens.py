#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Has the published tools write tiny FP8 models into a folder of goldens, each as the tool leaves it, and puts beside
it golden.json: the logits, in fp32, of the weights that its FP8 numbers and scales stand for.

usage: make_fp8_goldens.py OUTPUT_FOLDER [NAME...]
needs: torch, transformers, accelerate, datasets, llmcompressor, nvidia-modelopt; no GPU; about a minute
"""
import copy
import glob
import json
import os
import re
import shutil
import sys
import tempfile
from importlib.metadata import version

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (AutoModelForCausalLM, FineGrainedFP8Config, GptOssConfig, GptOssForCausalLM, LlamaConfig,
                          LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast, Qwen3Config,
                          Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM, Qwen3VLMoeConfig,
                          Qwen3VLMoeForConditionalGeneration)
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

import make_model_goldens as goldens

SIZES = {**goldens.SIZES, "num_hidden_layers": 1}
FOLDED = {**SIZES, "hidden_size": 64}

WEIGHTS = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False}
ROWS = {"weights": {**WEIGHTS, "strategy": "channel"},
        "input_activations": {**WEIGHTS, "strategy": "token", "dynamic": True}}
BLOCKS = {"weights": {**WEIGHTS, "strategy": "block", "block_structure": [32, 16]},
          "input_activations": {**WEIGHTS, "strategy": "group", "group_size": 16, "dynamic": True}}
LM_HEAD = ["lm_head"]


def rows_of_tokens():
    return torch.randint(0, SIZES["vocab_size"], (4, 32), generator=torch.Generator().manual_seed(2))


def by_transformers(base, folder, **words):
    # Only running such a model needs a GPU.
    FineGrainedFP8HfQuantizer.validate_environment = lambda *args, **kwargs: None
    kind = goldens.kind_of(base)
    model = kind.from_pretrained(base, dtype=torch.bfloat16, device_map="cpu",
                                 quantization_config=FineGrainedFP8Config(**words))
    model.save_pretrained(folder)


def by_llmcompressor(base, folder, calibrates=False, **words):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    data = {}
    if calibrates:
        rows = rows_of_tokens().tolist()
        data = {"dataset": Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(rows[0])] * len(rows)}),
                "num_calibration_samples": len(rows), "max_seq_length": len(rows[0])}
    # Asks for one, though it gets tokens.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")), pad_token="a")
    oneshot(model=model, processor=tokenizer, recipe=QuantizationModifier(**words), **data)
    model.save_pretrained(folder, save_compressed=True)


def by_modelopt(base, folder, **changes):
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    config = copy.deepcopy(mtq.FP8_DEFAULT_CFG)
    config["quant_cfg"] += [*mtq.FP8_KV_CFG["quant_cfg"],
                            *({"quantizer_name": name, **change} for name, change in changes.items())]

    def calibrate(model):
        with torch.no_grad():
            model(rows_of_tokens())

    model = mtq.quantize(model, config, calibrate)
    with torch.inference_mode():
        export_hf_checkpoint(model, export_dir=folder)


WRITERS = {by_transformers: ["transformers"], by_llmcompressor: ["llmcompressor", "compressed-tensors"],
           by_modelopt: ["nvidia-modelopt"]}

# folder: (model class, config, what writes it, its words)
MODELS = {
    # Scales are powers of two in a byte, and those of experts have one dimension.
    "transformers_ue8m0": (Qwen3MoeForCausalLM, Qwen3MoeConfig(
        **SIZES, head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True),
        by_transformers, {"weight_block_size": (16, 16), "scale_fmt": "ue8m0"}),
    # Experts stay in one tensor.
    "transformers_qwen3_vl_moe": (Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeConfig(
        text_config={**SIZES, **goldens.EXPERTS, "head_dim": 32}, vision_config=goldens.QWEN_VISION,
        tie_word_embeddings=False), by_transformers, {"weight_block_size": (16, 16)}),
    # Matrices are scaled in two ways, and a third group has activations alone.
    "llmcompressor_groups": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=16), by_llmcompressor, {
        "calibrates": True, "ignore": LM_HEAD, "config_groups": {
            "rows": {"targets": ["re:.*self_attn.*_proj$"], **ROWS},
            "blocks": {"targets": ["re:.*mlp.*_proj$"], **BLOCKS},
            "attention": {"targets": ["LlamaAttention"],
                          "input_activations": {**WEIGHTS, "strategy": "tensor"}}}}),
    "llmcompressor_mxfp8": (Qwen3ForCausalLM, Qwen3Config(**FOLDED, head_dim=16), by_llmcompressor, {
        "targets": "Linear", "scheme": "MXFP8", "ignore": LM_HEAD}),
    # Experts are named as in other families, and apart where the family has all of them in one tensor.
    "llmcompressor_mixtral": (MixtralForCausalLM, MixtralConfig(
        **{**SIZES, "intermediate_size": 32}, head_dim=16, num_local_experts=4, num_experts_per_tok=2),
        by_llmcompressor, {"targets": "Linear", "scheme": "FP8_DYNAMIC", "ignore": [*LM_HEAD, "re:.*gate$"]}),
    "llmcompressor_gpt_oss": (GptOssForCausalLM, GptOssConfig(
        **{**FOLDED, "intermediate_size": 32}, head_dim=16, num_local_experts=4, num_experts_per_tok=2,
        sliding_window=21, rope_parameters={**goldens.YARN_ROPE, "truncate": False}),
        by_llmcompressor, {"targets": "Linear", "scheme": "FP8_DYNAMIC", "ignore": [*LM_HEAD, "re:.*router$"]}),
    # Experts stay in one tensor, input by output, with one scale.
    "modelopt_gpt_oss": (GptOssForCausalLM, GptOssConfig(
        **{**FOLDED, "intermediate_size": 32}, head_dim=16, num_local_experts=4, num_experts_per_tok=2,
        sliding_window=21, rope_parameters={**goldens.YARN_ROPE, "truncate": False}), by_modelopt, {}),
    # MIXED_PRECISION of FP8 and fp8_pb_wo, and scales of keys and values.
    "modelopt_mixed": (Qwen3ForCausalLM, Qwen3Config(**{**SIZES, "intermediate_size": 144}, head_dim=32), by_modelopt, {
        "*mlp*weight_quantizer": {"cfg": {"num_bits": (4, 3), "block_sizes": {-1: 128, -2: 128}}, "enable": True},
        "*mlp*input_quantizer": {"enable": False}}),
}


def spread(scales, matrix, block):
    """A number for each of the matrix's."""
    if scales.dtype == torch.uint8:  # as MXFP8 has them
        scales, block = torch.exp2(scales.float() - 127), (1, 32)
    scales = scales.float()
    if matrix.dim() == 3 and scales.dim() > 0:
        return torch.stack([spread(scale, one, block) for scale, one in zip(scales, matrix)])
    if scales.numel() == 1:
        return scales.reshape(1, 1).expand(matrix.shape)
    if scales.squeeze().shape == matrix.shape[:1]:
        return scales.reshape(-1, 1).expand(matrix.shape)
    scales = scales.reshape([-(-n // size) for n, size in zip(matrix.shape, block)])
    return scales.repeat_interleave(block[0], 0)[:matrix.shape[0]].repeat_interleave(block[1], 1)[:, :matrix.shape[1]]


def block_size(config):
    """Of what config.json scales by blocks."""
    found = re.search(r'"(?:weight_block_size|block_structure)": \[(\d+), (\d+)\]', json.dumps(config))
    return tuple(map(int, found.groups())) if found else (128, 128)


def as_named_by_transformers(tensors):
    """Experts that a tool has renamed or taken apart."""
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    tensors = {re.sub(r"(block_sparse_moe\.experts\.\d+\.)(\w+_proj)", lambda m: m[1] + names[m[2]], key): tensor
               for key, tensor in tensors.items()}
    apart = re.compile(r"(.*\.mlp\.experts\.)(\d+)\.(gate|up|down)_proj\.(weight|bias)$")
    for prefix in {m[1] for m in map(apart.match, tensors) if m and m[4] == "bias"}:
        n_experts = len({m[2] for m in map(apart.match, tensors) if m and m[1] == prefix})
        for kind, ending in (("weight", ""), ("bias", "_bias")):
            def of_all(part):
                return torch.stack([tensors.pop(f"{prefix}{e}.{part}_proj.{kind}") for e in range(n_experts)])
            gate_up = torch.stack([of_all("gate"), of_all("up")], 2).flatten(1, 2)  # rows in turn
            down = of_all("down")
            tensors[prefix + "gate_up_proj" + ending] = (gate_up if kind == "bias" else gate_up.mT).contiguous()
            tensors[prefix + "down_proj" + ending] = (down if kind == "bias" else down.mT).contiguous()
    return tensors


def wide(folder, config):
    """What a folder's tensors stand for, by the names that transformers reads."""
    tensors = {}
    for file in glob.glob(f"{folder}/*.safetensors"):
        tensors.update(load_file(file))
    found = {}
    for key, tensor in tensors.items():
        if re.search(r"(_scale|_scale_inv|zero_point)$", key):
            continue
        if tensor.dtype == torch.float8_e4m3fn:
            scales = next(tensors[key + ending] for ending in ("_scale", "_scale_inv", "_weight_scale")
                          if key + ending in tensors)
            tensor = tensor.float() * spread(scales, tensor, block_size(config))
        found[key] = tensor.float().contiguous()
    return as_named_by_transformers(found)


def make(out, name):
    kind, config, writer, words = MODELS[name]
    folder = f"{out}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        goldens.MODELS[name] = (kind, config, torch.bfloat16, None)
        goldens.make_model(f"{temporary}/base", name)
        writer(f"{temporary}/base", folder, **words)
        for file in os.listdir(folder):
            if not re.fullmatch(r"(config|hf_quant_config)\.json|model.*", file):
                os.remove(f"{folder}/{file}")
        with open(f"{folder}/config.json", encoding="utf-8") as f:
            config = json.load(f)
        plain = {key: value for key, value in config.items() if key != "quantization_config"}
        os.makedirs(f"{temporary}/wide")
        save_file(wide(folder, config["quantization_config"]), f"{temporary}/wide/model.safetensors", {"format": "pt"})
        goldens.write(f"{temporary}/wide/config.json", plain)
        with open(f"{temporary}/base/golden.json", encoding="utf-8") as f:
            base = json.load(f)
        found = goldens.golden(f"{temporary}/wide", base["tokens"])
        goldens.write(f"{folder}/golden.json", {**found, "written_by": {p: version(p) for p in WRITERS[writer]}})
        wide_logits, base_logits = torch.tensor(found["logits"]), torch.tensor(base["logits"])
        off = float((wide_logits - base_logits).norm() / base_logits.norm())
        print(f"{name}: FP8 changes the logits by {off:.1%}", "" if off < 0.3 else ": ARE ITS WEIGHTS READ RIGHT?")
    for file in os.listdir(folder):
        os.chmod(f"{folder}/{file}", 0o644)


def main():
    for name in sys.argv[2:] or MODELS:
        make(sys.argv[1], name)


if __name__ == "__main__":
    main()
