#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A task about code: go on with a name that was last written far away.

  far_names.py make MODEL FOLDER >names.jsonl            documents from the Python sources of a folder
  starattn eval --audit --input names.jsonl --output star.jsonl ...
  far_names.py report names.jsonl star.jsonl recall.jsonl...

A document is a piece of a source file, --tokens tokens long. Its last --tail tokens are cut off, and a query is what of
these stands before a name that was not written within the last quarter of the piece, but was written before. The model
should go on with the name. Keywords, builtins and names of fewer than five letters do not count.

`report` prints, for each audit: how often exact attention and the setting write the very name, the difference, the KL to
exact attention a token of its answer, and how often both have the same likeliest token. Its 95 % intervals resample
documents. needs: pip install tokenizers (for `make`); MODEL has a tokenizer.json.
"""
import argparse
import bisect
import builtins
import io
import json
import keyword
import pathlib
import random
import re
import sys
import tokenize


def names_in(text, begin):
    """Each name of the source and where it stands first at or behind `begin`."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        at = starts[token.start[0] - 1] + token.start[1]
        if token.type == tokenize.NAME and at >= begin:
            found.setdefault(token.string, at)
    return found


def is_told_apart(name):
    return len(name) >= 5 and name[0].isalpha() and not keyword.iskeyword(name) and not hasattr(builtins, name)


def document(tokenizer, text, begin, options):
    """The piece from `begin` on, with its queries, and where it ends; None where the text is too short."""
    offsets = [begin + first for first, _ in tokenizer.encode(text[begin:begin + 8 * options.tokens], add_special_tokens=False).offsets]
    if len(offsets) <= options.tokens:
        return None, len(text)
    end = offsets[options.tokens]
    context_end = text.rindex("\n", begin, offsets[options.tokens - options.tail]) + 1
    queries = []
    for name, at in names_in(text, context_end).items():
        earlier = [m.start() for m in re.finditer(rf"\b{re.escape(name)}\b", text[begin:at])]
        if at + len(name) > end or not is_told_apart(name) or not earlier:
            continue
        distance = bisect.bisect_left(offsets, at) - bisect.bisect_left(offsets, begin + earlier[-1])
        cut = at - 1 if text[at - 2:at].strip(" ") and text[at - 1] == " " else at
        if distance <= options.tokens // 4 or cut == context_end:
            continue
        n_tokens = len(tokenizer.encode(text[cut:at + len(name)], add_special_tokens=False).ids)
        queries.append({"id": name, "text": text[context_end:cut], "answers": [name], "max_new_tokens": n_tokens, "stop": [],
                        "meta": {"distance": distance}})
    return {"context": text[begin:context_end], "queries": queries}, text.rindex("\n", begin, end) + 1


def make(options):
    import tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(options.model) / "tokenizer.json"))
    for path in sorted(pathlib.Path(options.folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        begin = 0
        for piece in range(options.pieces):
            one, begin = document(tokenizer, text, begin, options)
            if one is None:
                break
            if one["queries"]:
                print(json.dumps({"id": f"{path.relative_to(options.folder)}:{piece}", **one}))


def interval(documents, statistic, rng):
    draws = sorted(statistic(rng.choices(documents, k=len(documents))) for _ in range(2000))
    return draws[50], draws[1949]


def report(options):
    names = {}
    for line in open(options.names, encoding="utf-8"):
        one = json.loads(line)
        for query in one["queries"]:
            names[one["id"], query["id"]] = query["answers"][0]
    audits = [{(one["id"], one["query_id"]): one for one in map(json.loads, open(path, encoding="utf-8"))} for path in options.audits]
    documents = {}
    for key in sorted(set.intersection(*map(set, audits))):  # of a stopped audit some are missing
        rows = [audit[key] for audit in audits]
        for row in rows:
            row["one"] = 1
            row["exact_right"], row["star_right"] = (row[which].strip(" ") == names[key] for which in ("exact", "star"))
            row["gain"] = row["star_right"] - row["exact_right"]
        documents.setdefault(key[0], []).append(rows)
    documents = list(documents.values())  # each [query][audit]
    print(f"{sum(map(len, documents))} names in {len(documents)} documents")
    print(f"{'':24}{'exact':>6} {'right':>6} {'difference, points':>22} {'KL, nats a token':>28} {'of the first':>22} {'same top, %':>22}")

    for i, path in enumerate(options.audits):
        total = lambda drawn, key, audit=i: sum(rows[audit][key] for document in drawn for rows in document)
        share = lambda key, of: lambda drawn: 100 * total(drawn, key) / total(drawn, of)
        kl = lambda drawn: total(drawn, "kl_sum") / total(drawn, "n_positions")
        of_first = lambda drawn: total(drawn, "kl_sum") / total(drawn, "kl_sum", 0)
        cell = lambda of, form: "{} ({} to {})".format(*(format(x, form) for x in (of(documents), *interval(documents, of, random.Random(1)))))
        print(f"{pathlib.Path(path).stem:24}{share('exact_right', 'one')(documents):6.1f} {share('star_right', 'one')(documents):6.1f} "
              f"{cell(share('gain', 'one'), '.1f'):>22} {cell(kl, '.4f'):>28} {cell(of_first, '.2f'):>22} "
              f"{cell(share('n_same_top', 'n_positions'), '.1f'):>22}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("model")
    making.add_argument("folder")
    making.add_argument("--tokens", type=int, default=7900, help="of a piece")
    making.add_argument("--tail", type=int, default=800, help="tokens of a piece in which names are asked for")
    making.add_argument("--pieces", type=int, default=3, help="of a file, at most")
    making.set_defaults(run=make)
    reporting = commands.add_parser("report")
    reporting.add_argument("names")
    reporting.add_argument("audits", nargs="+")
    reporting.set_defaults(run=report)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    sys.exit(main())
