# SPDX-License-Identifier: Apache-2.0
"""Ways of an all-reduce: buffer() is what the product before it writes, and reduce() returns the sum."""
import torch
import torch.distributed as dist


class NoReduce:
    name = "none"

    def __init__(self, device):
        self.device = device

    def buffer(self, *size, dtype):
        return torch.empty(*size, device=self.device, dtype=dtype)

    def reduce(self, x):
        return x


class NcclReduce(NoReduce):
    name = "nccl"

    def reduce(self, x):
        dist.all_reduce(x)
        return x


class OneShotReduce:
    """Symmetric memory without multicast: each rank reads all others' buffers."""
    name = "one shot"

    def __init__(self, device):
        import torch.distributed._symmetric_memory as symmetric
        self.device = device
        self.symmetric, self.buffers = symmetric, {}
        self.group = dist.group.WORLD.group_name

    def buffer(self, *size, dtype):
        # Two in turn, so that what a peer still reads is not overwritten.
        at = (size, dtype)
        if at not in self.buffers:
            pair = [self.symmetric.empty(*size, device=self.device, dtype=dtype) for _ in range(2)]
            for x in pair:
                self.symmetric.rendezvous(x, self.group)
            self.buffers[at] = pair
        self.buffers[at].reverse()
        return self.buffers[at][0]

    def reduce(self, x):
        return torch.ops.symm_mem.one_shot_all_reduce(x, "sum", self.group)


class TwoShotReduce(OneShotReduce):
    name = "two shot"

    def reduce(self, x):
        if x.numel() * x.element_size() < 4096:  # it cuts what it sums into a part for each rank
            return OneShotReduce.reduce(self, x)
        torch.ops.symm_mem.two_shot_all_reduce_(x, "sum", self.group)
        return x
