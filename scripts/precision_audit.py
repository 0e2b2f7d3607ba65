#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What FP8 does to a model's answers: each setting beside the same run without it, on documents of yours.

  precision_audit.py MODEL INPUT --with "--weights fp8" --with "--weights fp8 --activations fp8" \\
      [--common "--block-size 512"] [--launch "mpirun -n 2 starattn"]

The run without a setting answers first, and its answers are the reference. At each of their tokens every setting is
given the tokens before it, and next-token distributions are compared as `eval --audit` compares them (docs/audit.md),
but over the 1,000 likeliest tokens of either side that both have, since that is how many a run can say. INPUT has
documents in starattn's own format.
"""
import argparse
import json
import math
import os
import shlex
import subprocess
import tempfile

KNOWN = 1000  # logits of a position that a run says


def log_softmax(logits):
    most = max(logits.values())
    total = most + math.log(sum(math.exp(logit - most) for logit in logits.values()))
    return {token: logit - total for token, logit in logits.items()}


def divergence(reference, other):
    """KL in nats, and whether the likeliest token is the same."""
    common = reference.keys() & other.keys()
    p, q = (log_softmax({token: logits[token] for token in common}) for logits in (reference, other))
    likeliest = [max(logits, key=logits.get) for logits in (reference, other)]
    return sum(math.exp(p[token]) * (p[token] - q[token]) for token in common), likeliest[0] == likeliest[1]


class Audit:
    def __init__(self, args, folder):
        self.launch, self.folder = shlex.split(args.launch), folder
        self.common = ["--model", args.model, *shlex.split(args.common)]

    def run(self, command, *options):
        done = subprocess.run([*self.launch, command, *map(str, options)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{command} {' '.join(options)}: exit code {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def answers(self, lines, setting, *options):
        """{(document, query): answer}"""
        output = os.path.join(self.folder, "answers.jsonl")
        self.run("run", *self.common, "--input", lines, "--output", output, "--overwrite", *shlex.split(setting), *options)
        with open(output, encoding="utf-8") as file:
            return {(answer["id"], answer["query_id"]): answer for answer in map(json.loads, file)}

    def tokens(self, lines, model):
        """The tokens of each document and its queries, as a run takes them."""
        done = subprocess.run([self.launch[-1], "tokenize", "--model", model, "--input", lines, "--json"],
                              capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def logits(self, lines, setting):
        """{(document, query, place in the answer): {token: logit}}"""
        found = self.answers(lines, setting, "--logprobs", KNOWN, "--max-new-tokens", 1)
        return {place: dict(map(tuple, answer["logprobs"])) for place, answer in found.items()}


def positions(documents, answers):
    """A document a line, with a query for each token of each answer: what stands before it."""
    for document in documents:
        queries = []
        for query in document["queries"]:
            said = answers[document["id"], query["id"]]["tokens"]
            queries += [{"id": f"{query['id']} {i}", "tokens": query["ids"] + said[:i], "max_new_tokens": 1}
                        for i in range(len(said))]
        yield json.dumps({"id": document["id"], "context_tokens": document["context"]["ids"], "queries": queries})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("input")
    parser.add_argument("--with", action="append", required=True, dest="settings", help="options of run that are audited")
    parser.add_argument("--common", default="", help="options of every run")
    parser.add_argument("--launch", default="starattn", help="the program, and what starts it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        audit = Audit(args, folder)
        answers = audit.answers(args.input, "")
        lines = os.path.join(folder, "positions.jsonl")
        with open(lines, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in positions(audit.tokens(args.input, args.model), answers))
        reference = audit.logits(lines, "")
        for place, logits in reference.items():
            query, i = place[1].rsplit(" ", 1)
            if max(logits, key=logits.get) != answers[place[0], query]["tokens"][int(i)]:
                raise SystemExit(f"{place}: its tokens do not lead to the answer: are they those of a run?")
        print(f"{len(answers)} answers of {len(reference)} tokens")
        print("| setting | same answer | same likeliest token | KL, mean / largest |\n|---|---|---|---|")
        for setting in args.settings:
            others = audit.answers(args.input, setting)
            same = sum(others[place]["tokens"] == answer["tokens"] for place, answer in answers.items())
            logits = audit.logits(lines, setting)
            found = [divergence(reference[place], logits[place]) for place in reference]
            kl = [one for one, _ in found]
            print(f"| `{setting}` | {same} of {len(answers)} | {sum(top for _, top in found)} of {len(found)} "
                  f"| {sum(kl) / len(kl):.2g} / {max(kl):.2g} |", flush=True)


if __name__ == "__main__":
    main()
