"""A profile of one iteration: stages and nothing else, in a run whose numbers stay what they are."""

import gzip
import json
import time
from types import SimpleNamespace

import pytest
import tiny
import torch

from surefoot import PPOConfig, PPOTrainer
from surefoot.phases import stage, watched
from surefoot.profiling import Profile, StageCost, operator_table, stage_table
from surefoot.runtime import peak_memory_gib, peak_memory_since_restart_gib, restart_peak_memory

STAGES = ["sampling", "reward", "scoring pass", "estimates", "update"]


def length(completions, **columns):
    return [float(len(text)) for text in completions]


def trained(folder, *callbacks, **options):
    sizes = {"batch_size": 4, "mini_batch_size": 4, "max_new_tokens": 6, "ppo_epochs": 2, "learning_rate": 1e-4}
    config = PPOConfig(**(sizes | {"eval_prompts": 2, "eval_every": 1, "steps": 3} | options), output_dir=str(folder))
    prompts = [f"Question {i}?" for i in range(16)]
    trainer = PPOTrainer(config, tiny.tiny_llama(), None, tiny.tiny_tokenizer(), reward=length, dataset=prompts,
                         callbacks=callbacks)  # fmt: skip
    trainer.train()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "memory/"))} for line in lines]


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """What was shown, the folder, and the numbers of a run that was profiled."""
    folder, shown = tmp_path_factory.mktemp("profiled") / "run", []
    return trained(folder, Profile(folder, shown.append)), folder / "profile", shown


def test_a_profile_changes_no_number_of_the_run(profiled, tmp_path):
    assert profiled[0] == trained(tmp_path / "plain")


def test_every_stage_is_in_the_table_once_though_evaluations_use_the_same_parts(profiled):
    _, folder, shown = profiled
    table = (folder / "table.txt").read_text()
    lines = table.split("\n\n")[0].splitlines()
    assert [line[:16].strip() for line in lines[1:]] == [*STAGES, "everything else", "one iteration"]
    assert len(shown) == 1
    assert shown[0].startswith("\n".join(lines))
    shares = [float(line[25:32].strip("% ")) for line in lines[1:]]
    assert sum(shares[:-1]) == pytest.approx(100, abs=4)  # each is rounded
    assert shares[-1] == 100


def test_the_heaviest_operators_follow_and_stages_are_none_of_them(profiled):
    _, folder, _ = profiled
    operators = [line[:48].strip() for line in (folder / "table.txt").read_text().split("\n\n")[1].splitlines()[1:]]
    assert any(name.startswith("aten::") for name in operators)
    assert not set(operators) & set(STAGES)


def test_the_trace_holds_each_stage_once_around_its_operators(profiled):
    _, folder, _ = profiled
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    spans = {e["name"]: e for e in events if e.get("cat") == "user_annotation" and e["name"] in STAGES}
    assert sorted(spans) == sorted(STAGES)
    assert [e["name"] for e in events if e.get("cat") == "user_annotation" and e["name"] in STAGES] == STAGES
    update = spans["update"]
    steps = [e for e in events if str(e.get("name", "")).startswith("Optimizer.step")]
    assert len(steps) == 2  # epochs of one minibatch
    assert all(update["ts"] <= e["ts"] <= update["ts"] + update["dur"] for e in steps)


def test_a_run_of_one_step_says_that_there_is_no_profile(tmp_path):
    shown: list[str] = []
    trained(tmp_path / "short", Profile(tmp_path / "short", shown.append), steps=1)
    assert shown == ["profile   none: it is made of the second step, after one that warms up"]
    assert not (tmp_path / "short" / "profile").exists()


# ------------------------------------------------------------------------------------------ parts


def test_the_stage_table_shows_shares_and_what_lies_between_the_stages():
    table = stage_table([StageCost("sampling", 1.0, 1.5, 2.0), StageCost("update", 2.0, 4.0)],
                        StageCost("one iteration", 4.0, 6.0))  # fmt: skip
    assert table.splitlines()[1:] == [
        "sampling            1.000    25%    1.500   1.50      2.00",
        "update              2.000    50%    4.000   2.00",
        "everything else     1.000    25%    0.500   0.50",
        "one iteration       4.000   100%    6.000   1.50",
    ]


def test_operators_are_ranked_by_the_time_on_the_device_that_works():
    def operator(key, cpu, gpu):
        return SimpleNamespace(key=key, count=2, self_cpu_time_total=cpu, self_device_time_total=gpu)

    on_cpu = operator_table([operator("a", 1e6, 0), operator("b", 3e6, 0), operator("update", 9e6, 0)], {"update"})
    assert [line.split() for line in on_cpu.splitlines()[1:]] == [
        ["b", "3.000", "75%", "2"],
        ["a", "1.000", "25%", "2"],
    ]
    on_gpu = operator_table([operator("a", 1e6, 3e6), operator("b", 3e6, 1e6)], set())
    assert [line.split()[0] for line in on_gpu.splitlines()[1:]] == ["a", "b"]


def test_nobody_watching_a_stage_is_just_its_function():
    seen: list[str] = []

    @stage("adding")
    def add(x: int, y: int) -> int:
        """Adds."""
        return x + y

    class Watcher:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(f"into {self.name}")

        def __exit__(self, *_):
            seen.append(f"out of {self.name}")

    assert add(1, y=2) == 3
    assert add.__doc__ == "Adds."
    with watched(Watcher):
        assert add(3, 4) == 7
    add(5, 6)
    assert seen == ["into adding", "out of adding"]


def test_a_peak_of_its_own_forgets_the_higher_one_before_and_the_whole_does_not():
    cpu = torch.device("cpu")
    high = torch.ones(2**26)  # 256 MiB
    before = peak_memory_gib(cpu)
    del high
    time.sleep(0.05)
    if not restart_peak_memory(cpu):
        pytest.skip("this system keeps one peak only")
    assert peak_memory_since_restart_gib(cpu) < before - 0.2
    assert peak_memory_gib(cpu) == pytest.approx(before, abs=0.01)
