# SPDX-License-Identifier: Apache-2.0
"""Batches to learn from: documents of `starattn generate`, each followed by its questions and answers.

A batch has BATCH_TOKENS tokens in rows of one length, or one row; its tasks are mixed. Each worker makes rounds
of batches, a function of (seed, worker, round) alone."""
import json
import multiprocessing
import os
import random
import subprocess
import tempfile
from dataclasses import dataclass
from queue import Empty

import numpy as np
from tokenizers import Tokenizer

from .questions import is_right, questions_of
from .tokenizer import BEGIN, END, WordCache

BATCH_TOKENS = 32768
ROUND_BATCHES = 128
# The shortest documents of these tasks, in tokens: they have a worked example, or long words.
SMALLEST = {"cwe": 1000, "vt": 650, "fwe": 650, "niah_multikey_3": 600}
ANSWER_WEIGHT, TEXT_WEIGHT = 255, 26  # of the loss, 1.0 and 0.1 in steps of 1/255


@dataclass(frozen=True)
class Course:
    """What is learned. In rows longer than `even_to` there are more questions, and the text counts for
    less, so that answers are not lost beside it."""
    lengths: dict  # how often batches have rows of this length
    tasks: dict    # how much of a batch each task has: more for what is harder to learn
    even_to: int = 1 << 20
    fill: float = 1.0  # documents fill 0.55 + 0.45 u^fill of a row, u from 0 to 1 alike

    def n_questions(self, length):
        return min(32, max(8, 8 * length // self.even_to))

    def text_weight(self, length):
        return max(1, round(TEXT_WEIGHT * min(1, self.even_to / length) ** 2))


COURSES = {
    "first": Course(
        {512: 0.36, 1024: 0.20, 2048: 0.18, 4096: 0.14, 8192: 0.08, 16384: 0.04},
        {"niah_single_1": 0.4, "niah_single_2": 0.8, "niah_single_3": 0.8, "niah_multikey_1": 0.8,
         "niah_multikey_2": 0.8, "niah_multikey_3": 1.5, "niah_multivalue": 1.2,
         "niah_multiquery": 1.0, "vt": 2.0, "cwe": 1.5, "fwe": 1.0, "qa1": 0.6, "qa2": 1.5,
         "qa3": 1.5, "qa4": 0.4, "qa5": 0.8}),
    # Goes on from a model that knows its tasks up to 16K, for prompts of 32K tokens and their answers.
    "long": Course(
        {512: 0.08, 1024: 0.08, 2048: 0.10, 4096: 0.12, 8192: 0.12, 16384: 0.14, 22528: 0.10,
         34816: 0.26},
        {"niah_single_1": 0.8, "niah_single_2": 0.8, "niah_single_3": 1.0, "niah_multikey_1": 1.0,
         "niah_multikey_2": 1.3, "niah_multikey_3": 1.5, "niah_multivalue": 1.2,
         "niah_multiquery": 1.0, "vt": 1.5, "cwe": 0.5, "fwe": 0.8, "qa1": 0.8, "qa2": 1.8,
         "qa3": 1.5, "qa4": 0.5, "qa5": 0.8},
        even_to=4096, fill=0.5),
}


@dataclass
class Batch:
    tokens: np.ndarray   # uint16 [n_rows, length]
    weights: np.ndarray  # uint8 [n_rows, length]: of the loss on this token; the first has none
    answers: np.ndarray  # int32 [n_answers, 4]: task, row, first token, end


@dataclass
class Lesson:
    task: int
    tokens: list
    answers: list  # (first token, end)


def documents(program, model, task, lengths, count, seed):
    """`count` documents of each length."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "documents.jsonl")
        subprocess.run([program, "generate", "--model", model, "--task", task, "--length",
                        ",".join(map(str, lengths)), "--count", str(count), "--seed", str(seed),
                        "--output", path], check=True, stderr=subprocess.DEVNULL)
        with open(path, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def rows_of(length):
    """How many rows of this length a batch has."""
    return max(1, BATCH_TOKENS // length)


class Teacher:
    def __init__(self, program, model, course):
        self.program, self.model, self.course = program, model, course
        self.tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
        self.begin, self.end = self.tokenizer.token_to_id(BEGIN), self.tokenizer.token_to_id(END)
        self.words = WordCache(self.tokenizer)
        self.task_names = list(course.tasks)

    def lesson(self, document, length, draws):
        """The document and as many of its questions as fit; None when not even one does."""
        encode = self.words.encode
        tokens = [self.begin] + encode(document["context"])
        questions = questions_of(document, draws)
        assert is_right(document, questions), document["id"]
        answers = []
        for question in questions[:self.course.n_questions(length)]:
            asked, answer = encode(question.text), encode(question.answer) + [self.end]
            if len(tokens) + len(asked) + len(answer) > length:
                break
            tokens += asked
            answers.append((len(tokens), len(tokens) + len(answer)))
            tokens += answer
        if not answers:
            return None
        return Lesson(self.task_names.index(document["meta"]["task"]), tokens, answers)

    def lessons(self, task, length, n_wanted, draws):
        """Lessons whose documents fill 55 % to all of a row, its answers included."""
        lengths = [int(length * (0.55 + 0.45 * draws.random() ** self.course.fill)) + 60
                   for _ in range(min(6, n_wanted))]
        lengths = sorted({max(n, SMALLEST.get(task, 0)) for n in lengths})
        count = -(-n_wanted // len(lengths)) + 1
        found = [self.lesson(document, length, draws)
                 for document in documents(self.program, self.model, task, lengths, count,
                                           draws.getrandbits(62))]
        found = [lesson for lesson in found if lesson]
        draws.shuffle(found)
        return found[:n_wanted]

    def batches(self, length, n_batches, draws):
        n_rows = rows_of(length)
        tasks = {t: w for t, w in self.course.tasks.items() if length >= SMALLEST.get(t, 0)}
        chosen = draws.choices(list(tasks), tasks.values(), k=n_batches * n_rows)
        rows = [lesson for task in tasks if chosen.count(task)
                for lesson in self.lessons(task, length, chosen.count(task), draws)]
        draws.shuffle(rows)
        for first in range(0, len(rows) - n_rows + 1, n_rows):
            yield self.batch(rows[first:first + n_rows], length)

    def batch(self, rows, length):
        tokens = np.full((len(rows), length), self.end, np.uint16)
        weights = np.zeros((len(rows), length), np.uint8)
        answers = []
        for i, row in enumerate(rows):
            tokens[i, :len(row.tokens)] = row.tokens
            weights[i, 1:len(row.tokens)] = self.course.text_weight(length)
            for first, end in row.answers:
                weights[i, first:end] = ANSWER_WEIGHT
                answers.append((row.task, i, first, end))
        return Batch(tokens, weights, np.array(answers, np.int32))

    def round(self, seed):
        draws = random.Random(seed)
        batches = [batch for length, share in self.course.lengths.items()
                   for batch in self.batches(length, max(1, round(ROUND_BATCHES * share)), draws)]
        draws.shuffle(batches)
        return batches


def work(program, model, course, seed, worker, first_round, queue):
    teacher = Teacher(program, model, course)
    number = first_round
    while True:
        for batch in teacher.round(f"{seed}/{worker}/{number}"):
            queue.put((number, batch))
        number += 1


def next_of(worker, queue):
    while True:
        try:
            return queue.get(timeout=10)
        except Empty:
            if not worker.is_alive():
                raise RuntimeError("a worker that makes lessons has ended; its message is above") from None


class Lessons:
    """Batches of all workers in turn, without end; `rounds` says where to go on another time."""

    def __init__(self, program, model, course, seed, n_workers, first_round=0):
        context = multiprocessing.get_context("fork")
        self.queues = [context.Queue(maxsize=ROUND_BATCHES) for _ in range(n_workers)]
        self.workers = [context.Process(target=work, daemon=True,
                                        args=(program, model, course, seed, i, first_round, queue))
                        for i, queue in enumerate(self.queues)]
        self.rounds = first_round
        for worker in self.workers:
            worker.start()

    def __iter__(self):
        while True:
            for worker, queue in zip(self.workers, self.queues):
                number, batch = next_of(worker, queue)
                self.rounds = max(self.rounds, number)
                yield batch

    def stop(self):
        for worker in self.workers:
            worker.terminate()
