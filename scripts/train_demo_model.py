#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the small Llama of data/demo-model on documents of `starattn generate`, on one GPU.

    scripts/train_demo_model.py --program build/release/starattn --model data/demo-model \\
        --steps 60000 --minutes 8 --state state.pt --output trained
    scripts/train_demo_model.py --program build/release/starattn --model data/demo-model \\
        --from data/demo-model --course long --rate 5e-4 --minutes 8 --output longer

--model holds tokenizer.json (scripts/make_demo_tokenizer.py) and any config.json. Run the command again to go on from
--state until all steps are done; --from starts with a model's weights. The rate falls with the steps, or with the time
where no number of steps is given. --output is written every two minutes and at the end.

It needs PyTorch, safetensors and tokenizers; the model in data/ was made with the figures of its README.md. Lessons
depend on --seed and --workers; sums on a GPU do not repeat bit by bit."""
import argparse
import math
import os
import time

import numpy as np
import torch

from demo_model.lessons import BATCH_TOKENS, COURSES, Lessons, Teacher, rows_of
from demo_model.network import Network, Shape

WARM_UP = 300
LAST_RATE = 0.05  # of the highest, reached by a cosine over the second half
SAVE_SECONDS = 120
MARK_STEPS = 5
WARM_STEPS = 3    # of each length, before its step is recorded as a CUDA graph


def learning_rate(step, done, highest):
    """After `step` steps and `done` of all of them, from 0 to 1."""
    if step < WARM_UP:
        return highest * (step + 1) / WARM_UP
    falling = min(1.0, max(0.0, 2 * done - 1))
    return highest * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * falling)))


class Trainer:
    """One step on one batch; steps of a length are recorded once and replayed."""

    def __init__(self, network, rate, use_graphs):
        self.network, self.use_graphs = network, use_graphs
        self.device = network.table.device
        self.rate = torch.tensor(rate, device=self.device)
        matrices = [p for p in network.parameters() if p.ndim > 1]
        vectors = [p for p in network.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=self.rate, betas=(0.9, 0.95), eps=1e-8, fused=True, capturable=use_graphs)
        self.desks = {}

    def desk(self, length):
        if length not in self.desks:
            n_rows = rows_of(length)
            self.desks[length] = {
                "tokens": torch.zeros(n_rows, length, dtype=torch.int64, device=self.device),
                "weights": torch.zeros(n_rows, length, device=self.device),
                "angles": self.network.angles(length), "steps": 0, "graph": None}
        return self.desks[length]

    def run(self, desk):
        self.optimizer.zero_grad(set_to_none=True)
        tokens, weights = desk["tokens"], desk["weights"]
        x = self.network(tokens, *desk["angles"])
        loss, desk["right"] = self.network.loss(x, tokens.roll(-1, 1), weights.roll(-1, 1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        desk["loss"] = loss.detach()

    def step(self, batch, rate):
        desk = self.desk(batch.tokens.shape[1])
        self.rate.fill_(rate)
        for name, values in (("tokens", batch.tokens.astype(np.int32)), ("weights", batch.weights)):
            values = torch.from_numpy(values)
            if self.device.type == "cuda":
                values = values.pin_memory().to(self.device, non_blocking=True)
            desk[name].copy_(values)
        if desk["graph"]:
            desk["graph"].replay()
        elif self.use_graphs and desk["steps"] == WARM_STEPS:
            self.optimizer.zero_grad(set_to_none=True)
            desk["graph"] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(desk["graph"]):
                self.run(desk)
            desk["graph"].replay()
        elif self.use_graphs:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.run(desk)
            torch.cuda.current_stream().wait_stream(side)
        else:
            self.run(desk)
        desk["steps"] += 1
        return desk


class Marks:
    """The share of answers guessed right in every token, by task and length, on lessons not seen before."""

    def __init__(self, tasks):
        self.tasks = tasks
        self.clear()

    def clear(self):
        self.right, self.asked, self.losses = [0] * len(self.tasks), [0] * len(self.tasks), []
        self.of_length = {}  # [right, asked]

    def add(self, desk, batch):
        n_rows, length = batch.tokens.shape
        right = desk["right"].view(n_rows, length).cpu().numpy()
        for task, row, first, end in batch.answers:
            is_right = bool(right[row, first - 1:end - 1].all())
            self.asked[task] += 1
            self.right[task] += is_right
            of_length = self.of_length.setdefault(length, [0, 0])
            of_length[0] += is_right
            of_length[1] += 1
        self.losses.append(float(desk["loss"]))

    def __str__(self):
        shares = " ".join(f"{task.replace('niah_', '')}={100 * right / asked:.0f}" for task, right, asked
                          in zip(self.tasks, self.right, self.asked) if asked)
        lengths = " ".join(f"{length}={100 * right / asked:.0f}"
                           for length, (right, asked) in sorted(self.of_length.items()))
        return f"loss {np.mean(self.losses):.4f} {shares} | {lengths}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--program", required=True, help="starattn")
    parser.add_argument("--model", required=True, help="folder with tokenizer.json and a config.json")
    parser.add_argument("--steps", type=int, help=f"of {BATCH_TOKENS} tokens; without it, by time")
    parser.add_argument("--minutes", type=float, default=8, help="at most, in this run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="highest learning rate")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--state", help="to go on from, if it is there; and to write")
    parser.add_argument("--from", dest="origin", help="folder with a model.safetensors to start with")
    parser.add_argument("--course", choices=COURSES, default="first", help="lengths and tasks")
    parser.add_argument("--output", required=True, help="folder for config.json and model.safetensors")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()

    course = COURSES[options.course]
    saved = None
    if options.state and os.path.exists(options.state):
        saved = torch.load(options.state, map_location="cpu", weights_only=True)
    lessons = Lessons(options.program, options.model, course, options.seed, options.workers,
                      saved["rounds"] + 1 if saved else 0)  # before CUDA starts: workers are forks
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    teacher = Teacher(options.program, options.model, course)
    shape = Shape(vocab=teacher.tokenizer.get_vocab_size())
    network = Network(shape)
    if options.origin:
        network.load(options.origin)
    network = network.to(device)
    trainer = Trainer(network, options.rate, device.type == "cuda")
    step = 0
    if saved:
        network.load_state_dict(saved["network"])
        trainer.optimizer.load_state_dict(saved["optimizer"])
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.rate
        step = saved["step"]
    if not options.no_compile:
        torch._dynamo.config.recompile_limit = 256
        for layer in network.layers:
            layer.compile(dynamic=False)
        network.loss = torch.compile(network.loss, dynamic=False)
    n_parameters = sum(p.numel() for p in network.parameters())
    print(f"{n_parameters / 1e6:.2f}M parameters, step {step} of {options.steps or 'as many as the time allows'}, "
          f"lengths {list(course.lengths)}, seed {options.seed}", flush=True)

    def save():
        os.makedirs(options.output, exist_ok=True)
        network.save(options.output, 65536, teacher.tokenizer.token_to_id("<|begin|>"), teacher.end)

    def done():
        return step / options.steps if options.steps else (time.monotonic() - started) / (60 * options.minutes)

    marks, logged, waited = Marks(teacher.task_names), (time.monotonic(), step), 0.0
    saved_at, batches = time.monotonic(), iter(lessons)
    while done() < 1 and time.monotonic() - started < 60 * options.minutes:
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        desk = trainer.step(batch, learning_rate(step, done(), options.rate))
        step += 1
        if step % MARK_STEPS == 0:
            marks.add(desk, batch)
        now = time.monotonic()
        if step % 500 == 0 or step in (50, 200):
            rate = (step - logged[1]) / (now - logged[0])
            print(f"{now - started:5.0f} s step {step} {rate:.1f}/s waited {waited:.0f} s {marks}",
                  flush=True)
            marks.clear()
            logged = (now, step)
        if now - saved_at > SAVE_SECONDS:
            save()
            saved_at = now
    lessons.stop()
    save()
    if options.state:
        torch.save({"network": network.state_dict(), "optimizer": trainer.optimizer.state_dict(),
                    "step": step, "rounds": lessons.rounds}, options.state)
    print(f"step {step} of {options.steps or step}: {options.output}", flush=True)


if __name__ == "__main__":
    main()
