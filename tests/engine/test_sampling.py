"""Sampling as a whole: whatever waits, joins, leaves or is read once, every answer is the one it would be alone."""

import contextlib
import itertools

import pytest
import torch
from families import FAMILIES, tiny_model
from sampling import ENDS, LENGTHS, engine, queries
from tiny import tiny_gpt2, tiny_llama

from surefoot.types import Sampling


@contextlib.contextmanager
def passes(model):
    """The passes through `model`: rows, new tokens a row and columns of each."""
    seen = []

    def note(module, args, kwargs):
        past = kwargs["past_key_values"]
        rows, new = kwargs["input_ids"].shape
        seen.append((rows, new, new + (0 if past is None else past.get_seq_length())))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


@torch.no_grad()
def one_by_one(model, query, seed, sampling, ends=ENDS):
    """An answer without batch, padding or cache, in double precision where it matters."""
    numbers = torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed)).double()
    ids, logprobs = list(query), []
    for number in numbers:
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double() / sampling.temperature
        probabilities = logits.softmax(-1)
        if sampling.greedy:
            token = int(logits.argmax())
        else:
            token = next(i for i, mass in enumerate(itertools.accumulate(probabilities.tolist())) if mass > number)
        ids.append(token)
        logprobs.append(float(probabilities[token].log()))
        if token in ends:
            break
    return ids[len(query) :], logprobs


@pytest.mark.parametrize("max_tokens", [1, 110, 65_536], ids=["one at a time", "some wait", "all at once"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_an_answer_is_the_one_it_would_be_alone(make, max_tokens):
    model, sampling = make(), Sampling(20, temperature=0.8)
    rows = queries()
    answers = engine(model, max_tokens=max_tokens).generate(rows, range(len(rows)), sampling)
    assert len({len(a.token_ids) for a in answers}) > 3
    for seed, (query, answer) in enumerate(zip(rows, answers, strict=True)):
        ids, logprobs = one_by_one(model, query, seed, sampling)
        assert list(answer.token_ids) == ids
        assert answer.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert answer.finish_reason == ("stop" if ids[-1] in ENDS else "length")


@pytest.mark.parametrize("order", [range(8), reversed(range(8)), [3, 6, 0, 7, 1, 5, 2, 4]])
def test_answers_come_in_the_order_of_their_queries(order):
    model, order, rows = tiny_llama(), list(order), queries()
    plain = engine(model).generate(rows, range(8), Sampling(12))
    moved = engine(model, max_tokens=110).generate([rows[i] for i in order], order, Sampling(12))
    assert [a.token_ids for a in moved] == [plain[i].token_ids for i in order]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_greedy_answers_equal_those_of_transformers_generate(family):
    model = tiny_model(family)
    rows = queries((5, 30, 1, 12))
    rows.append(rows[3])  # read once, answered twice
    theirs = [
        model.generate(
            torch.tensor([row]), attention_mask=torch.ones(1, len(row)).long(), max_new_tokens=16, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )[0, len(row) :].tolist()
        for row in rows
    ]  # fmt: skip
    ends = {theirs[0][3], theirs[1][8], theirs[3][12]}
    lengths = [next((i + 1 for i, token in enumerate(answer) if token in ends), 16) for answer in theirs]
    ours = engine(model, ends=ends, max_tokens=110).generate(rows, range(5), Sampling(16, greedy=True))
    assert [list(a.token_ids) for a in ours] == [a[:n] for a, n in zip(theirs, lengths, strict=True)]


def test_sampled_answers_follow_the_model_s_distribution():
    model = tiny_llama(vocab_size=12, eos_token_id=2)
    rows = queries((2, 9, 4))
    rows = [[token % 12 for token in row] for row in rows]
    count, end = 3000, 2
    many = [row for row in rows for _ in range(count)]
    answers = engine(model, ends=[end], max_tokens=20_000).generate(many, range(len(many)), Sampling(2))
    for i, row in enumerate(rows):
        expected = torch.zeros(12, 12)
        with torch.no_grad():
            first = model(torch.tensor([row])).logits[0, -1].softmax(-1)
            for token in range(12):
                second = model(torch.tensor([[*row, token]])).logits[0, -1].softmax(-1)
                expected[token] = first[token] * second
        expected[end] = torch.eye(12)[0] * first[end]  # it ends there: one cell for all that is not drawn
        seen = torch.zeros(12, 12)
        for answer in answers[i * count : (i + 1) * count]:
            seen[answer.token_ids if len(answer.token_ids) == 2 else (end, 0)] += 1
        kept = expected * count >= 5
        chi2 = ((seen - count * expected)[kept] ** 2 / (count * expected[kept])).sum()
        degrees = int(kept.sum()) - 1
        assert kept.sum() > 20
        assert abs(chi2 - degrees) < 4 * (2 * degrees) ** 0.5  # four standard deviations of chi-squared


def test_several_answers_to_one_query_read_it_once_and_are_those_of_separate_queries():
    model = tiny_llama()
    a, b = queries((20, 11))
    rows = [a, b, a, a, b, a]
    with passes(model) as seen:
        together = engine(model).generate(rows, range(6), Sampling(8))
    assert seen[0] == (2, 20, 20)
    alone = [engine(model).generate([row], [seed], Sampling(8))[0] for seed, row in enumerate(rows)]
    assert [x.token_ids for x in together] == [x.token_ids for x in alone]
    assert len({x.token_ids for x in together}) == 6


def test_rows_that_have_ended_leave_the_batch_and_columns_of_padding_go():
    model, rows = tiny_llama(), queries()
    with passes(model) as seen:
        answers = engine(model).generate(rows, range(8), Sampling(20))
    lengths = [len(a.token_ids) for a in answers]
    steps = [(count, columns) for count, new, columns in seen if new < columns]
    for step, (count, columns) in enumerate(steps, start=1):
        going = [i for i in range(8) if lengths[i] > step]
        assert count == len(going)
        assert columns == max(len(rows[i]) for i in going) + step


def test_waiting_rows_take_the_places_of_those_that_have_ended():
    model, rows = tiny_llama(), queries(LENGTHS * 4)
    bound = 4 * (max(LENGTHS) + 20)
    with passes(model) as seen:
        answers = engine(model, max_tokens=bound).generate(rows, range(len(rows)), Sampling(20))
    decoding = [count for count, new, columns in seen if new < columns]
    assert max(count * columns for count, _, columns in seen) <= bound
    assert max(decoding) == 4
    assert sum(decoding[:-20]) > 0.8 * 4 * len(decoding[:-20])  # four by four, the longest answers would be alone
    assert sum(decoding) == sum(len(a.token_ids) - 1 for a in answers)


def test_queries_of_one_length_are_read_together_and_never_too_many_at_once():
    model = tiny_llama()
    rows = queries((200,) * 8 + (10,) * 50)
    with passes(model) as seen:
        engine(model).generate(rows, range(58), Sampling(2))
    first = [(count, new) for count, new, columns in seen if new == columns]
    assert sum(count for count, _ in first) == 58
    assert all(count * new <= 1024 for count, new in first)
    assert sum(count * new for count, new in first) < 1.25 * sum(len(row) for row in rows)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_cache_whose_rows_cannot_join_others_answers_group_by_group():
    model = tiny_model("FalconH1", mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, head_dim=8)
    rows, sampling = queries((5, 30, 1, 12)), Sampling(10)
    answers = engine(model, max_tokens=90).generate(rows, range(4), sampling)
    for seed, (query, answer) in enumerate(zip(rows, answers, strict=True)):
        assert list(answer.token_ids) == one_by_one(model, query, seed, sampling)[0]


def test_bfloat16_autocast_samples_what_the_scoring_pass_says():
    model, rows = tiny_llama(), queries()
    bfloat16 = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    answers = engine(model, autocast=bfloat16).generate(rows, range(8), Sampling(20))
    with torch.no_grad(), bfloat16():
        for query, answer in zip(rows, answers, strict=True):
            logits = model(torch.tensor([[*query, *answer.token_ids]])).logits[0, len(query) - 1 : -1]
            scored = logits.float().log_softmax(-1)[range(len(answer.token_ids)), list(answer.token_ids)]
            assert torch.tensor(answer.logprobs) == pytest.approx(scored, abs=0.15)


def test_weights_that_are_not_finite_are_named():
    model = tiny_llama()
    model.lm_head.weight.data[5, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        engine(model).generate([[5, 6]], [0], Sampling(4))


def test_a_stop_string_ends_an_answer_and_stays_in_its_tokens():
    model = tiny_llama()
    free = engine(model, ends=()).generate([[20, 21]], [3], Sampling(30))[0]
    stop = str(free)[7:9]
    cut = engine(model, ends=()).generate([[20, 21]], [3], Sampling(30, stop_strings=(stop,)))[0]
    assert cut.finish_reason == "stop"
    assert str(cut) == str(free)[: str(free).index(stop) + 2]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_gradients_after_sampling_are_those_of_a_model_that_never_sampled(make, bfloat16):
    arithmetic = lambda: torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)  # noqa: E731

    def gradients(model):
        with arithmetic():
            model(torch.tensor([[5, 6, 7, 8]])).logits.logsumexp(-1).sum().backward()
        return {name: p.grad for name, p in model.named_parameters()}

    fresh, used = make(), make()
    engine(used, autocast=arithmetic).generate(queries(), range(8), Sampling(8))
    expected = gradients(fresh)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(used).items())
