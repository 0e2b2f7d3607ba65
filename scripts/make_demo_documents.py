#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes data/demo.jsonl: documents of `starattn generate` with several questions each.

    scripts/make_demo_documents.py build/release/starattn data/demo-model > data/demo.jsonl"""
import json
import random
import sys

from demo_model.lessons import documents
from demo_model.questions import questions_of

# id: task, tokens, questions
DOCUMENTS = {"numbers": ("niah_multikey_1", 2048, 3), "people": ("qa1", 2048, 3), "variables": ("vt", 2048, 1),
             "uuids": ("niah_multikey_3", 4096, 2), "things": ("qa2", 4096, 3), "gifts": ("qa5", 4096, 3),
             "values": ("niah_multivalue", 4096, 1)}


def references(question):
    """What an answer has to contain: its words, without punctuation and 'and'."""
    words = question.answer.strip(" .").replace(",", " ").split()
    return [word for word in words if word != "and"]


def main():
    program, model = sys.argv[1:]
    for name, (task, length, n_questions) in DOCUMENTS.items():
        document = documents(program, model, task, [length], count=1, seed=2026)[0]
        asked = questions_of(document, random.Random(name))[:n_questions]
        limit = document["queries"][0]["max_new_tokens"]
        print(json.dumps({"id": name, "context": document["context"], "queries": [
            {"id": str(i), "text": question.text, "answers": references(question), "max_new_tokens": limit}
            for i, question in enumerate(asked, 1)]}))


if __name__ == "__main__":
    main()
