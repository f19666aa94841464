"""The reckoning of memory, against arithmetic by hand. One unit is a byte; the models are of round sizes."""

import dataclasses

import pytest

from surefoot.memory import (
    GIB,
    Growth,
    Model,
    Need,
    Output,
    Pass,
    Sampler,
    Work,
    moments_of,
    peak,
    stages,
)

TRUNK = Pass(kept=Growth(0, 100), forward=Growth(0, 10), backward=Growth(7, 5))
POLICY = Model("policy", weights=4000, gradients=4000, moments=8000, pass_=TRUNK, width=8)
HEAD = Model("critic (head)", weights=20, gradients=20, moments=40)
REFERENCE = Model("reference", weights=4000, pass_=Pass(forward=Growth(0, 10)))
OUTPUT = Output(vocabulary=50, states_per_piece=4, gradient=400)
# 6 answers of 5 + 5 tokens, 2 rows a pass, one pass an optimizer step
WORK = Work(rows=6, row_tokens=10, answer_tokens=5, pass_rows=2, pass_tokens=20, passes=1, scoring_tokens=40)
SAMPLER = Sampler(weights=3000, cache_per_token=6, layers=3, max_tokens=50, room=2)
NEED = Need(POLICY, HEAD, REFERENCE, OUTPUT, SAMPLER, WORK, base=1000)
HELD = 1000 + (4000 + 20 + 4000) + (8000 + 40)


def total(name, need=NEED):
    return {stage.name: stage.total for stage in stages(need)}[name]


def test_a_pass_takes_its_fixed_bytes_once_and_nothing_where_there_is_none():
    assert (Growth(7, 5).at(20), Growth(7, 5).at(0)) == (107, 0)


def test_sampling_takes_the_copy_of_the_weights_the_cache_with_a_layer_twice_and_four_tensors_of_logits():
    rows = 5  # 50 tokens at most in the cache, 10 a row
    cache = rows * (10 + 2) * 6
    assert total("sampling") == HELD + 3000 + cache + cache // 3 + 4 * 4 * rows * 50


def test_scoring_keeps_the_first_graph_and_reads_two_tensors_of_logits_with_their_copies():
    # 40 tokens are 4 rows, 20 states, 5 pieces of 4: 4 x 4 x 50 = 800 bytes each, and 8 bytes a token of states
    assert total("scoring pass") == HELD + 20 * 100 + 40 * 8 + max(40 * 10, 4 * 800)


def test_without_a_single_pass_of_a_minibatch_scoring_keeps_no_graph():
    several = dataclasses.replace(NEED, work=dataclasses.replace(WORK, passes=3))
    assert total("scoring pass", several) == HELD + 40 * 8 + 4 * 800


def test_an_update_is_fullest_where_logits_are_read_while_all_activations_are_there():
    # 10 states in 3 pieces of at most 4; the second piece's gradient of the output matrix stands beside the first's
    assert total("update") == HELD + 20 * 100 + 400 + max(3 * 800, 2 * 800 + 400)


def test_or_where_all_gradients_are_there():
    wide = dataclasses.replace(NEED, policy=dataclasses.replace(POLICY, gradients=9000))
    assert total("update", wide) == HELD + 9000 + 400  # the embeddings' gradient is made anew, then added


def test_with_several_passes_a_step_gradients_lie_beside_activations():
    several = dataclasses.replace(NEED, work=dataclasses.replace(WORK, passes=3))
    assert total("update", several) == HELD + 20 * 100 + (4000 + 20) + 3 * 800


def test_a_critic_with_a_trunk_of_its_own_follows_when_all_gradients_of_the_policy_are_there():
    critic = Model("critic", weights=4000, gradients=4000, moments=8000, pass_=TRUNK)
    need = dataclasses.replace(NEED, critic=critic)
    held = 1000 + 12000 + 16000
    assert total("update", need) == held + max(20 * 100 + 400 + 2400, 4000 + 400, 20 * 100 + 4000 + (7 + 20 * 5), 8000)


def test_an_allocator_that_leaves_holes_reuses_nothing_between_activations_and_gradients():
    need = dataclasses.replace(NEED, holes=0.5)
    fullest = max(20 * 100 + 400 + 2400, 20 * 100 + 4020 + 107)
    assert total("update", need) == HELD + fullest + fullest // 2 + fullest % 2


def test_frozen_models_that_leave_are_there_only_while_they_are_asked():
    judge = Model("reward", weights=500, pass_=Pass(forward=Growth(0, 10)))
    work = dataclasses.replace(WORK, reward_tokens=60)
    need = dataclasses.replace(NEED, rewards=[judge], work=work)
    gone = dataclasses.replace(need, offload=True)
    assert total("update", need) - total("update", gone) == 4000 + 500
    assert total("scoring pass", need) - total("scoring pass", gone) == 500
    assert total("reward", gone) == HELD - 4000 + 500 + 60 * 10
    assert total("reward", need) == HELD + 500 + 60 * 10


def test_the_peak_is_the_fullest_stage():
    assert peak(NEED).name == "sampling"  # 7480 beside what is held, to 5520 of scoring and 4800 of the update
    assert peak(NEED).total == HELD + 3000 + 480 + 4000


@pytest.mark.parametrize(("numbers", "bytes_"), [(256 * 16, 2 * (4096 + 4 * 16)), (4095, 2 * 4 * 4095)])
def test_moments_in_eight_bits_take_a_byte_a_number_and_a_scale_for_256_of_them(numbers, bytes_):
    assert moments_of([numbers], eight_bits=True) == bytes_


def test_a_model_of_seven_billion_numbers_takes_what_everybody_knows():
    n = 7_000_000_000
    assert 4 * n + 4 * n + moments_of([n]) == pytest.approx(104.3 * GIB, rel=1e-3)


def test_in_shares_a_process_has_a_quarter_and_what_is_whole_for_a_while():
    shared = dataclasses.replace(
        NEED,
        shares=4,
        policy=dataclasses.replace(POLICY, lent=1000),
        critic=dataclasses.replace(HEAD, lent=20),
        reference=dataclasses.replace(REFERENCE, lent=1000),
    )
    held = 1000 + (1000 + 5 + 1000) + (2000 + 10)
    cache = 5 * (10 + 2) * 6
    assert total("sampling", shared) == held + 3000 + 3000 + cache + cache // 3 + 4 * 4 * 5 * 50
    assert total("scoring pass", shared) == held + 2020 + 40 * 8 + 4 * 800  # and no graph is kept
    assert total("update", shared) == held + 1020 + 20 * 100 + 400 + max(3 * 800, 2 * 800 + 400)
    # a quarter of the gradients, and of what was lent all: 1000 + 1000 of the policy, 5 + 20 of the critic
    several = dataclasses.replace(shared, work=dataclasses.replace(WORK, passes=3))
    assert total("update", several) == held + 1020 + 20 * 100 + 2025 + max(3 * 800, 2 * 800 + 400)
