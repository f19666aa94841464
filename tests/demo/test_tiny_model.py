"""The toy of the quick demo: learns, repeats itself bit for bit, and disturbs nobody."""

import pytest
import torch

from surefoot.demo import tiny

TEXTS = ["Lamp: I love this lamp. It is bright.", "Soup: It was too cold.", "Bus: The bus is late. I am sad."] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer(TEXTS, vocab_size=300)


def teach(tokenizer, seed, steps=12):
    model = tiny.make_model(tokenizer, seed)
    done = tiny.pretrain(model, tokenizer, TEXTS, seed=seed, autocast=False, steps=steps, rows=6)
    return model, done


def test_any_text_goes_through_the_tokenizer_unchanged(tokenizer):
    text = "Crème brûlée: 3 < 4, \u2019tis so!\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0


def test_it_learns_what_it_reads(tokenizer):
    _, done = teach(tokenizer, seed=0, steps=40)
    assert done.last_loss < done.first_loss / 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tokenizer):
    first, again, other = (teach(tokenizer, seed, steps=3)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_global_random_numbers_are_left_alone(tokenizer):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    teach(tokenizer, seed=0, steps=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_hold_every_text_once_a_round_and_padding_does_not_count():
    encoded = [[7] * n for n in (1, 9, 17, 3, 30, 2, 11)]
    stream = tiny.batches(encoded, rows=2, seed=0)
    seen = [length for _ in range(4) for length in next(stream)[1].sum(1).tolist()]
    assert sorted(seen) == sorted(map(len, encoded))
    ids, mask = next(stream)
    assert torch.equal(ids[mask], torch.full((int(mask.sum()),), 7))
    assert not ids[~mask].any()


def test_the_count_of_tokens_leaves_padding_out(tokenizer):
    _, done = teach(tokenizer, seed=0, steps=2)
    assert done.tokens == sum(len(tokenizer(text)["input_ids"]) + 1 for text in TEXTS)  # 12 texts are two batches


def test_the_first_loss_is_that_of_each_text_read_alone(tokenizer):
    texts = TEXTS[:3]
    fresh, total, count = tiny.make_model(tokenizer, seed=0), 0.0, 0
    for text in texts:
        row = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logprobs = fresh(input_ids=row).logits[0, :-1].log_softmax(-1)
        total -= logprobs.gather(1, row[0, 1:, None]).sum().item()
        count += row.shape[1] - 1
    model = tiny.make_model(tokenizer, seed=0)
    done = tiny.pretrain(model, tokenizer, texts, seed=0, autocast=False, steps=1, rows=3)
    assert done.first_loss == pytest.approx(total / count, rel=1e-4)
