# SPDX-License-Identifier: Apache-2.0
"""One cycle of each kind: a kill, a failing call or a loss of power, then the rerun and what is promised of
it."""
import argparse
import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Callable

import disk
from bench import CANNOT_CREATE, IO, OK, Bench, Broken
from saved import answers_in, blocks_in, core, identity, lines_of
from scenarios import Scenario


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
