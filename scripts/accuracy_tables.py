#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the tables of docs/accuracy.md and docs/recall.md from the trials of `starattn eval --output`.

    scripts/accuracy_tables.py trials.jsonl more.jsonl [--lengths 4096,8192] [--against star:b=n/16]

Scores in per cent by task and setting, one figure a length; how far vt's chains are right; each group's share of the
exact score; and differences with their paired 95 % intervals, to dense or --against, in full and counted."""
import argparse
import json
import math
import sys
from statistics import mean

GROUPS = {"retrieval: the eight niah tasks": ["niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1",
                                              "niah_multikey_2", "niah_multikey_3", "niah_multivalue",
                                              "niah_multiquery"],
          "one fact in a story: qa1, qa4, qa5": ["qa1", "qa4", "qa5"],
          "two and three facts: qa2, qa3": ["qa2", "qa3"],
          "a chain of five: vt": ["vt"],
          "counting words: cwe, fwe": ["cwe", "fwe"]}
TASKS = ["niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3",
         "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa1", "qa2", "qa3", "qa4", "qa5"]
NAMES = {"star:b=n/4": "n/4", "star:b=n/16": "n/16", "star:b=n/4,r=1": "n/4, r = 1", "star:b=n/16,r=1": "n/16, r = 1",
         "star:b=n/16,r=3": "n/16, r = 3", "star:b=n/4,a=auto,c=b/2": "n/4, recall",
         "star:b=n/16,a=auto,c=b/2": "n/16, recall", "star:b=n/4,c=b/2": "n/4, recall, a = b",
         "star:b=n/16,c=b/2": "n/16, recall, a = b"}
Z = 1.959963984540054


def read(paths):
    """{(setting, task, length): {(id, seed): trial}}; the first of equal trials counts."""
    trials = {}
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    t = json.loads(line)
                    key, sample = (t["setting"], t["task"], t["length"]), (t["id"], t["seed"])
                    t["score"] + 0
                except (ValueError, KeyError, TypeError) as error:
                    sys.exit(f"{path}:{number}: not a trial of eval: {error!r}")
                trials.setdefault(key, {}).setdefault(sample, t)
    return trials


def difference(cell, other):
    """The mean in points and its interval, as src/eval/comparison.cpp has it; None without pairs."""
    pairs = [(t["score"], other[sample]["score"]) for sample, t in cell.items() if sample in other]
    if not pairs:
        return None
    d = [a - b for a, b in pairs]
    n = len(d) + 2
    half = Z * math.sqrt(max(0.0, 1 + sum(x * x for x in d) - sum(d) ** 2 / n)) / n
    return [100 * x for x in (mean(d), max(-1.0, sum(d) / n - half), min(1.0, sum(d) / n + half))]


def difference_text(cell, other):
    found = difference(cell, other)
    if found is None:
        return "-"
    if all(t["score"] == other[sample]["score"] for sample, t in cell.items() if sample in other):
        return "0"
    middle, low, high = found
    text = f"{middle:+.1f} ({low:.0f} to {high:.0f})".replace(".0 ", " ")
    text = text.replace("-0 ", "0 ").replace("+0 ", "0 ").replace("-0)", "0)")
    return f"**{text}**" if low > 0 or high < 0 else text


class Tables:
    def __init__(self, trials, lengths):
        self.trials = trials
        self.lengths = lengths or sorted({length for _, _, length in trials})
        settings = {setting for setting, _, _ in trials}
        order = ["dense", "ring"] + list(NAMES)
        self.settings = sorted(settings, key=lambda s: (order.index(s) if s in order else len(order), s))
        self.tasks = [task for task in TASKS if any(task == t for _, t, _ in trials)]

    def cells(self, setting, task):
        return [self.trials.get((setting, task, length), {}) for length in self.lengths]

    def over_lengths(self, texts):
        texts = list(texts)
        return "-" if all(text == "-" for text in texts) else " / ".join(texts)

    def row(self, name, columns):
        print(f"| {name} | " + " | ".join(columns) + " |")

    def head(self, first, settings):
        self.row(first, [NAMES.get(s, s) for s in settings])
        print("|---|" + "---|" * len(settings))

    def scores(self):
        self.head("task", self.settings)
        for task in self.tasks:
            self.row(task, [self.over_lengths(self.score(cell) for cell in self.cells(s, task)) for s in self.settings])

    def score(self, cell):
        return f"{100 * mean(t['score'] for t in cell.values()):.0f}" if cell else "-"

    def chains(self):
        self.head("", self.settings)
        self.row("vt", [self.over_lengths(f"{mean(t['n_right'] for t in cell.values()):.1f}" if cell else "-"
                                          for cell in self.cells(s, "vt")) for s in self.settings])

    def shares(self):
        settings = [s for s in self.settings if s != "dense"]
        self.head("share of the exact score", settings)
        for name, tasks in GROUPS.items():
            self.row(name, [self.over_lengths(self.share(s, tasks, length) for length in self.lengths)
                            for s in settings])

    def share(self, setting, tasks, length):
        cells = [(self.trials.get((setting, task, length)), self.trials.get(("dense", task, length))) for task in tasks]
        if not all(a and b for a, b in cells):
            return "-"
        of, exact = (sum(mean(t["score"] for t in cell[i].values()) for cell in cells) for i in (0, 1))
        return f"{100 * of / exact:.0f}" if exact > 0 else "-"

    def differences(self, against):
        settings = [s for s in self.settings if s != against]
        self.head(f"to {NAMES.get(against, against)}", settings)
        for task in self.tasks:
            self.row(task, [", ".join(difference_text(cell, other) for cell, other
                                      in zip(self.cells(s, task), self.cells(against, task))) for s in settings])

    def summary(self, against):
        """In how many cells a setting can be told from another one, and where it is furthest below."""
        self.row("", ["cells", "whose interval reaches 0", "the worst"])
        print("|---|---|---|---|")
        for setting in (s for s in self.settings if s != against):
            found = {(task, length): difference(self.trials.get((setting, task, length), {}),
                                                self.trials.get((against, task, length), {}))
                     for task in self.tasks for length in self.lengths}
            found = {cell: d for cell, d in found.items() if d}
            if not found:
                continue
            (task, length), worst = min(found.items(), key=lambda item: item[1][0])
            n_reach = sum(low <= 0 <= high for _, low, high in found.values())
            self.row(NAMES.get(setting, setting),
                     [str(len(found)), str(n_reach),
                      f"{worst[0]:+.1f} ({worst[1]:.0f} to {worst[2]:.0f}): {task}, {length:,} tokens"])

    def samples(self):
        """The cells that have not as many samples as most."""
        counts = [len(cell) for cell in self.trials.values()]
        usual = max(set(counts), key=counts.count)
        print(f"{sum(counts):,} trials, {usual} samples a cell")
        for (setting, task, length), cell in sorted(self.trials.items()):
            if len(cell) != usual:
                print(f"- {task}, {length:,} tokens, {setting}: {len(cell)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", help="of eval --output, of one model")
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], help="all that are there")
    parser.add_argument("--against", default="dense", help="the setting to which differences are taken")
    options = parser.parse_args()
    trials = read(options.files)
    if not trials:
        sys.exit("no trials")
    tables = Tables(trials, options.lengths)
    print("Tokens: " + " / ".join(f"{n:,}" for n in tables.lengths) + "\n")
    for table in (tables.samples, tables.scores, tables.chains, tables.shares,
                  lambda: tables.differences(options.against), lambda: tables.summary(options.against)):
        table()
        print()


if __name__ == "__main__":
    main()
