# SPDX-License-Identifier: Apache-2.0
"""Where commands are run: on a sound disk, or on one that goes wrong (faulty_disk.cpp)."""
import json
import os
import random
import signal
import struct
import subprocess
import time
from pathlib import Path

from tiny_model import make_tiny_model

DOCUMENTS = [
    {"id": "mill", "context": "The sky is blue and the grass is green near the old mill by the river. " * 3,
     "queries": [{"id": "long", "text": "What is blue?", "max_new_tokens": 6},
                 {"id": "short", "text": "And green?", "max_new_tokens": 1}]},
    {"id": "ships", "context": "Ships sail at dawn, and nobody knows where they go; the harbour sleeps. " * 2,
     "queries": ["Who sails?", {"id": "when", "text": "When?", "max_new_tokens": 2}]},
    {"id": "clock", "context": "The clock has stopped at nine. " * 2, "queries": ["When did it stop?"]}]
OK, BAD_DATA, CANNOT_CREATE, IO = 0, 65, 73, 74


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
