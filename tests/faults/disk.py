# SPDX-License-Identifier: Apache-2.0
"""What a disk holds after the power has gone, from the record that faulty_disk.cpp makes.

A file keeps what it had when it was last synced; a folder keeps the names that it had when it was last
synced. Of what came later, anything may be there: all of it, nothing, or a part. `Loss` says which.
"""
import os
import random
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path

HEAD = struct.Struct("<IIQQQIIII")
CREATE, WRITE, TRUNCATE, SYNC, CLOSE, RENAME, UNLINK, MKDIR, RMDIR = range(1, 10)
NAMES = ["", "create", "write", "truncate", "sync", "close", "rename", "unlink", "mkdir", "rmdir"]


@dataclass
class Call:
    op: int
    rank: int
    number: int
    inode: int
    offset: int
    path: str
    other: str
    data: bytes
    failed: bool


def normal(path: bytes) -> str:
    return os.path.normpath(os.fsdecode(path)) if path else ""


def read_record(path: Path) -> list[Call]:
    calls, text, at = [], path.read_bytes(), 0
    while at + HEAD.size <= len(text):
        op, rank, number, inode, offset, n_path, n_other, n_data, failed = HEAD.unpack_from(text, at)
        at += HEAD.size
        if at + n_path + n_other + n_data > len(text):
            break  # the recorder was killed
        fields = []
        for n in (n_path, n_other, n_data):
            fields.append(text[at:at + n])
            at += n
        calls.append(Call(op, rank, number, inode, offset, normal(fields[0]), normal(fields[1]),
                          fields[2], bool(failed)))
    return calls


@dataclass
class File:
    synced: bytes = b""
    later: list[Call] = field(default_factory=list)  # writes and truncations since

    def after(self, changes: list[Call]) -> bytes:
        content = bytearray(self.synced)
        for call in changes:
            end = call.offset + len(call.data)
            if call.op == TRUNCATE:
                end = call.offset
                del content[end:]
            content.extend(b"\0" * (end - len(content)))
            if call.op == WRITE:
                content[call.offset:end] = call.data
        return bytes(content)


@dataclass
class Loss:
    """Which changes that were not synced reach the disk."""
    name: str
    data: str     # of files: "none", "all" or "some"
    entries: str  # of folders: the same
    seed: int = 0


LOSSES = [Loss("all that was not synced", "none", "none"), Loss("names, but no contents", "none", "all"),
          Loss("contents, but no names", "all", "none")]


class Disk:
    """Folders are {name: file or folder}; each keeps its synced entries and the changes since."""

    def __init__(self, root: Path):
        self.root = root
        self.files: dict[int, File] = {}  # by the record's inodes
        self.names: dict[str, dict[str, object]] = {}    # folder -> synced entries: a File, or "folder"
        self.changes: dict[str, list[tuple[str, object]]] = {}  # folder -> (name, entry or None)
        for folder, subfolders, names in os.walk(root):
            entries: dict[str, object] = {name: "folder" for name in subfolders}
            for name in names:
                entries[name] = File((Path(folder) / name).read_bytes())
            self.names[folder] = entries
            self.changes[folder] = []

    def now(self, folder: str) -> dict[str, object]:
        return self.entries(folder, len(self.changes.get(folder, [])))

    def entries(self, folder: str, n_changes: int) -> dict[str, object]:
        entries = dict(self.names.get(folder, {}))
        for name, entry in self.changes.get(folder, [])[:n_changes]:
            if entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
        return entries

    def _change(self, path: str, entry: object) -> None:
        folder, name = os.path.split(path)
        self.changes.setdefault(folder, []).append((name, entry))

    def _file(self, call: Call) -> File | None:
        """That of the call; one that was there before the record began is known by its name first."""
        if call.inode not in self.files:
            entry = self.now(os.path.dirname(call.path)).get(os.path.basename(call.path))
            if not isinstance(entry, File):
                return None
            self.files[call.inode] = entry
        return self.files[call.inode]

    def apply(self, call: Call) -> None:
        if call.failed:
            return
        if call.op == CREATE:
            self.files[call.inode] = File()
            self._change(call.path, self.files[call.inode])
        elif call.op in (WRITE, TRUNCATE):
            if file := self._file(call):
                file.later.append(call)
        elif call.op == SYNC:
            if call.path in self.names:
                self.names[call.path] = self.now(call.path)
                self.changes[call.path] = []
            elif file := self._file(call):
                file.synced, file.later = file.after(file.later), []
        elif call.op == RENAME:
            entry = self.now(os.path.dirname(call.path)).get(os.path.basename(call.path))
            self._change(call.path, None)
            self._change(call.other, entry)
        elif call.op in (UNLINK, RMDIR):
            self._change(call.path, None)
        elif call.op == MKDIR:
            self._change(call.path, "folder")
            self.names[call.path], self.changes[call.path] = {}, []

    def write_out(self, loss: Loss, to: Path) -> None:
        """Makes `to` what the disk holds after the loss."""
        draw = random.Random(loss.seed)
        shutil.rmtree(to, ignore_errors=True)
        self._write_folder(str(self.root), to, loss, draw, {})

    def _write_folder(self, folder: str, to: Path, loss: Loss, draw: random.Random, contents: dict) -> None:
        to.mkdir()
        n = len(self.changes.get(folder, []))
        kept = {"none": 0, "all": n, "some": draw.randint(0, n)}[loss.entries]
        for name, entry in self.entries(folder, kept).items():
            if entry == "folder":
                self._write_folder(os.path.join(folder, name), to / name, loss, draw, contents)
            elif isinstance(entry, File):
                if id(entry) not in contents:
                    contents[id(entry)] = entry.after(self._kept(entry, loss, draw))
                (to / name).write_bytes(contents[id(entry)])

    @staticmethod
    def _kept(file: File, loss: Loss, draw: random.Random) -> list[Call]:
        if loss.data != "some":
            return file.later if loss.data == "all" else []
        kept = []
        for call in file.later:
            fate = draw.random()
            if fate < 0.4:
                continue
            if fate < 0.6 and call.data:  # torn
                call = Call(**{**call.__dict__, "data": call.data[:draw.randrange(len(call.data))]})
            kept.append(call)
        return kept
