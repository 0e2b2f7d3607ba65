# SPDX-License-Identifier: Apache-2.0
"""Answer lines, each checked against the digest at its end."""

import json
import os

import xxhash

_DIGEST_FIELD = len(',"digest":"0123456789abcdef"}')


class DamagedLine(ValueError):
    """A line of an output that is not as starattn wrote it."""


def read_answers(path):
    """Yields the lines of an output as dictionaries, in their order: answers, and errors, which have "error".

    Raises DamagedLine with file and line number for a line that was changed or cut off.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            yield _checked(line, f"{os.fspath(path)}:{number}")


def answers_frame(path):
    """The output as a pandas DataFrame, a row a line; nested keys are columns such as "seconds.encode"."""
    import pandas

    return pandas.json_normalize(list(read_answers(path)))


def _checked(line: bytes, where: str) -> dict:
    if not line.endswith(b"\n"):
        raise DamagedLine(f"{where}: the line is cut off; run the same command again, which completes it")
    line = line[:-1]
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DamagedLine(f"{where}: {error}; run the same command again, which replaces it") from None
    if not isinstance(record, dict):
        raise DamagedLine(f"{where}: expected an object")
    stated = record.pop("digest", None)  # outputs of version 0.1.0 have none
    if stated is not None and stated != xxhash.xxh3_64_hexdigest(line[:-_DIGEST_FIELD]):
        raise DamagedLine(f"{where}: the line was changed; run the same command again, which replaces it")
    return record
