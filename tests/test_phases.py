"""While a stage runs its memory stays; when it has ended, what it took is given back."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, torch
from surefoot.phases import stage

weight, x = torch.randn(8192, 32, requires_grad=True), torch.randn(2048, 32)

def passes():  # 64 MiB of logits, again and again
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        (x @ weight.t()).log_softmax(-1).square().sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, resident()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

bare, before = passes()
kept, during = stage("learning")(passes)()
print(json.dumps({"bare": bare, "kept": kept, "before": before, "during": during, "after": resident()}))
"""
"""In a process of its own, whose memory nothing else has used."""


@pytest.fixture(scope="module")
def seen():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def test_passes_of_a_stage_rarely_wait_for_the_system_to_clear_the_same_memory_again(seen):
    assert seen["kept"] < seen["bare"] / 2


def test_after_a_stage_its_memory_is_given_back(seen):
    assert seen["during"] > seen["before"] + 2**26
    assert seen["after"] < seen["before"] + 2**24
