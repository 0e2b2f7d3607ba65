#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what `transformers` makes of one user turn with templates like the models' own, on the tokenizers of
tests/golden/tokenizer with the markup's tokens added.

usage: make_chat_goldens.py [tests/golden/tokenizer]
needs: pip install transformers jinja2

chat.json  versions, and a list of cases:
           name, tokenizer (its folder), added_tokens (to append to its own), post_processor (or null: without),
           bos_token, chat_template, context, query, and ids, those of apply_chat_template over context + seam + query
"""
import json
import os
import sys

import tokenizers
import transformers

CONTEXT = "The magic number of the house is 345.\nIt was 12.\n"
QUERY = "What is the number?"

LLAMA2 = ("{% for message in messages %}{% if message['role'] == 'user' %}"
          "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}{% endif %}{% endfor %}")
MISTRAL = ("{{- bos_token }}{%- for message in messages %}"
           "{{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}{%- endfor %}")
NEMO = MISTRAL.replace("[INST] ", "[INST]")
SPACED = LLAMA2.replace("'[INST] '", "' [INST] '")
LLAMA31 = ("{{- bos_token }}{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}"
           "{{- \"Cutting Knowledge Date: December 2023\\n\" }}{{- \"Today Date: \" + \"26 Jul 2024\" + \"\\n\\n\" }}"
           "{{- \"<|eot_id|>\" }}{%- for message in messages %}"
           "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}"
           "{%- endfor %}{%- if add_generation_prompt %}"
           "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}")
CHATML = ("{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
          "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}")
QWEN_MATH = ("{{- '<|im_start|>system\\nPlease reason step by step, and put your final answer within \\\\boxed{}.<|im_end|>\\n' }}"
             + CHATML)
QWQ = CHATML.replace("assistant\\n", "assistant\\n<think>\\n")

# A default system turn in pieces, and an answer that the template opens in a piece of its own.
PIECES = ("{%- set ns = namespace(s='You are Kim.') -%}{{- '<|im_start|>system\\n' ~ ns.s ~ '<|im_end|>\\n' -}}"
          + CHATML.replace("assistant\\n' }}", "assistant\\n' }}{{- '<think>\\n' -}}"))
# Other families than ours: R1 distilled, Phi 3.
R1 = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}")
PHI = ("{% for message in messages %}\n{% if message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '<|end|>\n' }}"
       "{% endif %}\n{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}")

HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
TURNS = ["<|im_start|>", "<|im_end|>", "<think>"]
INST = ["[INST]", "[/INST]"]

# name, tokenizer, tokens to add, whether its post-processor stays, BOS, template, what stands between context and query
CASES = [
    ("llama31", "llama3", HEADERS, False, "<|begin_of_text|>", LLAMA31, ""),
    ("qwen3", "qwen2", TURNS, False, None, CHATML, ""),
    ("qwen_math", "qwen2", TURNS, False, None, QWEN_MATH, ""),
    ("qwq", "qwen2", TURNS, False, None, QWQ, ""),
    # SentencePiece-style tokenizers put a space in front of every text, the query too.
    ("llama2", "llama2", [], True, "<s>", LLAMA2, " "),
    ("llama2_without_prefix", "llama2", [], False, "<s>", LLAMA2, " "),
    ("mistral_space_first", "metaspace", [], True, "<s>", SPACED, " "),
    ("mistral_tokens", "llama2", INST, True, "<s>", MISTRAL, " "),
    ("mistral_tokens_metaspace", "metaspace", INST, True, "<s>", MISTRAL, " "),
    ("pieces", "qwen2", TURNS, False, None, PIECES, ""),
    ("r1", "llama3", ["<s>", "<｜User｜>", "<｜Assistant｜>", "<think>"], False, "<s>", R1, ""),
    ("phi", "qwen2", ["<|user|>", "<|assistant|>"], False, None, PHI, ""),
    ("mistral_nemo", "llama3", ["<s>"] + INST, False, "<s>", NEMO, ""),
]


def golden(folder, name, kind, tokens, keeps_prefix, bos, template, seam):
    with open(f"{folder}/{kind}/tokenizer.json", encoding="utf-8") as file:
        data = json.load(file)
    next_id = 1 + max([*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])])
    added = [{"id": next_id + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, content in enumerate(tokens)]
    data["added_tokens"] += added
    if not keeps_prefix:
        data["post_processor"] = None
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(data)), bos_token=bos, chat_template=template)
    turn = [{"role": "user", "content": CONTEXT + seam + QUERY}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=False)
    return {"name": name, "tokenizer": kind, "added_tokens": added, "post_processor": data["post_processor"],
            "bos_token": bos, "chat_template": template, "context": CONTEXT, "query": QUERY, "ids": ids}


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = sys.argv[1] if len(sys.argv) > 1 else f"{root}/tests/golden/tokenizer"
    result = {"library": f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}",
              "cases": [golden(folder, *case) for case in CASES]}
    with open(f"{folder}/chat.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
