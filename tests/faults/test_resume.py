"""A run that was stopped ends bit for bit as if it had not been: whole checkpoints, lines, samples and models."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from stopped_runs import (
    KINDS,
    TEXTS,
    Kill,
    KilledError,
    Stop,
    checkpoint,
    differences,
    left_by,
    make,
    newest,
    noisy,
    seed_everything,
)
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOTrainer
from surefoot.checkpoint import read_checkpoint, write_checkpoint
from surefoot.kept import steps_in
from surefoot.rewards.failure import RewardError, RewardUnavailableError
from surefoot.snapshot import generator_states, restore_generators


@pytest.fixture(autouse=True)
def _generators_as_they_were():
    before = json.dumps(generator_states())
    yield
    restore_generators(json.loads(before))


def quick(kind):
    """A kind as a parameter; where passes are as large as fit, models are measured first, which takes its time."""
    return pytest.param(kind, marks=[pytest.mark.slow] * (kind == "passes as large as fit"))


def straight(folder, **changes):
    seed_everything(1)
    return make(folder, **changes).train()


def go_on(folder, *, callbacks=(), **changes):
    """As a new process would: other states of the generators, new models, and the newest checkpoint."""
    seed_everything(99)
    trainer = make(folder, callbacks=callbacks, **changes)
    trainer.restore(newest(folder))
    return trainer.train()


def begin(folder, ends, **changes):
    """The first part of a run, ended by a callback."""
    seed_everything(1)
    trainer = make(folder, callbacks=[ends], **changes)
    if isinstance(ends, Kill):
        with pytest.raises(KilledError):
            trainer.train()
    else:
        assert trainer.train().reason.startswith("callback")


# ------------------------------------------------------------------------------------------ as if never stopped
@pytest.mark.parametrize("kind", [quick(kind) for kind in KINDS])
def test_a_run_killed_twice_ends_as_one_that_was_never_stopped(tmp_path, kind):
    """KilledError in the middle of the first epoch, gone on with across its end, killed again in the second."""
    changes = KINDS[kind]
    whole = straight(tmp_path / "a", **changes)
    begin(tmp_path / "b", Kill(2), **changes)
    with pytest.raises(KilledError):
        go_on(tmp_path / "b", callbacks=[Kill(4)], **changes)
    resumed = go_on(tmp_path / "b", **changes)
    assert differences(left_by(tmp_path / "a"), left_by(tmp_path / "b")) == []
    assert resumed.evaluations == whole.evaluations
    assert (resumed.reason, resumed.steps, resumed.episodes) == (whole.reason, whole.steps, whole.episodes)


def test_a_run_that_was_asked_to_stop_where_no_evaluation_was_due_ends_the_same(tmp_path):
    """The evaluation at a stop is for the reader; a run that goes on has not had it."""
    straight(tmp_path / "a", eval_every=4)
    begin(tmp_path / "b", Stop(3), eval_every=4)
    told = [json.loads(line)["step"] for line in (tmp_path / "b" / "evaluations.jsonl").read_text().splitlines()]
    assert told == [0, 3]
    go_on(tmp_path / "b", eval_every=4)
    assert differences(left_by(tmp_path / "a"), left_by(tmp_path / "b")) == []
    told = [json.loads(line)["step"] for line in (tmp_path / "b" / "evaluations.jsonl").read_text().splitlines()]
    assert told == [0, 4, 6]


def test_the_same_trainer_trained_again_after_a_stop_ends_the_same(tmp_path):
    straight(tmp_path / "a", eval_every=4)
    seed_everything(1)
    trainer = make(tmp_path / "b", callbacks=[Stop(3)], eval_every=4)
    trainer.train()
    trainer.callbacks.clear()
    trainer.train()
    assert differences(left_by(tmp_path / "a"), left_by(tmp_path / "b")) == []


def test_lines_past_the_checkpoint_are_made_again_and_not_doubled(tmp_path, caplog):
    straight(tmp_path / "a", save_every=3)
    begin(tmp_path / "b", Kill(5), save_every=3)
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]
    with (tmp_path / "b" / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 6, "obj')
    go_on(tmp_path / "b", save_every=3)
    assert "2 steps past step 3 are made again; their lines were taken out" in caplog.text
    assert differences(left_by(tmp_path / "a"), left_by(tmp_path / "b")) == []


def test_a_run_killed_between_its_last_checkpoint_and_its_end_makes_no_further_step(tmp_path):
    """Each of the rules that end a run holds on: patience, the goal, the KL ceiling, the number of steps."""
    rules = {"patience": {"patience": 1, "reward": lambda text: 1.0}, "target_reward": {"target_reward": -1e6},
             "kl_ceiling": {"kl_ceiling": 1e-5}, "finished": {"steps": 3}}  # fmt: skip
    for rule, changes in rules.items():
        whole = straight(tmp_path / rule, **changes)
        assert whole.reason.startswith(rule)
        before = left_by(tmp_path / rule)
        (tmp_path / rule / "result.json").unlink()
        shutil.rmtree(tmp_path / rule / "model")
        again = go_on(tmp_path / rule, **changes)
        assert (again.reason, again.steps) == (whole.reason, whole.steps)
        assert differences(before, left_by(tmp_path / rule)) == []


def test_more_steps_are_what_a_longer_run_would_have_made(tmp_path):
    straight(tmp_path / "a", eval_every=4)
    straight(tmp_path / "b", eval_every=4, steps=3)
    go_on(tmp_path / "b", eval_every=4)
    assert differences(left_by(tmp_path / "a"), left_by(tmp_path / "b")) == []


def test_prompts_come_once_an_epoch_each_however_often_the_run_is_stopped(tmp_path):
    """Seven prompts, four a step: after seven steps each was taken four times, at the right steps."""
    changes = {"dataset": TEXTS[:7], "eval_prompts": 0, "steps": 7, "ppo_epochs": 1}
    straight(tmp_path / "a", **changes)
    begin(tmp_path / "b", Kill(2), **changes)
    for step in (3, 4, 6):
        with pytest.raises(KilledError):
            go_on(tmp_path / "b", callbacks=[Kill(step)], **changes)
    go_on(tmp_path / "b", **changes)
    taken = {}
    for run in ("a", "b"):
        files = sorted((tmp_path / run / "samples").glob("step_*.jsonl"))
        taken[run] = [json.loads(line)["row"] for file in files for line in file.read_text().splitlines()]
    assert taken["a"] == taken["b"]
    for epoch in range(4):
        assert sorted(taken["b"][7 * epoch : 7 * epoch + 7]) == list(range(7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 2, "num_generations": 2},
            "batch_size=2 with num_generations=2 makes 1 prompts a step, too few",
        ),
        ({"eval_prompts": 1}, "1 evaluation prompts are too few for 2 processes"),
    ],
)
def test_fewer_prompts_than_processes_are_refused_before_anything_is_made(tmp_path, changes, message):
    trainer = make(tmp_path / "run", **changes)
    trainer.runtime.world_size = 2
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------ by hand
def by_hand(trainer, steps):
    for _ in range(steps):
        first = trainer.steps_done * 4
        queries = [TEXTS[i % 12] for i in range(first, first + 4)]
        answers = trainer.generate(queries)
        trainer.step(queries, answers, [noisy(a) for a in answers])


@pytest.mark.parametrize("kind", [quick(kind) for kind, changes in KINDS.items() if "watch" not in changes])
def test_a_loop_by_hand_goes_on_from_save_and_load_bit_for_bit(tmp_path, kind):
    changes = {**KINDS[kind], "dataset": None, "reward": None, "eval_prompts": 0}
    seed_everything(1)
    whole = make(None, **changes)
    by_hand(whole, 4)
    whole.save(tmp_path / "whole")
    seed_everything(1)
    trainer = make(None, **changes)
    for part in ("first", "second"):
        by_hand(trainer, 1 if part == "first" else 2)
        trainer.save(tmp_path / part)
        seed_everything(99)
        trainer = loaded(tmp_path / part, **changes)
    by_hand(trainer, 1)
    trainer.save(tmp_path / "resumed")
    assert differences(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "resumed")) == []


def loaded(path, *, own=False, **_):
    """`PPOTrainer.load` with the parts that `make` would have made."""
    model = tiny_llama(num_hidden_layers=1)
    parts = {}
    if own:
        parts["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        parts["lr_scheduler"] = torch.optim.lr_scheduler.ExponentialLR(parts["optimizer"], 0.8)
    return PPOTrainer.load(path, model=model, tokenizer=tiny_tokenizer(), **parts)


def test_a_checkpoint_with_names_loads_by_them_but_a_reward_never(tmp_path):
    tiny_llama(num_hidden_layers=1).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "judge.py").write_text(
        f"open({str(tmp_path / 'executed')!r}, 'w').close()\ndef score(text): return 1.0\n"
    )
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS))
    names = {"model_name": str(tmp_path / "model"), "dataset": str(tmp_path / "prompts.txt")}
    rewards = {"reward": (f"{tmp_path}/judge.py:score",)}
    first = PPOTrainer.from_config(make(None, steps=2).config.replace(**names, **rewards, output_dir=None))
    (tmp_path / "executed").unlink()
    first.train()
    first.save(tmp_path / "checkpoint")
    again = PPOTrainer.load(tmp_path / "checkpoint")
    assert again.steps_done == 2
    assert again.prompts == first.prompts
    assert again.reward is None
    assert not (tmp_path / "executed").exists()
    again.save(tmp_path / "again")
    assert differences(checkpoint(tmp_path / "checkpoint"), checkpoint(tmp_path / "again")) == []


def test_loading_says_what_is_missing(tmp_path):
    make(None).save(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="model is missing: give the policy as it started, or name it"):
        PPOTrainer.load(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="tokenizer is missing"):
        PPOTrainer.load(tmp_path / "checkpoint", model=tiny_llama(num_hidden_layers=1))
    with pytest.raises(ValueError, match="dataset, eval_dataset: not what the checkpoint's run had"):
        PPOTrainer.load(tmp_path / "checkpoint", model=tiny_llama(num_hidden_layers=1), tokenizer=tiny_tokenizer())


# ------------------------------------------------------------------------------------------ another run
def test_options_that_make_another_run_are_listed_and_refused_and_nothing_is_changed(tmp_path):
    make(None).save(tmp_path / "checkpoint")
    other = make(None, learning_rate=2e-3, init_kl_coef=0.3, save_every=5)
    before = {name: p.clone() for name, p in other.models.trainable().items()}
    message = r"had other options: init_kl_coef: 0\.1 -> 0\.3; learning_rate: 0\.001 -> 0\.002\. With these"
    with pytest.raises(ValueError, match=message):
        other.restore(tmp_path / "checkpoint")
    assert all(torch.equal(p, before[name]) for name, p in other.models.trainable().items())
    said = other.restore(tmp_path / "checkpoint", allow_changes=True)
    assert said == [
        "init_kl_coef: 0.1 -> 0.3 (another run from here on, as allowed)",
        "learning_rate: 0.001 -> 0.002 (another run from here on, as allowed)",
        "save_every: 1 -> 5 (what is kept)",
    ]


def test_a_change_that_is_allowed_acts(tmp_path):
    trainer = make(None, kl_controller="fixed", steps=1)
    trainer.train()
    trainer.save(tmp_path / "checkpoint")
    other = make(None, kl_controller="fixed", init_kl_coef=0.7, learning_rate=2e-3, steps=2)
    other.restore(tmp_path / "checkpoint", allow_changes=True)
    rates = []
    other.callbacks.append(type("Look", (Stop,), {"on_step": lambda _, t, s, __: rates.append(s.scalars())})(0))
    other.train()
    assert rates[0]["objective/kl_coef"] == 0.7
    assert rates[0]["ppo/learning_rate"] == 2e-3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": tiny_llama(seed=4, num_hidden_layers=1)}, "reference"),
        ({"model": tiny_llama(seed=4, num_hidden_layers=1), "lora_r": 2}, "reference"),
        ({"dataset": [*TEXTS[:11], "another"]}, "dataset"),
        ({"dataset": TEXTS[::-1]}, "dataset"),
        ({"dataset": [{"prompt": t, "answer": "42"} for t in TEXTS]}, "dataset"),
    ],
)
def test_other_frozen_weights_or_prompts_are_refused(tmp_path, changes, named):
    same = {k: v for k, v in changes.items() if k == "lora_r"}
    make(None, **same).save(tmp_path / "checkpoint")
    make(None, **same).restore(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=rf"{named}[\w, ]*: not what the checkpoint's run had"):
        make(None, **changes).restore(tmp_path / "checkpoint")


def test_another_reward_model_is_refused(tmp_path):
    from tiny_classifier import classifier

    from surefoot.rewards.model import ModelReward

    def judged(change):
        model = classifier()
        model.score.weight.data += change
        return make(None, reward=ModelReward(model, tiny_tokenizer(), name="judge"))

    judged(0.0).save(tmp_path / "checkpoint")
    judged(0.0).restore(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"^reward judge: not what"):
        judged(0.1).restore(tmp_path / "checkpoint")


def test_another_machine_is_warned_of(tmp_path, monkeypatch):
    make(None).save(tmp_path / "checkpoint")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "Z80")
    monkeypatch.setattr("transformers.__version__", "9.9")
    with pytest.warns(
        UserWarning, match=r"other conditions \(transformers .* -> 9\.9, instruction set .* -> \w+ Z80\)"
    ):
        make(None).restore(tmp_path / "checkpoint")


def test_another_number_of_processes_is_refused_unless_allowed(tmp_path):
    trainer = make(None)
    trainer.save(tmp_path / "one")
    tensors, state, _ = read_checkpoint(tmp_path / "one")
    write_checkpoint(tmp_path / "two", tensors, state, {"step": 0, "world_size": 2, "score": None})
    with pytest.raises(
        ValueError, match=r"the checkpoint is of 2 processes, this run has 1: .*--allow-topology-change"
    ):
        make(None).restore(tmp_path / "two")
    make(None).restore(tmp_path / "two", allow_topology_change=True)


# ------------------------------------------------------------------------------------------ rewards that fail
@pytest.mark.parametrize("when", ["answers", "evaluation"])
def test_a_reward_that_is_down_for_good_leaves_the_last_whole_step_and_the_run_goes_on_from_it(tmp_path, when):
    """Even without regular checkpoints, and even where it was asked for the evaluation after a step."""
    straight(tmp_path / "a", save_every=0)
    calls = {"answers": 0, "evaluation": 0}

    def down(prompts, completions, **columns):
        kind = "evaluation" if len(completions) == 2 else "answers"
        calls[kind] += 1
        random.random()
        if kind == when and calls[kind] == 3:
            raise RewardUnavailableError("judge", "gave no score for 4 answers: connection refused")
        return [noisy(c) for c in completions]

    # each call draws once more than the plain reward: the straight run uses the same function without the failure
    shutil.rmtree(tmp_path / "a")
    calls["answers"] = calls["evaluation"] = -1000
    straight(tmp_path / "a", save_every=0, reward=down)
    calls["answers"] = calls["evaluation"] = 0
    seed_everything(1)
    with pytest.raises(RewardError, match="connection refused"):
        make(tmp_path / "b", save_every=0, reward=down).train()
    assert list(steps_in(tmp_path / "b" / "checkpoints")) == [{"answers": 2, "evaluation": 4}[when]]
    go_on(tmp_path / "b", save_every=0, reward=down)
    assert differences(left_by(tmp_path / "a"), left_by(tmp_path / "b")) == []


def test_a_full_disk_does_not_hide_the_error_that_ended_the_run(tmp_path, monkeypatch, caplog):
    def broken(text):
        if len(calls) > 12:
            raise OSError(111, "the judge is gone")
        calls.append(text)
        return 1.0

    calls = []
    monkeypatch.setattr(
        "surefoot.checkpoint._check_room", lambda path, size: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(ValueError, match="the judge is gone"):
        make(tmp_path / "run", save_every=0, reward=broken).train()
    assert "step 2 could not be saved either: [Errno 28] full" in caplog.text


# ------------------------------------------------------------------------------------------ one piece lost
def leaves(value, path=()):
    """Path -> value of everything in a state: mappings and the optimizer's groups are gone into."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if path == ("optimizer",) else None
    if inner is None:
        return {path: value}
    return {p: v for key, item in inner for p, v in leaves(item, (*path, key)).items()}


def replaced(state, path, value):
    copy = json.loads(json.dumps(state))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return copy


MUTATED = {"q_only": True, "use_score_scaling": True, "steps": 3, "eval_every": 1, "ppo_epochs": 1, "horizon": 20.0,
           "target_reward": 0.0, "target_reward_evals": 99, "patience": 99}  # fmt: skip
OWN = {**MUTATED, "own": True, "q_only": False, "max_tokens_per_microbatch": "auto"}
NOT_NEEDED = {
    ("parts", "stop_rules", "kl_per_token"),  # at the end of a run only: see the test of the rules that hold on
    ("config", "output_dir"),  # a run may be moved
    ("parts", "progress", "max_tokens"),  # settled again; to the same where as much memory is free
    ("parts", "lr_scheduler", "_last_lr"),  # what the scheduler tells of its last step; the rates are the optimizer's
}


@pytest.mark.parametrize(
    "changes",
    [pytest.param(MUTATED, id="AdamW, LoRA"), pytest.param(OWN, id="own optimizer", marks=pytest.mark.slow)],
)
def test_no_piece_of_a_checkpoint_can_be_lost_without_a_trace(tmp_path, changes):
    """Each in turn is set to what a new trainer has, and the run gone on with: it must end otherwise, or refuse."""
    straight(tmp_path / "a", **changes)
    expected = left_by(tmp_path / "a")
    source = tmp_path / "a" / "checkpoints" / "step_000002"
    tensors, state, manifest = read_checkpoint(source)
    seed_everything(5)
    make(None, **changes).save(tmp_path / "new")
    new_tensors, new_state, _ = read_checkpoint(tmp_path / "new")
    pieces = {("tensors file", name): None for name, t in tensors.items()
              if name not in new_tensors or not torch.equal(t, new_tensors[name])}  # fmt: skip
    fresh = leaves(new_state)
    pieces |= {path: fresh.get(path) for path, value in leaves(state).items() if fresh.get(path) != value}
    assert len(pieces) > 30
    unseen = []
    for number, (path, value) in enumerate(pieces.items()):
        if path == ("tensors",):
            continue  # the list of the others
        changed, lost = dict(tensors), state
        if path[0] == "tensors file":
            name = path[1]
            changed[name] = new_tensors.get(name, torch.zeros_like(tensors[name]))
        else:
            lost = replaced(state, path, value)
        folder = tmp_path / f"lost{number}"
        write_checkpoint(folder / "from", changed, lost, {k: manifest[k] for k in ("step", "world_size", "score")})
        if not noticed(folder, expected, changes):
            unseen.append(path)
    assert set(unseen) <= NOT_NEEDED


def noticed(folder, expected, changes):
    """Whether a run from a damaged state ends otherwise or is refused in words."""
    seed_everything(99)
    trainer = make(folder / "run", **changes)
    try:
        trainer.restore(folder / "from")
        trainer.train()
    except ValueError as error:
        return len(str(error)) > 20
    found = left_by(folder / "run")
    whole = {**expected, "metrics.jsonl": expected["metrics.jsonl"][2:],
             "evaluations.jsonl": [e for e in expected["evaluations.jsonl"] if e["step"] > 2]}  # fmt: skip
    whole["samples"] = {n: s for n, s in whole["samples"].items() if int(n[-9:-6]) > 2}
    return bool(differences(whole, found))


def test_a_checkpoint_that_lost_nothing_is_not_noticed(tmp_path):
    """That the test above would see no difference where there is none."""
    straight(tmp_path / "a", **MUTATED)
    shutil.copytree(tmp_path / "a" / "checkpoints" / "step_000002", tmp_path / "b" / "from")
    assert not noticed(tmp_path / "b", left_by(tmp_path / "a"), MUTATED)


def test_a_checkpoint_without_a_piece_is_refused_by_its_name(tmp_path):
    """Every part, every entry of a part, every tensor: taken out, not set back."""
    trained = make(None, **{**MUTATED, "steps": 1})
    trained.train()
    trained.save(tmp_path / "whole")
    tensors, state, manifest = read_checkpoint(tmp_path / "whole")
    about = {k: manifest[k] for k in ("step", "world_size", "score")}
    gone = [(key,) for key in state] + [("parts", part) for part in state["parts"]]
    gone += [("parts", part, key) for part, entries in state["parts"].items() for key in entries]
    trainer = make(None, **MUTATED)
    assert any(name.startswith("optimizer.") for name in tensors)
    for number, path in enumerate(gone):
        less = json.loads(json.dumps(state))
        holder = less
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        write_checkpoint(tmp_path / f"state{number}", tensors, less, about)
        with pytest.raises(ValueError, match=str(path[-1])):
            trainer.restore(tmp_path / f"state{number}")
    for number, name in enumerate(tensors):
        write_checkpoint(tmp_path / f"t{number}", {n: t for n, t in tensors.items() if n != name}, state, about)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            trainer.restore(tmp_path / f"t{number}")


# ------------------------------------------------------------------------------------------ clocks
def test_a_clock_that_jumps_changes_nothing_but_times(tmp_path, monkeypatch):
    straight(tmp_path / "a")
    moments = iter(range(10**9, 0, -1000))
    monkeypatch.setattr("time.time", lambda: float(next(moments)))
    begin(tmp_path / "b", Kill(3))
    go_on(tmp_path / "b")
    assert differences(left_by(tmp_path / "a"), left_by(tmp_path / "b")) == []


def test_the_generators_are_where_they_were(tmp_path):
    seed_everything(5)
    trainer = make(None)
    trainer.save(tmp_path / "checkpoint")
    expected = random.random(), np.random.rand(), torch.rand(2).tolist()  # noqa: NPY002
    trainer.restore(tmp_path / "checkpoint")
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == expected  # noqa: NPY002
