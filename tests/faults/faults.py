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
import json
import math
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import disk
from tiny_model import make_tiny_model

DOCUMENTS = [
    {"id": "mill", "context": "The sky is blue and the grass is green near the old mill by the river. " * 3,
     "queries": [{"id": "long", "text": "What is blue?", "max_new_tokens": 6},
                 {"id": "short", "text": "And green?", "max_new_tokens": 1}]},
    {"id": "ships", "context": "Ships sail at dawn, and nobody knows where they go; the harbour sleeps. " * 2,
     "queries": ["Who sails?", {"id": "when", "text": "When?", "max_new_tokens": 2}]},
    {"id": "clock", "context": "The clock has stopped at nine. " * 2, "queries": ["When did it stop?"]}]
SAME = ("id", "query_id", "answer", "tokens", "finish_reason", "plan", "error", "task", "setting", "score")
OK, BAD_DATA, CANNOT_CREATE, IO = 0, 65, 73, 74


@dataclass
class Scenario:
    """A command that is disturbed, the state that it finds, and what the rerun has to reach."""
    name: str
    command: list[str]
    ranks: int = 1
    start: Callable[["Bench", Path], None] = lambda bench, folder: None
    then: list[list[str]] = field(default_factory=list)  # commands of the rerun; without: the same one
    ends_with: int = OK
    output: str = "out.jsonl"
    keeps: bool = True  # what was saved stays; not where the command is there to remove it
    n_surely_lost: int = 0  # calls from the first on, behind each of which the power always goes
    reference: list = None
    n_calls: int = 0
    n_reads: int = 0


class Broken(Exception):
    """A promise that was not kept."""


class Bench:
    def __init__(self, program: str, library: str, source: Path, root: Path):
        self.program, self.library, self.root = program, library, root
        make_tiny_model(root / "model", source / "data/demo-model/tokenizer.json")
        (root / "in.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCUMENTS))
        bad = ['{"id": "torn", "context": ', json.dumps(DOCUMENTS[0]), json.dumps(DOCUMENTS[2])]
        (root / "bad.jsonl").write_text("\n".join(bad) + "\n")
        self.state, self.record = root / "state", root / "record"
        self.log = ""

    def run(self, folder: Path, command: list[str], ranks: int = 1, plan: str | None = None,
            recorded: bool = False, kill_at: int | None = None) -> int:
        """The exit code; what it said in self.log. plan None: a sound disk."""
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                           OMPI_MCA_mpi_yield_when_idle="1", OMPI_MCA_btl_vader_single_copy_mechanism="none",
                           OMPI_MCA_hwloc_base_binding_policy="none", OPENBLAS_NUM_THREADS="1",
                           OMPI_MCA_btl="self,vader", OMPI_MCA_pml="ob1", OMPI_MCA_osc="^ucx")
        if ranks == 1:  # a quick start
            environment |= {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_btl": "self",
                            "OMPI_MCA_coll": "self,basic,libnbc"}
        if plan is not None:
            self.state.write_bytes(b"\0" * 4096)
            self.record.unlink(missing_ok=True)
            environment |= {"FAULTY_DISK_FOLDER": str(folder), "FAULTY_DISK_STATE": str(self.state),
                            "LD_PRELOAD": self.library}
            if plan:
                environment["FAULTY_DISK_PLAN"] = plan
            if recorded:
                environment["FAULTY_DISK_RECORD"] = str(self.record)
        preload = environment.pop("LD_PRELOAD", "") if ranks > 1 else ""
        launcher = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
        if preload:
            launcher += ["-x", f"LD_PRELOAD={preload}"]
        process = subprocess.Popen(launcher + [self.program] + command, cwd=folder, env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", start_new_session=True)
        if kill_at is not None:
            self._kill(process, kill_at, ranks)
        try:
            self.log = process.communicate(timeout=300)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Broken("it hangs: 300 s without an end")
        return process.returncode

    def _kill(self, process: subprocess.Popen, n_calls: int, ranks: int) -> None:
        """SIGKILL to a rank (or to mpirun) a moment behind that call, wherever it is by then."""
        while process.poll() is None and self.counts()[0] < n_calls:
            time.sleep(0.0005)
        time.sleep(random.random() * 0.002)
        if process.poll() is not None:
            return
        victims = [process.pid]
        if ranks > 1:
            found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
            victims += [int(pid) for pid in found.stdout.split()]
        try:
            os.kill(random.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            pass

    def counts(self) -> tuple[int, int, int]:
        """Calls and reads so far, and whether the fault has hit."""
        return struct.unpack("<QQI", self.state.read_bytes()[:20])

    def check(self, folder: Path, command: list[str], wanted: int = OK, ranks: int = 1) -> None:
        for _ in range(3):
            code = self.run(folder, command, ranks)
            if "before MPI_INIT completed" not in self.log:
                break  # else the launcher has failed: a machine under load; the program has not begun
        if code != wanted:
            raise Broken(f"{' '.join(command[:2])} on a sound disk: exit {code}, not {wanted}")


# --- what a folder holds ---------------------------------------------------------------------------
def lines_of(path: Path, is_torn: bool = False) -> list[dict]:
    """The whole lines; of a file that a loss of power has torn, those before the first that is none."""
    if not path.exists():
        return []
    text = path.read_bytes()
    lines = []
    for line in text[:text.rfind(b"\n") + 1].splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            if is_torn:
                break
            raise Broken(f"{path.name} holds a line that is no JSON: {line[:60]!r}")
    return lines


def core(line: dict) -> dict:
    return {key: line[key] for key in SAME if key in line}


def answers_in(folder: Path, output: str, is_torn: bool = False) -> set:
    """Keys of the answers that are on disk, in the output or waiting in its journal."""
    lines = lines_of(folder / output, is_torn) + lines_of(folder / (output + ".journal"), is_torn)
    return {(line["id"], line.get("query_id")) for line in lines if "error" not in line and "id" in line}


def blocks_in(folder: Path) -> dict:
    """The committed blocks: {(document, file): its manifest entry}."""
    found = {}
    for manifest in folder.glob("kept/*/manifest.json"):
        try:
            files = json.loads(manifest.read_bytes())["files"]
        except ValueError:
            raise Broken(f"{manifest} is not whole")
        found |= {(manifest.parent.name, name): json.dumps(entry) for name, entry in files.items()}
    return found


def identity(folder: Path, blocks: dict) -> dict:
    return {(document, name): os.stat(folder / "kept" / document / name).st_mtime_ns
            for document, name in blocks if (folder / "kept" / document / name).exists()}


# --- the scenarios ---------------------------------------------------------------------------------
def run_command(*more: str, source: str = "in.jsonl", work: str = "run") -> list[str]:
    output = [] if work == "encode" else ["--output", "out.jsonl", "--max-new-tokens", "4"]
    return [work, "--model", "../model", "--input", f"../{source}", "--block-size", "32", "--threads", "1",
            "--checkpoint-dir", "kept", *output, *more]


def half_done(bench: Bench, folder: Path) -> None:
    """Answers in the output, torn, and in the journal; a block gone, one cut off; leftovers of a writer."""
    bench.check(folder, run_command())
    output = folder / "out.jsonl"
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(lines[0] + lines[1][:40])
    (folder / "out.jsonl.journal").write_bytes(lines[4] + lines[2] + lines[3][:25])
    documents = sorted((folder / "kept").iterdir())
    (documents[0] / "block-00001.h5").unlink()
    os.truncate(documents[1] / "block-00000.h5", 1000)
    (documents[0] / "manifest.json.tmp.0123456789abcdef").write_text("{")


def other_settings(bench: Bench, folder: Path) -> None:
    """Whole answers, but other ones: shorter."""
    command = run_command()
    command[command.index("--max-new-tokens") + 1] = "2"
    bench.check(folder, command)


def all_saved(bench: Bench, folder: Path) -> None:
    bench.check(folder, run_command(work="encode"))


def error_at_the_front(bench: Bench, folder: Path) -> None:
    bench.check(folder, run_command(source="bad.jsonl"), BAD_DATA)


def scenarios() -> list[Scenario]:
    evaluation = ["eval", "--model", "../model", "--task", "niah_single_1", "--length", "300", "--count", "2",
                  "--setting", "dense", "--setting", "star:b=n/4", "--threads", "1", "--output", "out.jsonl"]
    generation = ["generate", "--model", "../model", "--task", "niah_single_1", "--length", "300", "--count",
                  "3", "--output", "out.jsonl", "--overwrite"]
    prune = ["checkpoints", "prune", "kept", "--keep-newest", "0"]
    two = ["--ranks-per-document", "1"]
    return [
        Scenario("run", run_command()),
        Scenario("half done", run_command(), start=half_done),
        Scenario("overwrite", run_command("--overwrite"), start=other_settings, keeps=False),
        Scenario("encode", run_command(work="encode"), then=[run_command(work="encode"), run_command(work="answer")]),
        Scenario("bad line", run_command(source="bad.jsonl"), start=error_at_the_front, ends_with=BAD_DATA,
                 n_surely_lost=12),  # answers move from the output to the journal
        Scenario("eval", evaluation),
        Scenario("generate", generation, keeps=False, n_surely_lost=12),
        Scenario("prune", prune, start=all_saved, then=[run_command()], keeps=False),
        Scenario("2 ranks", run_command(), ranks=2),
        Scenario("2 groups", run_command(*two), ranks=2),
        Scenario("3 groups", run_command(*two), ranks=3),
        Scenario("3 ranks half done", run_command(), ranks=3, start=half_done),
    ]


# --- one cycle -------------------------------------------------------------------------------------
class Suite:
    def __init__(self, bench: Bench, arguments: argparse.Namespace):
        self.bench, self.arguments = bench, arguments
        self.work = bench.root / "work"
        self.done: Counter = Counter()
        self.failures: list[str] = []

    def fresh(self, scenario: Scenario) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        start = self.bench.root / f"start of {scenario.name}"
        if not start.exists():
            start.mkdir()
            scenario.start(self.bench, start)
        shutil.copytree(start, self.work)
        return self.work

    def learn(self, scenario: Scenario) -> None:
        """The undisturbed run: its answers, and how many calls it makes."""
        folder = self.fresh(scenario)
        code = self.bench.run(folder, scenario.command, scenario.ranks, plan="", recorded=True)
        if code != scenario.ends_with:
            raise SystemExit(f"{scenario.name}: exit {code} without any fault\n{self.bench.log}")
        scenario.n_calls, scenario.n_reads, _ = self.bench.counts()
        shutil.copy(self.bench.record, self.bench.root / f"record of {scenario.name}")
        for command in scenario.then:
            self.bench.check(folder, command)
        scenario.reference = [core(line) for line in lines_of(folder / scenario.output)]

    def rerun(self, scenario: Scenario, folder: Path, ranks: int, may_stay: set = frozenset()) -> None:
        """The same command on a sound disk, and everything that is promised of it. may_stay: files whose
        removal has failed."""
        blocks = blocks_in(folder)
        before = identity(folder, blocks)
        self.check_listed(scenario, folder)
        log = ""
        for command in scenario.then or [scenario.command]:
            plain = command[0] in ("generate", "checkpoints")
            self.bench.check(folder, command, scenario.ends_with, 1 if plain else ranks)
            log += self.bench.log
        for word in ("damaged", "rebuilding", "counts as missing", "a bug", "set aside"):
            if word in log:
                line = next(line for line in log.splitlines() if word in line)
                raise Broken(f"the rerun says: {line}")
        if scenario.ends_with == OK and "error:" in log:
            raise Broken("the rerun says " + log[log.index("error:"):].splitlines()[0])
        found = [core(line) for line in lines_of(folder / scenario.output)]
        if found != scenario.reference:
            raise Broken(f"other answers: {len(found)} lines, not the {len(scenario.reference)} of the undisturbed run")
        after = blocks_in(folder)
        if scenario.keeps:
            for block, entry in blocks.items():
                if after.get(block) != entry or identity(folder, {block: 0}).get(block) != before.get(block):
                    if block in before and self.is_sound(scenario, block):
                        raise Broken(f"{block[1]} was saved, and was encoded again")
        left = [path.name for path in folder.rglob("*")
                if (".tmp." in path.name or path.name.endswith(".journal")) and path.name not in may_stay]
        if left:
            raise Broken(f"left behind: {', '.join(left)}")

    def check_listed(self, scenario: Scenario, folder: Path) -> None:
        """What a manifest lists is there, and whole as far as its size tells; the rerun reads it all."""
        for block, entry in blocks_in(folder).items():
            path = folder / "kept" / block[0] / block[1]
            if self.is_sound(scenario, block) and not (path.exists() and path.stat().st_size == json.loads(entry)["bytes"]):
                raise Broken(f"the manifest lists {block[1]}, which is not there")

    def is_sound(self, scenario: Scenario, block: tuple[str, str]) -> bool:
        """Not one that the start state lacks or has cut off."""
        folder = self.bench.root / f"start of {scenario.name}" / "kept" / block[0]
        if not (folder / "manifest.json").exists():
            return True
        path = folder / block[1]
        listed = block[1] in json.loads((folder / "manifest.json").read_bytes())["files"]
        return not listed or (path.exists() and path.stat().st_size != 1000)

    def cycle(self, kind: str, scenario: Scenario, label: str, action: Callable[[], bool]) -> None:
        """Counts a cycle in which the fault has hit; keeps the folder of one that failed."""
        try:
            if action():
                self.done[kind] += 1
                self.done[kind, "1 rank" if scenario.ranks == 1 else "2 and 3 ranks"] += 1
        except Broken as broken:
            self.done[kind] += 1
            text = f"{scenario.name}, {label}: {broken}"
            self.failures.append(text)
            print(f"FAILED: {text}\n    " + "\n    ".join(self.bench.log.splitlines()[-4:]), flush=True)
            if self.arguments.keep:
                shutil.copytree(self.work, f"{self.arguments.keep}/{len(self.failures)}", dirs_exist_ok=True)
            if self.arguments.stop_at_first:
                raise SystemExit(self.summary())

    def ranks_of_rerun(self, scenario: Scenario) -> int:
        return random.choice([1, 1, 2, 3]) if scenario.ranks > 1 else random.choice([1] * 9 + [2])

    def kill(self, scenario: Scenario, plan: str, kill_at: int | None = None) -> bool:
        folder = self.fresh(scenario)
        code = self.bench.run(folder, scenario.command, scenario.ranks, plan=plan, kill_at=kill_at)
        if kill_at is None and not self.bench.counts()[2]:
            return False
        if code == scenario.ends_with:
            if kill_at is None:
                raise Broken("killed, and yet it ended as if nothing had been")
            return False  # the signal came too late
        answers_in(folder, scenario.output)  # every line but the last is whole
        self.rerun(scenario, folder, self.ranks_of_rerun(scenario))
        return True

    def error(self, scenario: Scenario, plan: str) -> bool:
        folder = self.fresh(scenario)
        code = self.bench.run(folder, scenario.command, scenario.ranks, plan=plan, recorded=True)
        if not self.bench.counts()[2]:
            return False
        kind = plan.split(":")[0]
        failed = [call for call in disk.read_record(self.bench.record) if call.failed]
        must_fail = kind in ("error", "readerror", "full", "dying") and any(map(matters, failed))
        if kind == "error" and failed and failed[0].op == disk.MKDIR:
            must_fail = False  # it is tried again
        if kind in ("short", "interrupt") and code != scenario.ends_with:
            raise Broken(f"a short or interrupted write ends the run: exit {code}")
        if must_fail and code not in (CANNOT_CREATE, IO):
            raise Broken(f"exit {code} behind a failed {disk.NAMES[failed[0].op]} of {Path(failed[0].path).name}")
        if code not in (scenario.ends_with, CANNOT_CREATE, IO):
            raise Broken(f"exit {code}")
        if code in (CANNOT_CREATE, IO):
            n_said = len(re.findall(r"^(?:\d\d:\d\d:\d\d )?error:", self.bench.log, re.MULTILINE))
            if n_said == 0:
                raise Broken(f"exit {code} without a word")
            if failed and not any(said_of(call, self.bench.log) for call in failed):
                raise Broken(f"exit {code}, and no message names {Path(failed[0].path).name}")
        may_stay = {Path(call.path).name for call in failed if call.op == disk.UNLINK}
        self.rerun(scenario, folder, self.ranks_of_rerun(scenario), may_stay)
        return True

    def loss(self, scenario: Scenario, n: int, loss: disk.Loss) -> bool:
        """The power goes before call n + 1."""
        calls = disk.read_record(self.bench.root / f"record of {scenario.name}")
        self.fresh(scenario)
        held = disk.Disk(self.work)
        for call in calls[:n]:
            held.apply(call)
        seen_folder = self.bench.root / "seen"
        held.write_out(disk.Loss("nothing", "all", "all"), seen_folder)
        held.write_out(loss, self.work)
        if scenario.keeps:
            # What a user may have seen on disk is there, but for what a rank is syncing right now.
            last = {call.rank: call for call in calls[:n]}.values()
            lost = answers_in(seen_folder, scenario.output) - answers_in(self.work, scenario.output, is_torn=True)
            if len(lost) > n_lines_ahead(calls[:n], scenario.output):
                raise Broken(f"{len(lost)} answers that were on disk are lost")
            syncing_blocks = sum(call.op == disk.RENAME and call.other.endswith("manifest.json") for call in last)
            lost_blocks = set(blocks_in(seen_folder)) - set(blocks_in(self.work))
            if len(lost_blocks) > syncing_blocks:
                raise Broken(f"{len(lost_blocks)} committed blocks are lost")
        elif scenario.name == "generate":  # its output is renamed into place when it is whole
            is_there = (self.work / "out.jsonl").exists()
            if n == len(calls) and not is_there:
                raise Broken("the run had ended with 0, and its output is lost")
            if is_there and [core(line) for line in lines_of(self.work / "out.jsonl")] != scenario.reference:
                raise Broken("the output is there, and not whole")
        self.rerun(scenario, self.work, self.ranks_of_rerun(scenario))
        return True

    def summary(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.done.items() if isinstance(kind, str))
        by_ranks = "; ".join(f"{kind[0]}, {kind[1]}: {count}" for kind, count in self.done.items() if isinstance(kind, tuple))
        return f"{counts}; {len(self.failures)} failed. ({by_ranks})"


def n_lines_ahead(calls: list[disk.Call], output: str) -> int:
    """Lines that are not synced yet and may be lost: written to the output or its journal with nothing
    else done since, for whoever writes them syncs both before anything else."""
    names, n, synced = (output, output + ".journal"), 0, set()
    writers = {call.rank for call in calls if Path(call.path).name in names}
    for call in reversed([call for call in calls if call.rank in writers]):
        name = Path(call.path).name
        if name not in names or call.op not in (disk.WRITE, disk.SYNC):
            break
        if call.op == disk.SYNC:
            synced.add(name)
        elif name not in synced:
            n += 1
    return n


def matters(call: disk.Call) -> bool:
    """Whether the run may not end well when this call has failed."""
    name = Path(call.path).name
    is_lock = name in ("lock", "in-use") or name.endswith(".lock")
    return call.op in (disk.CREATE, disk.WRITE, disk.TRUNCATE, disk.SYNC, disk.RENAME, disk.MKDIR) and not is_lock


def said_of(call: disk.Call, log: str) -> bool:
    name = Path(call.path).name.split(".tmp.")[0]
    return name in log or "directory" in log  # a folder may go by its relative name


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
