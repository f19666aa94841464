"""While a stage runs its memory stays; when it has ended, what it took is given back."""

import resource

import torch

from surefoot.memory import MIB
from surefoot.phases import stage

SIZE = 64 * MIB


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def pages_of_passes(times=8):
    """Pages that the system clears for passes through a large vocabulary, all of the same sizes."""
    weight, x = torch.randn(8192, 256, requires_grad=True), torch.randn(2048, 256)
    before = faults()
    for _ in range(times):
        (x @ weight.t()).log_softmax(-1).square().sum().backward()
    return faults() - before


def test_passes_of_a_stage_wait_for_the_same_memory_hardly_more_than_once():
    assert stage("learning")(pages_of_passes)() < pages_of_passes() / 2


def test_after_a_stage_its_memory_is_given_back():
    def work():
        torch.ones(SIZE // 4)
        return resident()

    before = resident()
    during = stage("learning")(work)()
    assert during > before + SIZE // 2
    assert resident() < before + SIZE // 4
