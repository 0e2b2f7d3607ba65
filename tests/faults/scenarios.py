# SPDX-License-Identifier: Apache-2.0
"""The commands that are disturbed, each with the state that it finds."""
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from bench import BAD_DATA, OK, Bench


@dataclass
class Scenario:
    """A command that is disturbed, the state that it finds, and what the rerun has to reach."""
    name: str
    command: list[str]
    ranks: int = 1
    start: Callable[[Bench, Path], None] = lambda bench, folder: None
    then: list[list[str]] = field(default_factory=list)  # commands of the rerun; without: the same one
    ends_with: int = OK
    output: str = "out.jsonl"
    keeps: bool = True  # what was saved stays; not where the command is there to remove it
    n_surely_lost: int = 0  # calls from the first on, behind each of which the power always goes
    reference: list = None
    n_calls: int = 0
    n_reads: int = 0


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
