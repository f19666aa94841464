"""The canary: how far apart two right answers may be, and what counts as wrong."""

import contextlib
import itertools
import math

import pytest
import torch
from bigram import bigram

from surefoot.engine.vllm.canary import Canary, policy_logprobs, probe_of


def test_the_probe_strings_queries_together_into_rows_of_one_length():
    assert probe_of([[1, 2], [3]], room=5) == [[1, 2, 3, 1], [2, 3, 1, 2], [3, 1, 2, 3], [1, 2, 3, 1]]
    assert [len(row) for row in probe_of([list(range(1000))], room=512)] == [64] * 4


def test_what_is_borne_is_three_times_what_a_fresh_start_showed_and_never_more_than_the_limit():
    canary = Canary([[1, 2]], torch.float32)
    assert canary.complaint([[-1.0, -2.0]], [[-1.0002, -2.0]]) is None  # a mean of 1e-4
    assert canary.usual == pytest.approx(1e-4)
    assert canary.limit == pytest.approx(3e-4)
    assert canary.complaint([[-1.0]], [[-1.0002]]) is None
    assert canary.usual == pytest.approx(1e-4)  # of the start alone
    assert "0.0004 nats a token" in str(canary.complaint([[-1.0]], [[-1.0004]]))


@pytest.mark.parametrize(("dtype", "borne", "refused"), [(torch.float32, 9e-4, 2e-3), (torch.bfloat16, 0.09, 0.2)])
def test_a_fresh_start_has_its_limit_by_the_kind_of_its_numbers(dtype, borne, refused):
    assert Canary([[1]], dtype).complaint([[-1.0]], [[-1.0 - borne]]) is None
    assert Canary([[1]], dtype).complaint([[-1.0]], [[-1.0 - refused]]) is not None


@pytest.mark.parametrize("theirs", [[[math.nan, -2.0]], [[-1.0, -math.inf]], [[-1.0]], [], [[-1.0, -2.0], [-1.0]]])
def test_what_is_not_a_number_or_not_of_these_tokens_is_a_complaint(theirs):
    assert Canary([[1, 2, 3]], torch.float32).complaint([[-1.0, -2.0]], theirs) is not None


def test_the_policy_scores_every_token_but_the_first():
    model = bigram()
    rows = [[5, 6, 7], [8, 9, 5]]
    table = (model.embed.weight @ model.lm_head.weight.T).detach().double().log_softmax(-1)
    found = policy_logprobs(model, rows, contextlib.nullcontext)
    for row, seen in zip(rows, found, strict=True):
        assert seen == pytest.approx([float(table[a, b]) for a, b in itertools.pairwise(row)], abs=1e-5)
