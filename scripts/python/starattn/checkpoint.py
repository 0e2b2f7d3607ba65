# SPDX-License-Identifier: Apache-2.0
"""Saved documents as numpy arrays. Every digest is checked first: docs/checkpoint-format.md."""

import io
import json
import os
import stat

import h5py
import numpy
import xxhash


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint that is not as starattn wrote it."""


class Checkpoint:
    """One document, a folder of a run's --checkpoint-dir."""

    def __init__(self, folder):
        self.folder = os.fspath(folder)
        manifest = json.loads(self._read("manifest.json"))
        stated = manifest.pop("digest", None)
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        if stated != xxhash.xxh3_128_hexdigest(text.encode()):
            raise DamagedCheckpoint(f"{self.folder}/manifest.json: the digest in it does not agree")
        if (manifest.get("format"), manifest.get("format_version")) != ("starattn checkpoint", 1):
            raise DamagedCheckpoint(f"{self.folder}/manifest.json: expected format version 1")
        self.document = manifest["document"]  # n_tokens, block_size, kv_dtype, ...
        if not os.path.basename(os.path.realpath(folder)) == manifest["key"] == _key_of(self.document):
            raise DamagedCheckpoint(f"{self.folder}: its key does not agree with what manifest.json says")
        self._files = manifest["files"]
        self._piece_bytes = manifest["piece_bytes"]

    def blocks(self) -> list:
        """The blocks that are saved, ascending; a complete document has document["n_blocks"]."""
        return [i for i in range(self.document["n_blocks"]) if _block_name(i) in self._files]

    def token_ids(self) -> numpy.ndarray:
        """The context's token ids, int32 [n_tokens]."""
        with self._open("document.h5") as file:
            ids = _dataset(file, "token_ids", (self.document["n_tokens"],))[:]
        if xxhash.xxh3_128_hexdigest(ids.astype("<i4").tobytes()) != self.document["token_digest"]:
            raise DamagedCheckpoint(f"{self.folder}/document.h5: not the tokens that manifest.json speaks of")
        return ids

    def block(self, index: int) -> list:
        """K and V of each layer of a block, both [tokens, n_kv_heads, head_dim], RoPE applied to K.

        f32 and f16 come as they are stored; bf16 comes as float32, which has every one of its values.
        """
        document = self.document
        n_tokens = min(document["block_size"], document["n_tokens"] - index * document["block_size"])
        shape = (n_tokens, document["n_kv_heads"], document["head_dim"])
        with self._open(_block_name(index)) as file:
            parts = [
                values_of(_dataset(file, f"layer_{layer:02d}/{part}", shape), document["kv_dtype"])
                for layer in range(document["n_layers"])
                for part in "kv"
            ]
        return list(zip(parts[0::2], parts[1::2]))

    def _open(self, name: str) -> h5py.File:
        """The file, from the very bytes that were checked."""
        if name not in self._files:
            raise FileNotFoundError(f"{self.folder}: {name} is not saved")
        data, entry, step = self._read(name), self._files[name], self._piece_bytes
        digests = [xxhash.xxh3_128_hexdigest(data[i : i + step]) for i in range(0, len(data), step)]
        if len(data) != entry["bytes"] or digests != entry["digests"]:
            raise DamagedCheckpoint(f"{self.folder}/{name}: its bytes do not agree with manifest.json")
        return h5py.File(io.BytesIO(data), "r")

    def _read(self, name: str) -> bytes:
        path = f"{self.folder}/{name}"
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DamagedCheckpoint(f"{path}: expected a regular file")
            return file.read()


def values_of(dataset: h5py.Dataset, kv_dtype: str) -> numpy.ndarray:
    if kv_dtype != "bf16":
        return dataset[:]
    bits = numpy.empty(dataset.shape, "<u2")
    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=dataset.id.get_type())
    return (bits.astype("<u4") << 16).view("<f4")


def _key_of(document: dict) -> str:
    names = ("n_tokens", "token_digest", "plan", "kv_dtype", "model_fingerprint")
    fields = ["starattn document 1", *(str(document[name]) for name in names)]
    return xxhash.xxh3_128_hexdigest("".join(f"{len(f.encode())}:{f}" for f in fields).encode())


def _dataset(file: h5py.File, name: str, shape: tuple) -> h5py.Dataset:
    """Values that lie in the file itself: links and other layouts may name other files."""
    parts = name.split("/")
    paths = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    plain = all(isinstance(file.get(path, getlink=True), h5py.HardLink) for path in paths)
    dataset = file[name] if plain else None
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape:
        raise DamagedCheckpoint(f"{name}: expected a dataset of shape {shape}")
    if dataset.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS or dataset.external:
        raise DamagedCheckpoint(f"{name}: expected its values in one piece, in this file")
    return dataset


def _block_name(index: int) -> str:
    return f"block-{index:05d}.h5"
