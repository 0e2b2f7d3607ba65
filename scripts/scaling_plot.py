#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what scaling_study.sh measured: seconds of phase 1 and milliseconds of a step over tokens.

  scaling_plot.py TABLE.tsv PICTURE.svg
"""
import csv
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "starattn", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
from matplotlib import pyplot

COLORS = {1: "#666666", 2: "#d9822b", 4: "#1f6fb4", 8: "#2e8b57"}
# Column, and how its line looks.
PHASE_1 = {"star:b=n": ("star, b = a = n/P", "phase 1", "-"), "again": ("the same, anchor again", "anchor again", "--"),
           "star:b=32k": ("star, b = a = 32K", "phase 1", "-."), "dense": ("dense", "phase 1", "-"),
           "ring": ("ring", "phase 1", ":")}


def number(text):
    return float(text.split()[0].replace(",", "")) if text != "-" else None


def main():
    table, picture = sys.argv[1:]
    with open(table) as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["ranks"] != "ranks"]  # tables end to end
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2))

    def line(axes, ranks, kind, column, style, label):
        points = sorted((number(row["tokens"]), number(row[column])) for row in rows
                        if int(row["ranks"]) == ranks and row["setting"].startswith(kind) and row[column] != "-")
        if points:
            axes.plot(*zip(*points), style, marker="o", markersize=3, color=COLORS[ranks], label=label)

    for ranks in sorted({int(row["ranks"]) for row in rows}):
        gpus = f"{ranks} GPU" + ("s" if ranks > 1 else "")
        for key, (name, column, style) in PHASE_1.items():
            line(left, ranks, "star:b=n" if key == "again" else key, column, style, f"{gpus}, {name}")
        star = "star:b=n" if ranks > 1 else "star:b=32k"
        line(right, ranks, star, "step, 1 quer.", "-", f"{gpus}, 1 query")
        line(right, ranks, star, "step, 32 quer.", "--", f"{gpus}, 32 queries")
    for axes, title, unit in ((left, "Phase 1", "seconds"), (right, "One step of phase 2", "milliseconds")):
        axes.set(xscale="log", yscale="log", title=title, xlabel="tokens", ylabel=unit)
        ticks = sorted({number(row["tokens"]) for row in rows})
        axes.set_xticks(ticks, [f"{int(n) // 1024}K" for n in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(fontsize=7)
    right.set(yscale="linear", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None})


main()
