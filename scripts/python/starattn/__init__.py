# SPDX-License-Identifier: Apache-2.0
"""Write inputs for starattn, run it, and read its answers and checkpoints. docs/python.md leads through it."""

from .answers import DamagedLine, answers_frame, read_answers
from .inputs import Document, Query, write_documents
from .program import ProgramFailed, Run, start

__all__ = [
    "DamagedLine",
    "Document",
    "ProgramFailed",
    "Query",
    "Run",
    "answers_frame",
    "read_answers",
    "start",
    "write_documents",
]  # starattn.checkpoint needs h5py and numpy, and is imported apart
