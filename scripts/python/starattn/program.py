# SPDX-License-Identifier: Apache-2.0
"""The program itself: start it with options as keyword arguments, follow it, stop it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile

STOPPED = 75  # the exit code of a run that was asked to stop and saved everything


class ProgramFailed(RuntimeError):
    """starattn ended with an error; `code` is its exit code (docs/troubleshooting.md)."""

    def __init__(self, code: int, message: str):
        super().__init__(f"starattn ended with exit code {code}: {message}")
        self.code = code


class Run:
    """A command at work. `output` and `log` are what it wrote to standard output and error, once it has ended."""

    def __init__(self, command: list, progress_file=None):
        self.command = command
        self.output = self.log = ""
        self._progress_file = progress_file
        # Files, because a pipe that nobody reads fills up and holds the run.
        self._files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
        output, log = self._files
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=log)

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Asks for an early end: what has begun is finished and saved."""
        if not self.is_over():
            self._process.send_signal(signal.SIGUSR1)  # the one signal that mpirun hands on

    def progress(self) -> dict | None:
        """What the run says of itself in its --progress-file; None before it has said anything."""
        if self._progress_file is None:
            raise ValueError("the run was started without progress_file=")
        try:
            with open(self._progress_file, encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def wait(self) -> int:
        """Waits for the end. Returns 0, or 75 for a run that was stopped; raises ProgramFailed for others."""
        code = self._process.wait()
        if self._files:
            self.output, self.log = map(_text_of, self._files)
            self._files = []
        if code not in (0, STOPPED):
            raise ProgramFailed(code, _last_error(self.log))
        return code


def start(command: str, *arguments, launcher=(), program="starattn", **options) -> Run:
    """Starts e.g. start("run", launcher=["mpirun", "-n", "4"], model=..., input=..., block_size="32k").

    An option is its name with underscores for dashes: True for a flag, a list for an option that is given
    several times; None and False leave it out.
    """
    line = [*launcher, program, command, *map(os.fspath, arguments)]
    for name, value in options.items():
        line += _option("--" + name.replace("_", "-"), value)
    return Run(line, options.get("progress_file"))


def _option(name: str, value) -> list:
    if value is None or value is False:
        return []
    if value is True:
        return [name]
    values = value if isinstance(value, (list, tuple)) else [value]
    return [word for each in values for word in (name, str(each))]


def _text_of(file) -> str:
    with file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def _last_error(log: str) -> str:
    errors = re.findall(r"^(?:\d\d:\d\d:\d\d )?error: (.*)", log, re.MULTILINE)
    of_options = re.findall(r"^(.+)\nRun with --help for more information", log, re.MULTILINE)
    lines = [line for line in log.splitlines() if line.strip()]
    return (errors or of_options or lines or ["it said nothing"])[-1]
