"""The cache that grows in place holds at every moment what transformers' own layers hold, which copy it all."""

import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from surefoot.engine.cache import GrowingLayer, can_join, give_room, join, select, trim


def states(generator, rows, columns):
    return [torch.randn(rows, 2, columns, 3, generator=generator) for _ in range(2)]


def filled(kind, *, rows=4, columns=5, seed=0, **options):
    layer = kind(**options)
    layer.update(*states(torch.Generator().manual_seed(seed), rows, columns))
    return layer


LAYERS = [
    pytest.param(DynamicLayer, {}, id="full"),
    pytest.param(DynamicSlidingWindowLayer, {"sliding_window": 4}, id="window shorter than the query"),
    pytest.param(DynamicSlidingWindowLayer, {"sliding_window": 30}, id="window"),
]


def assert_same(ours, theirs):
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)
    assert ours.get_seq_length() == theirs.get_seq_length()
    assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
    assert ours.is_sliding == theirs.is_sliding


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_a_growing_layer_holds_what_a_copying_one_holds(kind, options):
    ours, theirs = GrowingLayer(filled(kind, **options)), filled(kind, **options)
    generator = torch.Generator().manual_seed(1)
    leaves = {3: [3, 1, 2], 40: [0, 1], 100: [1]}  # the last rows move into the places of those that left
    for step in range(150):
        assert_same(ours, theirs)
        new = states(generator, len(theirs.keys), 1)
        for a, b in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(a, b)
        if step in leaves:
            for layer in (ours, theirs):
                layer.reorder_cache(torch.tensor(leaves[step]))


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_new_columns_are_written_in_place(kind, options):
    layer = GrowingLayer(filled(kind, **options))
    generator = torch.Generator().manual_seed(1)
    storages = set()
    for _ in range(100):
        layer.update(*states(generator, 4, 1))
        storages.add(layer.keys.untyped_storage().data_ptr())
    assert len(storages) < 10


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_rows_that_join_end_on_the_same_column(kind, options):
    short = {"columns": 3, "rows": 2, "seed": 7}
    ours, other = GrowingLayer(filled(kind, **options)), GrowingLayer(filled(kind, **options, **short))
    ours.join([other])
    # Left padding of a shorter row is zeros: a layer of theirs that reads such rows from the start is the oracle.
    long, little = (states(torch.Generator().manual_seed(s), r, c) for s, r, c in ((0, 4, 5), (7, 2, 3)))
    theirs = kind(**options)
    theirs.update(
        *(torch.cat([a, torch.nn.functional.pad(b, (0, 0, 2, 0))]) for a, b in zip(long, little, strict=True))
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        assert_same(ours, theirs)
        new = states(generator, 6, 1)
        for a, b in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_a_trimmed_layer_is_one_that_never_saw_the_first_columns(kind, options):
    ours = GrowingLayer(filled(kind, **options))
    ours.trim(2)
    theirs = kind(**options)
    theirs.update(*(x[:, :, 2:] for x in states(torch.Generator().manual_seed(0), 4, 5)))
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        assert_same(ours, theirs)
        new = states(generator, 4, 1)
        for layer in (ours, theirs):
            layer.update(*new)


def test_a_cache_of_layers_that_cannot_be_put_below_one_another_says_so():
    cache = DynamicCache()
    cache.update(*states(torch.Generator(), 2, 4), 0)
    assert not can_join(cache)
    give_room(cache)
    assert can_join(cache)


def test_a_cache_that_joins_another_leaves_nothing_in_it():
    caches = []
    for seed in (0, 1):
        cache = DynamicCache()
        for layer in range(3):
            cache.update(*states(torch.Generator().manual_seed(seed), 2, 4), layer)
        give_room(cache)
        caches.append(cache)
    first, second = caches
    join(first, [second])
    assert [len(layer.keys) for layer in first.layers] == [4, 4, 4]
    assert second.layers == []
    select(first, [2], torch.device("cpu"))
    trim(first, 1)
    assert torch.equal(first.layers[2].values, states(torch.Generator().manual_seed(1), 2, 4)[1][:1, :, 1:])


def test_under_autocast_keys_and_values_are_kept_as_the_products_read_them():
    keys, values = states(torch.Generator(), 2, 4)
    layer = DynamicLayer()
    layer.update(keys, values)
    with torch.autocast("cpu", torch.bfloat16):
        growing = GrowingLayer(layer)
        seen, _ = growing.update(keys[:, :, :1], values[:, :, :1])
    assert torch.equal(seen, torch.cat([keys, keys[:, :, :1]], 2).bfloat16())
