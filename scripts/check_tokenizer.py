#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the tokens of `starattn tokenize` against those of the `tokenizers` library, on random and hostile texts and on
the text files that are named.

usage: check_tokenizer.py PROGRAM MODEL_FOLDER... [--texts N] [--seed S] [--file TEXT_FILE]...
needs: pip install tokenizers; each folder has a tokenizer.json

Ends with 1, and shows the first texts that differ, when any does.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

import tokenizers

RANGES = [(0x20, 0x7f), (0x20, 0x7f), (0, 0x21), (0x7f, 0x250), (0x2b0, 0x370), (0x370, 0x590), (0x590, 0x780), (0x900, 0xe00), (0xe00, 0x1000),
          (0x1100, 0x1200), (0x1780, 0x1900), (0x1e00, 0x2000), (0x2000, 0x2400), (0x2460, 0x2600), (0x3000, 0x3200), (0x4e00, 0x4f00),
          (0xac00, 0xad00), (0xa640, 0xab00), (0xe000, 0xe100), (0xf900, 0xfb50), (0xfb50, 0xfe00), (0xfe00, 0x10000), (0x10000, 0x10500),
          (0x16f00, 0x16fa0), (0x1d400, 0x1d800), (0x1f000, 0x1faff), (0x1e900, 0x1e960), (0x20000, 0x20100), (0xe0000, 0xe0200),
          (0, 0xd800), (0xe000, 0x110000)]
WORDS = ["don't", "WE'LL", " the", "\n\n", "\r\n", "  ", "\t", "1234567", "3.14e-10", "http://a.b/c?d=e", "▁", "Ġ", "é", "e\u0301", "\u200d", "👩‍👩‍👧",
         "\ufeff", "…", "—", "don’t", "a\u0300\u0315\u0316", "\u1100\u1161\u11a8", "ﷺ", "½", "²", "ſ", "İ", "ß", "\u00a0", "\u3000", "\x00", "\x1d", "<0x0A>"]


def random_text(rng, contents):
    """contents: of added tokens."""
    def part():
        kind = rng.randrange(8)
        if kind == 0:
            return rng.choice(WORDS)
        if kind == 1 and contents:
            content = rng.choice(contents)
            cut = rng.randrange(1, len(content) + 1)
            return rng.choice([content, content, content[:cut], content[cut:], " " + content + " ", content.upper()])
        if kind == 2:
            return rng.choice("a 9\n'!▁é") * rng.randrange(1, 70)
        low, high = rng.choice(RANGES)
        return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 12)))
    text = "".join(part() for _ in range(rng.randrange(1, 9)))
    return "".join(c for c in text if not 0xd800 <= ord(c) < 0xe000)


def tokens_of(program, folder, texts, special, scratch):
    """By index. A text without any token is not there: no document can be empty."""
    path = f"{scratch}/in.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for i, text in enumerate(texts):
            file.write(json.dumps({"id": i, "context": text, "queries": [{"tokens": [0]}]}) + "\n")
    done = subprocess.run([program, "tokenize", "--model", folder, "--input", path, "--json", "--chat", "none", "--allow-long",
                           "--special-tokens", special], capture_output=True, text=True)
    if done.returncode not in (0, 65):
        sys.exit(f"{program} ended with {done.returncode}: {done.stderr[-2000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {int(line["id"]): line["context"]["ids"] for line in lines}, done.stderr


def with_config(folder, scratch, vocab_size):
    """The folder, or one with its tokenizer and a small model's config.json."""
    if os.path.exists(f"{folder}/config.json"):
        return folder
    for name in os.listdir(folder):
        os.symlink(os.path.abspath(f"{folder}/{name}"), f"{scratch}/{name}")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 64, "intermediate_size": 64,
              "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1 << 20, "hidden_act": "silu",
              "rms_norm_eps": 1e-5, "rope_theta": 1e4, "torch_dtype": "float32", "tie_word_embeddings": True}
    with open(f"{scratch}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    return scratch


def check(program, folder, texts, rng, n_texts):
    library = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    added = library.get_added_tokens_decoder()
    contents = [token.content for token in added.values()]
    texts = texts + [random_text(rng, contents) for _ in range(n_texts)]
    prefix = [i for i in library.encode("").ids] if library.post_processor else []
    n_bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        model = with_config(folder, scratch, library.get_vocab_size() + len(added) + 1)
        for special in ("text", "parse"):
            library.encode_special_tokens = special == "text"
            ours, log = tokens_of(program, model, texts, special, scratch)
            for i, text in enumerate(texts):
                theirs = library.encode(text, add_special_tokens=False).ids
                mine = ours.get(i, prefix)[len(prefix):]
                if mine == theirs:
                    continue
                n_bad += 1
                if n_bad <= 5:
                    print(f"{folder}, {special}: {ascii(text)}\n  starattn   {mine}\n  tokenizers {theirs}")
            if len(ours) < len(texts) and n_bad:
                print(log[-500:])
    print(f"{folder}: {len(texts)} texts, as text and parsed: {n_bad} differ (tokenizers {tokenizers.__version__})")
    return n_bad


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", action="append", default=[])
    options = parser.parse_args()
    files = [open(path, encoding="utf-8").read() for path in options.file]
    n_bad = sum(check(options.program, folder, files, random.Random(options.seed), options.texts) for folder in options.folders)
    sys.exit(1 if n_bad else 0)


if __name__ == "__main__":
    main()
