#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times a decode step with tensor parallelism in PyTorch: what a step of starattn has to stand beside.

The Llama-3.1-8B shape with random bf16 weights, cut as Megatron cuts it: q, k, v, gate and up by columns, o
and down by rows, an all-reduce behind both, the head by its vocabulary. All queries share one document's
keys and values, whose heads are split over the ranks, so that their rows attend to them together; each query
has --own tokens of its own. A whole step is one CUDA graph, from tokens to tokens. Norms, RoPE and SwiGLU are
Triton kernels; each product, the attention and the all-reduce are the fastest of several that are tried here.
The median of --replays replays, one behind the other: the host takes no part, which favours this peer.

  torchrun --nproc-per-node T scripts/tensor_parallel_peer.py [--tokens 8192,131072] [--queries 1,32]
  torchrun --nproc-per-node T scripts/tensor_parallel_peer.py --check [--device cpu]

--check compares T ranks, as they are timed, with one rank and PyTorch's plain operations, on a small shape.
Prints a JSON object a line; what could not be tried stands in `left_out`, with its reason.
"""
import argparse
import json
import math
import os
import statistics
import sys
from datetime import timedelta

# Never the multicast of NVLink.
os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
os.environ.setdefault("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")

import torch
import torch.distributed as dist

from tensor_parallel.model import TINY, Model, Shape
from tensor_parallel.operations import Fused, Plain
from tensor_parallel.reducers import NcclReduce, NoReduce, OneShotReduce, TwoShotReduce


def reason_of(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def agreed(ok):
    """Whether all ranks could: they go on together or not at all."""
    flag = torch.tensor([1 if ok else 0])
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


def slowest(ms):
    value = torch.tensor([ms], dtype=torch.float64)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value.item()


def graph_of(call, n_warm=2):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(n_warm):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        call()
    return graph


def median_ms(graph, n):
    events = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
    for _ in range(5):
        graph.replay()
    torch.cuda.synchronize()
    agreed(True)  # all begin together
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return slowest(statistics.median(a.elapsed_time(b) for a, b in zip(events, events[1:])))


def fastest(what, ways, call, left_out):
    """The way of `ways` whose call(way) takes least, without other ranks; the same on all of them."""
    times = {}
    for name, way in ways.items():
        try:
            graph, reason = graph_of(lambda: call(way)), None
        except Exception as e:  # a backend refuses a shape in its own ways
            graph, reason = None, reason_of(e)
            torch.cuda.synchronize()
        if agreed(reason is None):
            times[name] = median_ms(graph, 7)
        else:
            left_out[f"{what}: {name}"] = reason or "failed on another rank"
        del graph
    name = min(times, key=times.get)
    return name, ways[name]


def reducers_of(n_ranks, device, left_out):
    if n_ranks == 1:
        return [NoReduce(device)]
    found = [NcclReduce(device)]
    for kind in (OneShotReduce, TwoShotReduce):
        try:
            reducer, reason = kind(device), None
            x = reducer.buffer(2, 512, dtype=torch.bfloat16)
            x.fill_(1)
            right = bool((reducer.reduce(x) == n_ranks).all())
            if not right:
                reason = "a wrong sum"
        except Exception as e:
            reason = reason_of(e)
        if agreed(reason is None):
            found.append(reducer)
        else:
            left_out[f"all-reduce: {kind.name}"] = reason or "failed on another rank"
    return found


def time_steps(args, rank, n_ranks, device):
    shape = Shape(layers=args.layers)
    lengths, counts = args.tokens, args.queries
    generator = torch.Generator(device).manual_seed(rank)

    def make(n_out, n_in, whole=False):
        # Only what this rank keeps has to differ from zero; a scale of 1 / sqrt(inputs) keeps numbers in bounds.
        return torch.randn(n_out, n_in, device=device, dtype=torch.bfloat16, generator=generator) / math.sqrt(n_in)

    kv_scale = math.sqrt(shape.d)  # keys and values like those of norms: about 1
    model = Model(shape, max(lengths), max(counts), args.own, rank, n_ranks, make, kv_scale)
    n_sms = torch.cuda.get_device_properties(device).multi_processor_count
    for n_queries in counts:
        ops = Fused(model.part, n_queries, args.own)
        left_out = {}
        chosen = {}
        reducers = reducers_of(n_ranks, device, left_out)
        for name in ("qkv", "o", "gate_up", "down", "head"):
            weights = [model.head] if name == "head" else [layer[name] for layer in model.layers[:8]]
            n_out, n_in = weights[0].shape
            x = torch.randn(n_queries, n_in, device=device, dtype=torch.bfloat16)

            def products(way):
                for w in weights:
                    ops.linear_by(way, x, w)
            chosen[name], ops.products[(n_out, n_in)] = fastest(name, ops.ways_of_linear(n_out, n_in), products, left_out)
        for n_tokens in lengths:
            q = torch.randn(model.part.kv_heads, n_queries * shape.heads // shape.kv_heads, shape.d, device=device,
                            dtype=torch.bfloat16)

            def attention(way):
                for layer in model.layers[:4]:
                    ops.attend_by(way, q, layer["k"][:, :n_tokens], layer["v"][:, :n_tokens],
                                  layer["own_k"][:n_queries], layer["own_v"][:n_queries])
            chosen["attention"], ops.attention = fastest(
                "attention", ops.ways_of_attention(n_tokens, n_sms), attention, left_out)
            by_reducer, is_finite = {}, True
            for reducer in reducers:
                tokens = torch.randint(0, shape.vocab, (n_queries,), device=device)
                if n_ranks > 1:
                    dist.broadcast(tokens, 0)
                result = {}

                def step():
                    result["logits"] = model.step(tokens, n_tokens, ops, reducer)
                try:
                    graph, reason = graph_of(step), None
                except Exception as e:
                    graph, reason = None, reason_of(e)
                if not agreed(reason is None):
                    left_out[f"step, all-reduce {reducer.name}"] = reason or "failed on another rank"
                    continue
                by_reducer[reducer.name] = median_ms(graph, args.replays)
                is_finite = is_finite and bool(torch.isfinite(result["logits"]).all())
                del graph
            if not by_reducer:
                if rank == 0:
                    print(json.dumps({"ranks": n_ranks, "tokens": n_tokens, "queries": n_queries, "ms": None,
                                      "left_out": left_out}), flush=True)
                continue
            best = min(by_reducer, key=by_reducer.get)
            if rank == 0:
                print(json.dumps({
                    "peer": "tensor parallel, PyTorch " + torch.__version__, "device": torch.cuda.get_device_name(),
                    "ranks": n_ranks, "tokens": n_tokens, "queries": n_queries, "own_tokens": args.own,
                    "layers": shape.layers, "ms": round(by_reducer[best], 4), "all_reduce": best,
                    "ms_by_all_reduce": {k: round(v, 4) for k, v in by_reducer.items()}, "chosen": chosen,
                    "is_finite": is_finite, "replays": args.replays, "left_out": left_out}), flush=True)


def check(args, rank, n_ranks, device):
    """T ranks as they are timed beside one rank and plain operations; the largest relative error of all ranks."""
    n_tokens, n_queries, n_own = 300, 3, 4
    dtype = torch.bfloat16

    def model_of(rank, n_ranks):
        generator = torch.Generator().manual_seed(1)

        def make(n_out, n_in, whole=False):
            return (torch.randn(n_out, n_in, generator=generator) / math.sqrt(max(n_in, 64))).to(dtype).to(device)
        return Model(TINY, n_tokens, n_queries, n_own, rank, n_ranks, make, kv_scale=8.0)

    tokens = torch.arange(n_queries, device=device) * 37
    one = model_of(0, 1)
    expected_tokens = tokens.clone()
    expected = one.step(expected_tokens, n_tokens, Plain(TINY, n_queries, n_own), NoReduce(device))
    part = TINY.of_rank(n_ranks)
    mine = expected[:, rank * part.vocab:][:, : part.vocab].float()
    left_out, bad = {}, 0
    if device.type == "cpu":
        variants = [("plain", Plain(part, n_queries, n_own), None)]
        reducers = [NcclReduce(device) if n_ranks > 1 else NoReduce(device)]
        reducers[0].name = "gloo" if n_ranks > 1 else "none"
    else:
        variants = [("plain", Plain(part, n_queries, n_own), None)]
        ways = Fused(part, n_queries, n_own).ways_of_attention(n_tokens, 132)
        variants += [(name, Fused(part, n_queries, n_own), way) for name, way in ways.items()]
        reducers = reducers_of(n_ranks, device, left_out)
    for reducer in reducers:
        for name, ops, way in variants:
            if reducer is not reducers[0] and not name.startswith("triton"):
                continue
            ops.attention = way
            got_tokens, error = tokens.clone(), None
            try:
                got = model_of(rank, n_ranks).step(got_tokens, n_tokens, ops, reducer).float()
                error = ((got - mine).norm() / mine.norm()).item()
            except Exception as e:
                left_out[name] = reason_of(e)
            if not agreed(error is not None):
                continue
            error = slowest(error if error == error else math.inf)
            same = (got_tokens == expected_tokens).float().mean().item()
            is_right = error < 0.03  # bf16 on both sides
            bad += not is_right
            if rank == 0:
                print(json.dumps({"check": name, "all_reduce": reducer.name, "ranks": n_ranks, "relative_error": error,
                                  "same_tokens": same, "right": is_right}), flush=True)
    if device.type == "cuda":
        for n in (1, 3, 32):
            x = torch.randn(n, 1024, device=device, dtype=dtype)
            w = torch.randn(512, 1024, device=device, dtype=dtype)
            ops = Fused(part, n, n_own)
            for name, way in ops.ways_of_linear(512, 1024).items():
                exact = x.double() @ w.double().T
                error = ((ops.linear_by(way, x, w).double() - exact).norm() / exact.norm()).item()
                bad += not error < 0.01
                if rank == 0 and not error < 0.01:
                    print(json.dumps({"check": f"product of {n} rows, {name}", "relative_error": error, "right": False}))
    if rank == 0:
        print(json.dumps({"checks_failed": bad, "left_out": left_out}), flush=True)
    return bad


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: sorted({int(x) for x in text.split(",")})
    parser.add_argument("--tokens", type=numbers, default=[8192, 131072])
    parser.add_argument("--queries", type=numbers, default=[1, 32])
    parser.add_argument("--own", type=int, default=16, help="tokens of each query's own")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--replays", type=int, default=50)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.device == "cpu" and not args.check:
        parser.error("only --check runs on a CPU")
    rank, n_ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29555")):
        os.environ.setdefault(name, value)
    device = torch.device("cpu")
    backend = "gloo"
    if args.device == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=60))
    bad = (check if args.check else time_steps)(args, rank, n_ranks, device)
    sys.stdout.flush()
    agreed(True)
    dist.destroy_process_group()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
