#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model's tokenizer on documents of `starattn generate`.

    scripts/make_demo_tokenizer.py --program build/release/starattn --model data/demo-model OUTPUT

OUTPUT is the tokenizer.json to write; --model's tokenizer only measures the documents' lengths."""
import argparse
import os
import random
import re

from demo_model.lessons import documents
from demo_model.questions import questions_of
from demo_model.tokenizer import train_tokenizer

DOCUMENTS = {"niah_single_1": 4, "niah_single_2": 400, "niah_single_3": 20, "niah_multikey_2": 100,
             "niah_multiquery": 40, "vt": 40, "cwe": 100, "fwe": 40, "qa1": 40, "qa2": 40, "qa3": 40,
             "qa4": 40, "qa5": 40}
# UUIDs, variables and coded words are random letters: nothing to learn words from.
RANDOM_LETTERS = {"niah_single_3": r"[0-9a-f-]{36}", "vt": r" [A-Z]{5}\b", "fwe": r" [a-z]{6}\b"}


def texts(program, model):
    draws = random.Random(1)
    for task, count in DOCUMENTS.items():
        for document in documents(program, model, task, [4096], count, seed=1):
            letters = RANDOM_LETTERS.get(task, "(?!)")
            yield re.sub(letters, "", document["context"])
            for question in questions_of(document, draws):
                yield re.sub(letters, "", question.text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=2304)
    parser.add_argument("output")
    options = parser.parse_args()
    os.makedirs(os.path.dirname(options.output) or ".", exist_ok=True)
    train_tokenizer(texts(options.program, options.model), options.tokens).save(options.output)


if __name__ == "__main__":
    main()
