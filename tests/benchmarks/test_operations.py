"""The count of useful operations, against multiplication tables written out by hand."""

from benchmarks.operations import attention, count, linear_layers
from benchmarks.workloads import Shape

TINY = Shape(hidden=4, layers=2, heads=2, kv_heads=1, ffn=6, vocab=10)
"""Heads are 2 wide: queries and outputs are 4x4, keys and values 4x2, the three feed-forward matrices 4x6."""

WEIGHTS = 2 * (16 + 8 + 8 + 16 + 3 * 24)
"""Of both layers: 240."""


def test_a_linear_layer_takes_a_multiplication_and_an_addition_for_every_weight_and_token():
    assert WEIGHTS == 240
    assert linear_layers(TINY, tokens=3) == 2 * 3 * 240


def test_causal_attention_looks_at_every_token_up_to_the_one_itself():
    # 3 tokens see 1 + 2 + 3 = 6 tokens; each look is 4 products for a score and 4 for a sum, in 2 layers
    assert attention(TINY, tokens=3) == 2 * 6 * (4 + 4) * 2


def test_a_row_runs_without_its_last_token_and_only_its_response_meets_the_vocabulary():
    found = count(TINY, prompts=[2], responses=[2], epochs=1, value_model=False)
    trunk = 2 * 3 * 240 + 192
    head = 2 * 2 * 4 * 10
    assert found.sampling == trunk + head
    assert found.reward == trunk
    assert found.scoring == 2 * (trunk + head)
    assert found.update == 3 * (trunk + head)
    assert found.iteration == 2 * trunk + head + 5 * (trunk + head)


def test_a_value_model_adds_a_trunk_to_scoring_and_three_to_every_epoch():
    without = count(TINY, prompts=[2, 5], responses=[2, 3], epochs=4, value_model=False)
    with_model = count(TINY, prompts=[2, 5], responses=[2, 3], epochs=4, value_model=True)
    assert with_model.scoring - without.scoring == without.reward
    assert with_model.update - without.update == 4 * 3 * without.reward
    assert with_model.sampling == without.sampling


def test_lora_saves_the_gradients_of_frozen_matrices_and_adds_its_own():
    found = count(TINY, prompts=[2], responses=[2], epochs=1, value_model=False, lora_r=3)
    # q 4+4, k and v 4+2 each, o 4+4, gate, up and down 4+6 each: 58 a layer for every unit of rank
    adapters = 2 * 3 * 2 * 3 * 58
    assert found.update == 2 * (2 * 3 * 240 + 160) + 3 * 192 + 3 * adapters
