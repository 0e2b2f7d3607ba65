# SPDX-License-Identifier: Apache-2.0
"""Input lines: documents and the questions about them, as docs/input-output.md describes them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field


@dataclass
class Query:
    """A question; what is None is left to the options of the run."""

    text: str
    id: str | None = None
    answers: list[str] | None = None  # references, for the score
    max_new_tokens: int | None = None
    stop: list[str] | None = None


@dataclass
class Document:
    """A text, given itself or as a file that is named relative to the input file, and its questions."""

    queries: list  # of Query, or of texts
    context: str | None = None
    context_file: str | os.PathLike | None = None
    id: str | None = None
    meta: dict = field(default_factory=dict)  # yours; starattn ignores it

    def line(self) -> str:
        """The line of input, without its line feed."""
        if (self.context is None) == (self.context_file is None):
            raise ValueError(f"document {self.id!r}: expected either context or context_file")
        if not self.queries:
            raise ValueError(f"document {self.id!r}: expected at least one query")
        record = {"id": self.id, "context": self.context, "meta": self.meta or None}
        if self.context_file is not None:
            record["context_file"] = os.fspath(self.context_file)
        record["queries"] = [_present(asdict(q)) if isinstance(q, Query) else q for q in self.queries]
        try:
            return json.dumps(_present(record), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:  # such as NaN, which pandas has for what is not there
            raise ValueError(f"document {self.id!r}: {error}") from error


def write_documents(path, documents) -> int:
    """Writes the input file anew, whole or not at all, and returns how many documents it has."""
    temporary = f"{os.fspath(path)}.tmp"
    n_documents = 0
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for document in documents:
                file.write(document.line() + "\n")
                n_documents += 1
    except BaseException:
        os.remove(temporary)
        raise
    os.replace(temporary, path)
    return n_documents


def _present(record: dict) -> dict:
    return {key: value for key, value in record.items() if value is not None}
