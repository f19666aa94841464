"""What is skipped, what goes on and what is made anew: by what a stage was given, not by when."""

from dataclasses import replace
from pathlib import Path

import pytest
from pipelines import whole

from surefoot.pipeline.parts import parts_of
from surefoot.pipeline.record import digest, read_record, states_of


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("prompts.jsonl", "held_out.jsonl", "texts.jsonl"):
        Path(name).write_text("{}\n")
    Path("judge.py").write_text("def rater(completions): ...\n")
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")


def states(chosen=None, fresh=False, **changes):
    top, parts = parts_of(whole(**changes))
    names = [part.name for part in parts]
    return {s.part.name: s for s in states_of(parts, Path(top.output_dir), chosen=chosen or names, fresh=fresh)}


def run_all(ended=True, **changes):
    for state in states(**changes).values():
        if state.what != "done":
            replace(state.given, ended=ended, seconds=1.0).write(state.part.folder)


def what(**changes):
    return {name: state.what for name, state in states(**changes).items()}


def test_at_first_everything_runs_and_then_everything_is_done():
    assert set(what().values()) == {"run"}
    run_all()
    assert set(what().values()) == {"done"}


def test_a_changed_option_makes_its_stage_anew_and_those_that_build_on_it_and_no_others():
    run_all()
    found = states(reward={"epochs": 2})
    assert {name: state.what for name, state in found.items()} == {
        "sft": "done", "rate": "done", "reward": "anew", "ppo": "anew", "dpo": "done", "compare": "anew",
    }  # fmt: skip
    assert found["reward"].why == "epochs: none -> 2.0"
    assert found["ppo"].why == "reward is made anew"


def test_a_file_that_changed_in_place_makes_the_stages_that_read_it_anew():
    run_all()
    Path("judge.py").write_text("def rater(completions): return 0\n")
    found = states()
    assert (found["sft"].what, found["rate"].what, found["dpo"].what) == ("done", "anew", "anew")
    assert found["rate"].why == "what rater names has changed"


def test_a_stage_that_was_made_anew_by_itself_makes_those_after_it_anew():
    run_all()
    again = states(chosen=["sft"], fresh=True)["sft"]
    assert again.what == "anew"
    replace(again.given, ended=True).write(again.part.folder)
    found = states()
    assert (found["sft"].what, found["rate"].what, found["dpo"].what) == ("done", "anew", "anew")
    assert found["rate"].why == "sft was made anew"


def test_a_stage_that_was_stopped_goes_on_as_the_same():
    run_all(ended=False)
    before = read_record(Path("out/sft"))
    found = states()["sft"]
    assert (found.what, found.given.id, found.given.seconds) == ("go on", before.id, 1.0)


def test_ppo_goes_on_where_only_its_end_was_moved():
    run_all(ppo={"steps": 10})
    found = states(ppo={"steps": 20})
    assert (found["ppo"].what, found["ppo"].why) == ("go on", "steps: 10 -> 20")
    assert states(ppo={"steps": 10, "learning_rate": 1e-3})["ppo"].what == "anew"
    assert states(ppo={"steps": 20, "lr_schedule": "linear"})["ppo"].what == "anew"
    assert states(sft={"dataset": "texts.jsonl", "steps": 20})["sft"].what == "anew"


def test_what_changes_no_number_makes_nothing_anew():
    run_all()
    found = states(ppo={"save_every": 3}, sft={"dataset": "texts.jsonl", "eval_every": 7})
    assert {state.what for state in found.values()} == {"done"}
    assert found["ppo"].why == "save_every: 10 -> 3"


def test_the_folder_can_be_moved_as_a_whole():
    run_all()
    Path("out").rename("elsewhere")
    assert set(what(output_dir="elsewhere").values()) == {"done"}


def test_only_what_is_asked_for_runs_and_what_it_needs_must_be_there():
    assert list(states(chosen=["sft"])) == ["sft"]
    with pytest.raises(ValueError, match="rate needs what sft makes, and that is not done: add it to --stages"):
        states(chosen=["rate"])
    run_all()
    assert states(chosen=["ppo"], fresh=True)["ppo"].what == "anew"


def test_a_folder_with_something_else_in_it_is_left_alone():
    Path("out/ppo").mkdir(parents=True)
    Path("out/ppo/metrics.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="out/ppo holds something that no pipeline put there"):
        states()
    assert states(fresh=True)["ppo"].what == "anew"


def test_a_damaged_record_is_said_to_be_one():
    run_all()
    Path("out/sft/stage.json").write_text("{")
    with pytest.raises(ValueError, match=r"stage\.json is damaged"):
        states()


def test_a_digest_sees_names_sizes_and_both_ends_of_large_files(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    large = bytearray(3 * 2**20)
    (folder / "a").write_bytes(large)
    seen = {digest(folder)}
    for place in (0, len(large) - 1):
        changed = bytearray(large)
        changed[place] = 1
        (folder / "a").write_bytes(changed)
        seen.add(digest(folder))
    (folder / "a").rename(folder / "b")
    seen.add(digest(folder))
    assert len(seen) == 4
