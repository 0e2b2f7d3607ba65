# SPDX-License-Identifier: Apache-2.0
"""Runs the program in $STARATTN with the demo model in $STARATTN_MODEL and reads what it leaves."""

import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py
import numpy

import starattn
from starattn.checkpoint import Checkpoint, DamagedCheckpoint, values_of

PROGRAM = os.environ["STARATTN"]
MODEL = os.environ["STARATTN_MODEL"]


class StarattnTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="starattn-python-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "note.txt").write_text("The key is under the blue stone. " * 40, encoding="utf-8")
        self.input = self.folder / "questions.jsonl"
        self.output = self.folder / "answers.jsonl"

    def write(self):
        query = starattn.Query("Where is the key?", id="key", answers=["stone"], max_new_tokens=4)
        return starattn.write_documents(
            self.input,
            [
                starattn.Document(["What is blue?", query], context_file="note.txt", id="note"),
                starattn.Document(["Was steht da?"], context="Der Schl\u00fcssel liegt dort.", id="zwei"),
            ],
        )

    def start(self, **options):
        options = {"model": MODEL, "input": self.input, "output": self.output, "max_new_tokens": 3} | options
        return starattn.start("run", program=PROGRAM, **options)

    def test_answers_of_a_run(self):
        self.assertEqual(self.write(), 2)
        self.assertEqual(self.start().wait(), 0)
        answers = list(starattn.read_answers(self.output))
        ids = [(answer["id"], answer["query_id"]) for answer in answers]
        self.assertEqual(ids, [("note", "0"), ("note", "key"), ("zwei", "0")])
        self.assertEqual(len(answers[0]["tokens"]), 3)
        self.assertIn("score", answers[1])
        self.assertNotIn("digest", answers[0])

    def test_frame(self):
        self.write()
        self.start().wait()
        frame = starattn.answers_frame(self.output)
        self.assertEqual(list(frame["query_id"]), ["0", "key", "0"])
        self.assertTrue((frame["seconds.encode"] >= 0).all())

    def test_a_changed_line_is_noticed(self):
        self.write()
        self.start().wait()
        text = self.output.read_text(encoding="utf-8")
        self.output.write_text(text.replace('"finish_reason":"length"', '"finish_reason":"stop"', 1))
        with self.assertRaisesRegex(starattn.DamagedLine, "answers.jsonl:1: the line was changed"):
            list(starattn.read_answers(self.output))
        self.output.write_text(text[:-20], encoding="utf-8")
        with self.assertRaisesRegex(starattn.DamagedLine, "answers.jsonl:3: the line is cut off"):
            list(starattn.read_answers(self.output))

    def test_what_went_wrong_is_said(self):
        with self.assertRaisesRegex(starattn.ProgramFailed, "questions.jsonl") as caught:
            self.start().wait()
        self.assertEqual(caught.exception.code, 66)
        self.write()
        with self.assertRaisesRegex(starattn.ProgramFailed, "nonsense") as caught:
            self.start(nonsense=1).wait()
        self.assertEqual(caught.exception.code, 2)

    def test_documents_are_checked(self):
        with self.assertRaisesRegex(ValueError, "either context or context_file"):
            starattn.write_documents(self.input, [starattn.Document(["?"])])
        with self.assertRaisesRegex(ValueError, "at least one query"):
            starattn.write_documents(self.input, [starattn.Document([], context="a")])
        with self.assertRaisesRegex(ValueError, "document 'a'"):
            starattn.write_documents(self.input, [starattn.Document(["?"], context="a", id="a", meta={"x": float("nan")})])
        self.assertEqual(list(self.folder.glob("questions.jsonl*")), [])

    def test_checkpoint(self):
        self.write()
        kept = self.folder / "kept"
        self.start(checkpoint_dir=kept, block_size=64).wait()
        documents = [Checkpoint(folder) for folder in kept.iterdir() if folder.is_dir()]
        note = max(documents, key=lambda document: document.document["n_tokens"])
        self.assertEqual(note.blocks(), list(range(note.document["n_blocks"])))
        self.assertGreater(len(note.blocks()), 1)
        self.assertEqual(len(note.token_ids()), note.document["n_tokens"])
        layers = note.block(note.blocks()[-1])
        self.assertEqual(len(layers), note.document["n_layers"])
        k, v = layers[-1]
        self.assertEqual((k.dtype, k.shape), ("float32", v.shape))
        self.assertTrue(numpy.isfinite(k).all() and numpy.isfinite(v).all())
        self.assertGreater(float(numpy.abs(k).max()), 0)

    def test_bf16_is_read_bit_by_bit(self):
        bf16 = h5py.h5t.IEEE_F32LE.copy()
        bf16.set_fields(15, 7, 8, 0, 7)
        bf16.set_size(2)
        bf16.set_ebias(127)
        bits = numpy.array([0x0001, 0x3F80, 0xC049, 0x7F7F, 0x8000, 0x0080], "<u2")  # a subnormal first
        expected = numpy.array([2.0**-133, 1, -3.140625, 255 * 2.0**120, -0.0, 2.0**-126], "float32")
        with h5py.File(self.folder / "bf16.h5", "w") as file:
            space = h5py.h5s.create_simple(bits.shape)
            dataset = h5py.Dataset(h5py.h5d.create(file.id, b"k", bf16, space))
            dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=bf16)
            numpy.testing.assert_array_equal(values_of(dataset, "bf16"), expected)

    def test_a_damaged_checkpoint_is_noticed(self):
        self.write()
        kept = self.folder / "kept"
        self.start(checkpoint_dir=kept, block_size=64).wait()
        folder = next(path for path in kept.iterdir() if path.is_dir())
        block = folder / "block-00000.h5"
        data = bytearray(block.read_bytes())
        data[-5] ^= 1
        block.write_bytes(data)
        with self.assertRaisesRegex(DamagedCheckpoint, "block-00000.h5"):
            Checkpoint(folder).block(0)
        renamed = folder.rename(kept / ("0" * 32))
        with self.assertRaisesRegex(DamagedCheckpoint, "its key"):
            Checkpoint(renamed)


if __name__ == "__main__":
    unittest.main()
