#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills, failing calls and loss of power, at every call by which starattn changes a file.

One cycle: a command runs below faulty_disk.cpp until its fault; then the same command runs again on a
sound disk and has to end with the answers of a run that nothing disturbed, with what was saved before
kept, nothing called damaged, and nothing left behind. docs/reliability.md says what is promised.

usage: faults.py PROGRAM LIBRARY SOURCE_DIR [--kills N] [--errors N] [--losses N] [--random-kills N]
       [--seconds S]
"""
import argparse
import errno
import math
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import disk
from bench import Bench
from scenarios import Scenario, scenarios
from suite import Suite


def plans(scenario: Scenario) -> tuple[list[str], list[str]]:
    """Every kill, and every failing call, of one scenario."""
    calls = disk.read_record(scenario.record)
    n = scenario.n_calls
    kills = [f"{kind}:{i}" for i in range(1, n + 1) for kind in ("before", "behind")]
    writes = [call for call in calls if call.op == disk.WRITE]
    kills += [f"half:{call.number}" for call in writes]
    errors = [f"error:{i}:{error}" for i in range(1, n + 1) for error in (errno.ENOSPC, errno.EIO)]
    errors += [f"{kind}:{i}" for i in range(1, n + 1, 2) for kind in ("full", "dying")]
    errors += [f"{kind}:{call.number}" for call in writes for kind in ("short", "interrupt")] + ["short:0", "interrupt:0"]
    errors += [f"readerror:{i}:{errno.EIO}" for i in range(1, scenario.n_reads + 1)]
    errors += [f"flip:{call.number}" for call in writes if ".h5.tmp." in call.path]
    return kills, errors


def quota(items: list, n: int) -> list:
    return random.sample(items, min(n, len(items)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("library")
    parser.add_argument("source", type=Path)
    for name in ("kills", "random-kills", "errors", "losses"):
        parser.add_argument(f"--{name}", type=int, default=0, help="how many, over all scenarios")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end with what is done by then")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", help="only these, with commas between")
    parser.add_argument("--folder", help="where to work (default: a temporary folder)")
    parser.add_argument("--keep", help="folder for the state behind each failure")
    parser.add_argument("--stop-at-first", action="store_true")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        bench = Bench(os.path.abspath(arguments.program), os.path.abspath(arguments.library), arguments.source, Path(root))
        suite = Suite(bench, arguments)
        chosen = [s for s in scenarios() if not arguments.scenario or s.name in arguments.scenario.split(",")]
        todo = []
        for scenario in chosen:
            suite.learn(scenario)
            scenario.record = bench.root / f"record of {scenario.name}"
            kills, errors = plans(scenario)
            calls = len(disk.read_record(scenario.record))
            some = [disk.Loss(f"some of it, seed {seed}", "some", "some", seed) for seed in range(3)]
            losses = [(n, loss) for n in range(1, calls + 1) for loss in disk.LOSSES + some]
            always = [(calls, loss) for loss in disk.LOSSES]
            always += [(n, loss) for n in range(1, min(calls, scenario.n_surely_lost) + 1) for loss in disk.LOSSES]
            weight = 1 if scenario.ranks == 1 else 0.4  # a cycle of several ranks takes long
            share = lambda total: math.ceil(total * weight / sum(1 if s.ranks == 1 else 0.4 for s in chosen))
            todo += [("kills", scenario, plan) for plan in quota(kills, share(arguments.kills))]
            todo += [("random kills", scenario, random.randrange(1, scenario.n_calls))
                     for _ in range(share(arguments.random_kills))]
            todo += [("errors", scenario, plan) for plan in quota(errors, share(arguments.errors))]
            if arguments.losses:
                todo += [("losses", scenario, cut) for cut in always + quota(losses, share(arguments.losses))]
        random.shuffle(todo)
        started = time.time()
        for i, (kind, scenario, what) in enumerate(todo):
            if time.time() - started > arguments.seconds:
                break
            if kind == "kills":
                suite.cycle(kind, scenario, what, lambda: suite.kill(scenario, what))
            elif kind == "random kills":
                suite.cycle(kind, scenario, f"killed behind call {what}", lambda: suite.kill(scenario, "", what))
            elif kind == "errors":
                suite.cycle(kind, scenario, what, lambda: suite.error(scenario, what))
            else:
                suite.cycle(kind, scenario, f"power lost behind call {what[0]}, {what[1].name}",
                            lambda: suite.loss(scenario, *what))
            if (i + 1) % 100 == 0:
                print(f"{i + 1} of {len(todo)}, {time.time() - started:.0f} s: {suite.summary()}", flush=True)
        print(suite.summary())
        return 1 if suite.failures else 0


if __name__ == "__main__":
    sys.exit(main())
