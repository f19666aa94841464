"""The order of the stages, what is skipped, where it stops and goes on; the stages themselves are stand-ins here."""

import json

import pytest
from pipelines import TOP, write_files

from surefoot import cli
from surefoot.pipeline import run as running

SETTINGS = (
    TOP
    + """\
sft:
  dataset: texts.jsonl
rate:
  rater: judge.py:shortness
reward:
ppo:
  steps: 2
dpo:
compare:
"""
)


class StandIns:
    """Runs nothing, leaves what a stage leaves, and remembers what it was asked."""

    def __init__(self):
        self.ran, self.options, self.fails = [], {}, {}

    def runner(self, kind):
        def run(options, *, quiet):
            self.ran.append(kind)
            self.options[kind] = options
            if kind in self.fails:
                return self.fails[kind]
            leave(kind, options.output_dir)
            return 0

        return run


def leave(kind, place):
    folder = running.Path(place)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    result = {"reason": "finished", "pairs": 3, "agreement": 0.7, "ceiling": 0.8}
    (folder / "result.json").write_text(json.dumps(result))
    if kind == "rate":
        (folder / "preferences.jsonl").write_text("{}\n")
    if kind == "compare":
        (folder / "compare.json").write_text(json.dumps(compared()))


def compared():
    def method(name, folders, less_baseline, win_rates):
        means = {"gold/vowels": estimate(2.0), "kl_per_token": estimate(0.25)}
        return {"name": name, "seeds": [0], "folders": folders, "means": means, "less_baseline": less_baseline,
                "win_rates": win_rates}  # fmt: skip

    change, wins = {"gold/vowels": estimate(1.5)}, {"gold/vowels": {"value": 0.61, "low": 0.52, "high": 0.7}}
    methods = [method("SFT", [], {}, {}), method("ppo", ["out/ppo"], change, wins)]
    return {"prompts": 16, "answers_each": 2, "methods": methods}


def estimate(value):
    return {"value": value, "low": value - 0.125, "high": value + 0.125}


@pytest.fixture
def checked_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")  # wide enough that a table's cells are not broken
    write_files(tmp_path)
    (tmp_path / "rlhf.yaml").write_text(SETTINGS)
    found = StandIns()
    monkeypatch.setattr(running, "_runner", found.runner)
    monkeypatch.setattr(running, "_let_go", lambda: None)
    return found


@pytest.fixture
def stages(checked_stages, monkeypatch):
    monkeypatch.setattr(running, "_check", lambda top, parts: [])  # test_checks.py; it loads tokenizers
    return checked_stages


def rlhf(*arguments):
    return cli.main(["rlhf", "--config", "rlhf.yaml", *arguments])


ALL = ["sft", "rate", "reward", "ppo", "dpo", "compare"]


def test_the_stages_run_in_order_once_and_the_end_says_what_each_gave(stages, tmp_path, capsys):
    assert rlhf() == 0
    assert stages.ran == ALL
    out = capsys.readouterr().out
    assert "ppo wins vowels 61% [52%, 70%]" in " ".join(out.split())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "ppo wins vowels 61% [52%, 70%]" in page
    assert "+1.500<small>+1.375 to +1.625</small>" in page
    assert "<script" not in page
    assert rlhf() == 0
    assert stages.ran == ALL  # nothing ran again
    assert capsys.readouterr().out.count("done: skipped") == 6


def test_a_dry_run_checks_and_writes_nothing(checked_stages, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert rlhf("--dry-run") == 0
    out = capsys.readouterr().out
    assert "prompts.jsonl: 32 of 32 rows" in out
    assert "Everything was checked, and nothing was written." in out
    assert [p for p in sorted(tmp_path.rglob("*")) if "__pycache__" not in p.parts] == before
    assert checked_stages.ran == []


@pytest.mark.parametrize(("code", "how"), [(1, "did not come to its end"), (130, "was stopped"), (143, "was stopped")])
def test_it_stops_where_a_stage_stops_and_goes_on_from_there(stages, code, how, capsys):
    stages.fails["reward"] = code
    assert rlhf() == code
    assert stages.ran == ALL[:3]
    assert f"reward {how}; the same command goes on from there" in capsys.readouterr().err
    del stages.fails["reward"]
    assert rlhf() == 0
    assert stages.ran == ALL[:3] + ALL[2:]
    assert "goes on where it stopped" in capsys.readouterr().out


def test_time_adds_up_over_a_stage_that_was_stopped(stages, tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(running.time, "monotonic", lambda: next(clock))
    stages.fails["sft"] = 1
    rlhf()
    del stages.fails["sft"]
    rlhf()
    assert json.loads((tmp_path / "out/sft/stage.json").read_text())["seconds"] == 10


def test_only_some_stages_run_where_that_is_asked_for(stages, capsys):
    assert rlhf("--stages", "sft", "rate") == 0
    assert stages.ran == ["sft", "rate"]
    assert rlhf("--stages", "ppo") == 2
    assert "ppo needs what reward makes, and that is not done" in capsys.readouterr().err
    assert rlhf("--stages", "sfd") == 2
    assert "--stages sfd: sfd is no stage" in capsys.readouterr().err


def test_seeds_of_the_command_line_go_before_the_files(stages):
    assert rlhf("--seeds", "3", "4") == 0
    assert stages.ran == ["sft", "rate", "reward", "ppo", "ppo", "dpo", "dpo", "compare"]
    assert stages.options["ppo"].output_dir == "out/ppo-seed4"
    assert rlhf("--seeds", "3", "4", "--stages", "ppo-seed4", "--fresh") == 0
    assert stages.ran[-1] == "ppo"
    assert stages.options["ppo"].seed == 4


def test_what_is_made_anew_is_moved_aside_and_not_lost(stages, tmp_path, capsys):
    rlhf()
    (tmp_path / "out/ppo/mine.txt").write_text("kept")
    assert rlhf("--stages", "ppo", "--fresh") == 0
    assert (tmp_path / "out/ppo.old/mine.txt").read_text() == "kept"
    assert "what out/ppo held is now in out/ppo.old" in capsys.readouterr().err


def test_a_stage_that_leaves_nothing_does_not_count_as_done(stages, monkeypatch, capsys):
    monkeypatch.setattr(running, "_runner", lambda kind: lambda options, quiet: 0)
    assert rlhf() == 1
    assert "sft ended without leaving out/sft/model" in capsys.readouterr().err
    monkeypatch.setattr(running, "_runner", stages.runner)
    assert rlhf() == 0
    assert stages.ran == ALL


def test_two_pipelines_do_not_share_a_folder(stages, tmp_path, capsys):
    from surefoot.lock import FolderLock

    lock = FolderLock(tmp_path / "out")
    lock.acquire()
    try:
        assert rlhf() == 2
    finally:
        lock.release()
    assert "is in use by" in capsys.readouterr().err


def test_wrong_settings_end_with_2_before_anything_is_written(stages, tmp_path, capsys):
    (tmp_path / "rlhf.yaml").write_text(SETTINGS.replace("steps: 2", "stepz: 2"))
    assert rlhf() == 2
    assert "rlhf.yaml:13: unknown option 'stepz'; did you mean 'steps'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(["rlhf"]) == 2
    assert "--config is missing" in capsys.readouterr().err


def test_several_processes_are_told_to_run_the_stages_by_themselves(stages, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rlhf() == 2
    assert "surefoot rlhf runs in one process" in capsys.readouterr().err
