"""A step ahead: answers are one step old, that is told, and a run is as exact as without."""

import json

import eager
import pytest
import torch
from eager import OVERLAP
from steps import plain_logprobs
from stopped_runs import Kill, KilledError, Stop, differences, left_by, make, newest, noisy, seed_everything
from tiny import tiny_llama

from surefoot.callbacks import Callback
from surefoot.checkpoint import read_checkpoint, write_checkpoint
from surefoot.prompts import PromptOrder
from surefoot.snapshot import generator_states, restore_generators

EVENTS = []


@pytest.fixture(autouse=True)
def patched(monkeypatch):
    """The patch that every trainer of a test is made under; what happens goes into EVENTS."""
    before = json.dumps(generator_states())
    EVENTS.clear()
    eager.use(monkeypatch, EVENTS)
    yield monkeypatch
    restore_generators(json.loads(before))


def strike_in_update(patch, strike, number=0):
    """Notes every update, and does something in the one with that number."""
    from surefoot import trainer

    update = trainer.update

    def noted(*args, **options):
        EVENTS.append("update")
        if EVENTS.count("update") == number:
            strike()
        return update(*args, **options)

    patch.setattr(trainer, "update", noted)


def scored(completions, **_):
    EVENTS.append("scored")
    return [float(len(c)) for c in completions]


class Look(Callback):
    """Keeps what each step tells, and the weights after it."""

    def __init__(self):
        self.steps, self.weights = [], []

    def on_start(self, trainer):
        self._keep(trainer)

    def on_step(self, trainer, stats, samples):
        self.steps.append(
            (dict(stats.scalars()), [s.get("version") for s in samples], trainer.last_experience.rollout)
        )
        self._keep(trainer)

    def _keep(self, trainer):
        self.weights.append({name: w.clone() for name, w in trainer.policy.state_dict().items()})


# ------------------------------------------------------------------------------------------ what comes when
def test_answers_are_asked_for_before_the_update_begins_and_none_after_the_last_step(patched):
    strike_in_update(patched, None)
    make(None, steps=3, eval_prompts=0, reward=scored, **OVERLAP).train()
    assert EVENTS == [
        "drawn", "asked", "scored", "update",
        "waited", "asked", "scored", "update",
        "waited", "scored", "update",
    ]  # fmt: skip


def test_an_evaluation_waits_for_them_before_it_asks_for_anything():
    make(None, steps=2, eval_every=1, reward=scored, **OVERLAP).train()
    assert EVENTS == [
        "drawn", "scored",
        "drawn", "asked", "scored",
        "waited", "drawn", "scored",
        "waited", "scored",
        "drawn", "scored",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------ how old they are
def test_every_step_but_the_first_learns_from_weights_that_are_one_step_old_and_says_so():
    look = Look()
    make(None, steps=3, eval_prompts=0, callbacks=[look], **OVERLAP).train()
    assert [stats["sampler/staleness"] for stats, *_ in look.steps] == [0, 1, 1]
    assert [versions for _, versions, _ in look.steps] == [[0] * 4, [0] * 4, [1] * 4]
    for step, (stats, (version, *_), rollout) in enumerate(look.steps):
        own, newest_ones = (sampled_by(look.weights[v], rollout) for v in (version, step))
        for i, length in enumerate(rollout.lengths.tolist()):
            assert rollout.sampler_logprobs[i, :length].tolist() == pytest.approx(own[i], abs=1e-4)
        if version != step:
            gaps = [torch.tensor(x) - torch.tensor(y) for x, y in zip(own, newest_ones, strict=True)]
            assert max(float(gap.abs().max()) for gap in gaps) > 0.01
            assert stats["sampler/effective_share"] < 1 - 1e-6
            assert stats["sampler/logprob_gap_max"] > 0.01
        assert stats["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-5)


def sampled_by(weights, rollout):
    """What a model with these weights says of the answers, row by row, without padding."""
    model = tiny_llama(num_hidden_layers=1)
    model.load_state_dict(weights)
    rows = zip(rollout.query_ids, rollout.query_mask, rollout.response_ids, rollout.lengths.tolist(), strict=True)
    return [plain_logprobs(model, query[mask], answer[:length]).tolist() for query, mask, answer, length in rows]


@pytest.mark.slow
def test_with_weights_that_do_not_move_it_is_the_run_without_overlap(tmp_path):
    def run(name, **changes):
        seed_everything(1)
        make(tmp_path / name, steps=4, learning_rate=0.0, **(OVERLAP | changes)).train()
        left = left_by(tmp_path / name)
        left["state"]["config"].pop("overlap")
        asked = left["state"].pop("ahead", None)
        staleness = [line.pop("sampler/staleness", None) for line in left["metrics.jsonl"]]
        left["samples"] = {
            file: [{k: v for k, v in json.loads(line).items() if k != "version"} for line in lines.splitlines()]
            for file, lines in left["samples"].items()
        }
        return left, asked, staleness

    plain, *others = run("plain", overlap=False)
    assert others == [None, [None] * 4]
    ahead, *others = run("ahead")
    assert others == [[None], [0, 1, 1, 1]]
    assert differences(plain, ahead) == []


# ------------------------------------------------------------------------------------------ stopped and gone on with
def reward(completions, trainer_state, **_):
    if len(completions) == 4 and trainer_state.global_step == 2 and STRIKES:
        STRIKES.pop()()
    return [noisy(c) for c in completions]


STRIKES = []
RUN = {"steps": 4, "reward": reward, "save_every": 0, **OVERLAP}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    before = json.dumps(generator_states())
    with pytest.MonkeyPatch.context() as patch:
        eager.use(patch)
        seed_everything(1)
        make(folder / "run", **RUN).train()
    restore_generators(json.loads(before))
    return left_by(folder / "run")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The checkpoint of the second step."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        eager.use(patch)
        make(folder / "run", callbacks=[Stop(2)], **RUN).train()
    return newest(folder / "run")


def gone_wrong():
    raise OSError(111, "the judge is gone")


QUICK = ("a callback", "signal in scoring")
SLOW = ("killed", "signal while waiting", "signal in the update", "the reward fails", "the engine fails")


@pytest.mark.parametrize("how", [*QUICK, *(pytest.param(how, marks=pytest.mark.slow) for how in SLOW)])
def test_a_run_that_ends_goes_on_with_the_answers_it_had_asked_for(tmp_path, patched, straight, how):
    """In its third step, or after it."""
    seed_everything(1)
    ends = {"killed": [Kill(3)], "a callback": [Stop(3)]}.get(how, [])
    trainer = make(tmp_path / "run", callbacks=ends, **(RUN | {"save_every": int(how == "killed")}))
    if how == "signal in scoring":
        STRIKES.append(lambda: trainer.stop.ask("SIGTERM"))
    if how == "the reward fails":
        STRIKES.append(gone_wrong)
    if how == "signal while waiting":  # for the answers of the third step, after the evaluation has waited too
        patched.setattr(
            eager.Eager, "meanwhile", lambda _: EVENTS.count("waited") == 3 and trainer.stop.ask("SIGTERM")
        )
    if how == "signal in the update":
        strike_in_update(patched, lambda: trainer.stop.ask("SIGTERM"), number=3)
    if how == "the engine fails":
        patched.setattr(eager.Eager, "begin", failing(eager.Eager.begin, 3))
    errors = {"killed": KilledError, "the reward fails": ValueError, "the engine fails": RuntimeError}
    if how in errors:
        with pytest.raises(errors[how]):
            trainer.train()
    else:
        assert trainer.train().reason.startswith(("callback", "stopped"))
    saved = newest(tmp_path / "run")
    assert int(saved.name[-6:]) == (3 if how in ("a callback", "signal in the update") else 2)
    (asked,) = read_checkpoint(saved)[1]["ahead"]
    assert asked["version"] == int(saved.name[-6:]) - 1
    patched.undo()
    with pytest.MonkeyPatch.context() as patch:
        eager.use(patch)
        seed_everything(99)
        again = make(tmp_path / "run", **RUN)
        again.restore(saved)
        again.train()
    left = left_by(tmp_path / "run")
    left["state"]["config"]["save_every"] = 0
    assert differences(straight, left) == []


def failing(begin, number):
    """Fails for good when it is called for the nth time."""
    calls = []

    def fails(self, *args):
        calls.append(1)
        if len(calls) == number:
            raise RuntimeError("vLLM failed, and failed again")
        return begin(self, *args)

    return fails


def test_a_run_that_draws_ahead_no_more_asks_anew_by_the_same_seeds(stopped):
    other = make(None, **(RUN | {"overlap": False}))
    with pytest.raises(ValueError, match="overlap: True -> False"):
        other.restore(stopped)
    other.restore(stopped, allow_changes=True)
    assert (other.progress.steps, other.progress.prompts, other.progress.generations) == (2, 8, 2)
    assert other.ahead is None


def test_a_checkpoint_that_lost_the_answers_is_refused(tmp_path, stopped):
    tensors, state, manifest = read_checkpoint(stopped)
    del state["ahead"]
    write_checkpoint(tmp_path / "less", tensors, state, {k: manifest[k] for k in ("step", "world_size", "score")})
    with pytest.raises(ValueError, match="has no ahead: it is not a whole checkpoint"):
        make(None, **RUN).restore(tmp_path / "less")


# ------------------------------------------------------------------------------------------ an engine that fails
def test_what_did_not_come_is_drawn_by_the_same_seeds_from_the_weights_as_they_are_then(patched):
    eager.use(patched, EVENTS, fails=(1,))
    look = Look()
    trainer = make(None, steps=3, eval_prompts=0, callbacks=[look], **OVERLAP)
    trainer.train()
    assert [event for event in EVENTS if event != "waited"] == ["drawn", "asked", "drawn", "asked"]
    first, asked, again, second = trainer.engine.seeds
    assert asked == again
    assert len({*first, *asked, *second}) == 12
    assert [stats["sampler/staleness"] for stats, *_ in look.steps] == [0, 0, 1]
    assert [versions for _, versions, _ in look.steps] == [[0] * 4, [1] * 4, [1] * 4]


@pytest.mark.slow
def test_that_they_did_not_come_is_saved_too(tmp_path, patched):
    def run(name, steps, *, fails=(), goes_on=False):
        eager.use(patched, EVENTS, fails)
        seed_everything(99 if goes_on else 1)
        trainer = make(tmp_path / name, callbacks=[Stop(steps)], **RUN)
        if goes_on:
            trainer.restore(newest(tmp_path / name))
        trainer.train()

    run("whole", 4, fails=(2,))
    run("parts", 2, fails=(2,))
    assert read_checkpoint(newest(tmp_path / "parts"))[1]["ahead"][0]["answers"] is None
    run("parts", 4, goes_on=True)
    assert differences(left_by(tmp_path / "whole"), left_by(tmp_path / "parts")) == []


# ------------------------------------------------------------------------------------------ by hand
def test_the_loop_by_hand_is_the_loop():
    trained, by_hand = (make(None, steps=3, eval_prompts=0, reward=scored, **OVERLAP) for _ in range(2))
    trained.train()
    order = PromptOrder(len(by_hand.prompts), by_hand.config.seed)
    first, *rest = [[by_hand.prompts[i] for i in order.take(4 * step, 4)] for step in range(3)]
    for prompts, following in zip([first, *rest], [*rest, None], strict=True):
        answers = by_hand.generate(prompts)
        if following is not None:
            by_hand.generate_ahead(following)
        by_hand.step(prompts, answers, [float(len(a)) for a in answers])
    ours, theirs = by_hand.policy.state_dict(), trained.policy.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_queries_in_between_leave_what_was_asked_for():
    trainer = make(None, eval_prompts=0, **OVERLAP)
    answers = trainer.generate(["one", "two"])
    trainer.generate_ahead(["three", "four"])
    trainer.step(["one", "two"], answers, [1.0, -1.0])
    assert [a.version for a in trainer.generate(["five", "six"])] == [1, 1]
    assert [a.version for a in trainer.generate(["three", "four"], temperature=0.5)] == [1, 1]
    assert [a.version for a in trainer.generate(["three", "four"])] == [0, 0]
    assert [a.version for a in trainer.generate(["three", "four"])] == [1, 1]


def test_without_overlap_nothing_is_asked_ahead():
    trainer = make(None, eval_prompts=0)
    with pytest.raises(ValueError, match="needs overlap=True"):
        trainer.generate_ahead(["one"])
    assert trainer.generate(["one"])[0].version is None
