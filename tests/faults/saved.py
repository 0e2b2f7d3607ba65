# SPDX-License-Identifier: Apache-2.0
"""What a folder holds of answers and of encoded blocks, at whatever instant a run has ended."""
import json
import os
from pathlib import Path

from bench import Broken

SAME = ("id", "query_id", "answer", "tokens", "finish_reason", "plan", "error", "task", "setting", "score")


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
