# SPDX-License-Identifier: Apache-2.0
"""A model that computes in milliseconds: random weights under the demo model's tokenizer."""
import array
import json
import random
import shutil
import struct
from pathlib import Path

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, LAYERS = 64, 2, 1, 32, 64, 2


def make_tiny_model(folder: Path, tokenizer: Path) -> None:
    """Writes config.json, model.safetensors and tokenizer.json; the same bytes every time."""
    folder.mkdir(parents=True)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    vocab = len(json.loads(tokenizer.read_text())["model"]["vocab"]) + 64
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab,
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "max_position_embeddings": 4096, "rope_theta": 10000.0, "rms_norm_eps": 1e-05,
        "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "bfloat16",
        "bos_token_id": 0, "eos_token_id": vocab - 1}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [vocab, HIDDEN], "model.norm.weight": [HIDDEN]}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": [HIDDEN], at + "post_attention_layernorm.weight": [HIDDEN],
            at + "self_attn.q_proj.weight": [HEADS * HEAD_DIM, HIDDEN],
            at + "self_attn.k_proj.weight": [KV_HEADS * HEAD_DIM, HIDDEN],
            at + "self_attn.v_proj.weight": [KV_HEADS * HEAD_DIM, HIDDEN],
            at + "self_attn.o_proj.weight": [HIDDEN, HEADS * HEAD_DIM],
            at + "mlp.gate_proj.weight": [INNER, HIDDEN], at + "mlp.up_proj.weight": [INNER, HIDDEN],
            at + "mlp.down_proj.weight": [HIDDEN, INNER]}
    draw = random.Random(1)
    header, data = {}, bytearray()
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        # bf16: the upper half of a float of about 0.01 to 0.5, either sign; norms are one.
        values = [0x3F80] * n if len(shape) == 1 else [
            (draw.getrandbits(1) << 15) | draw.randrange(0x3C00, 0x3F00) for _ in range(n)]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + 2 * n]}
        data += array.array("H", values).tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
