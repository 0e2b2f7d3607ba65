#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What finished studies took beside what a machine file makes of them, as the tables of docs/scaling.md.

  modelled_beside_measured.py PROGRAM MACHINE STUDY... [--shape 8b] [--layers 4]

STUDY: files of `bench --json`, several of which may follow each other in one. PROGRAM's `plan --history` holds
each of their points against MACHINE; a study whose steps shared the weights is planned so, too.
"""
import argparse
import json
import re
import subprocess
import tempfile
from collections import defaultdict

ROW = re.compile(r"(phase 1|a step), (.*), ([\d,]+) tokens, (\d+) ranks?(, anchor again)?(?:, (\d+) quer\w+)? +"
                 r"([\d.e+-]+) +([\d.e+-]+) +[\d.]+$")


def studies_in(path):
    """The studies of a file: a head and its lines, each."""
    studies = []
    for line in open(path):
        if "schema" in json.loads(line):
            studies.append([])
        studies[-1].append(line)
    return studies


def runs_of(program, machine, model, study):
    """(operation, setting, tokens, ranks, measured, modelled) of each point."""
    is_shared = json.loads(study[0])["phase_2"].startswith("weights shared out")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(study)
        file.flush()
        plan = subprocess.run([program, "plan", *model, "--tokens", "8k", "--machine", machine, "--history", file.name],
                              capture_output=True, text=True)
    if plan.returncode != 0:
        raise SystemExit(plan.stderr)
    out = plan.stdout
    if "more\n" in out:
        raise SystemExit("a study has more points than `plan --history` shows: give it in parts")
    for line in out.splitlines():
        match = ROW.match(line)
        if not match:
            continue
        phase, setting, tokens, ranks, again, queries, measured, modelled = match.groups()
        operation = "phase 1" if phase == "phase 1" else f"step, {queries}"
        whole = "" if is_shared or ranks == "1" else ", whole weights"
        yield operation, setting + whole + (again or ""), int(tokens.replace(",", "")), int(ranks), float(measured), float(modelled)


def cell(measured, modelled, unit):
    digits = 3 if unit == 1 else 2
    return f"{unit * measured:.{digits}f} / {unit * modelled:.{digits}f} ({100 * (modelled / measured - 1):+.1f} %)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("machine")
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--shape", default="8b")
    parser.add_argument("--layers", help="where the studies had other than the shape's")
    args = parser.parse_args()
    model = ["--shape", args.shape] + (["--layers", args.layers] if args.layers else [])
    rows, errors, unit = defaultdict(dict), defaultdict(list), "GPU"
    for path in args.studies:
        for study in studies_in(path):
            unit = "GPU" if json.loads(study[0])["device"].startswith("CUDA") else "rank"
            for operation, setting, tokens, ranks, measured, modelled in runs_of(args.program, args.machine, model, study):
                rows[ranks, setting, tokens][operation] = (measured, modelled)
                kind = setting.split(":")[0] if operation == "phase 1" else "step"
                if "c=" in setting and operation == "phase 1":
                    kind = "recall"
                error = 100 * (modelled / measured - 1)
                groups = [(operation, "all"), (operation, f"{ranks} {unit}{'s' if ranks > 1 else ''}")]
                if operation == "phase 1":
                    groups.append((operation, kind))
                for group in groups:
                    errors[group].append(error)
    operations = ["phase 1"] + sorted({o for row in rows.values() for o in row} - {"phase 1"}, key=lambda o: int(o.split()[-1]))
    print("| held out | points | mean error | worst | mean of the signed errors |\n|---|---|---|---|---|")
    for (operation, group), all_errors in sorted(errors.items(), key=lambda e: (operations.index(e[0][0]), e[0][1] != "all", e[0][1])):
        worst = max(all_errors, key=abs)
        print(f"| {operation}{'' if group == 'all' else ', ' + group} | {len(all_errors)} | "
              f"{sum(map(abs, all_errors)) / len(all_errors):.1f} % | {worst:+.1f} % | {sum(all_errors) / len(all_errors):+.1f} % |")
    print()
    titles = ["phase 1, s: measured / modelled"] + [f"a step, {o.split()[-1]} {'query' if o.split()[-1] == '1' else 'queries'}, ms" for o in operations[1:]]
    print(f"| {unit}s | | tokens | " + " | ".join(titles) + " |\n|---|---|---|" + "---|" * len(titles))
    for (ranks, setting, tokens), row in sorted(rows.items()):
        cells = [cell(*row[o], 1 if o == "phase 1" else 1000) if o in row else "" for o in operations]
        print(f"| {ranks} | {setting} | {tokens // 1024}K | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
