"""Which pairs are asked about, and what is written down before the first vote."""

import json
from collections import Counter

import pytest
from rated_runs import answer, write_run

from surefoot.evaluate.rated.pairs import choose, counts, material
from surefoot.evaluate.rated.session import begin, read_items, read_session
from surefoot.records import RunRecords
from surefoot.tracking import RunFolder


def chosen(run, count=10, seed=0):
    return choose(material(RunRecords(run), 15), count, seed=seed)


def first_of(items, kind):
    return [item for item in items if item.pair.kind == kind and not item.pair.repeats]


def test_the_policys_answer_is_the_rated_steps_and_the_sft_models_is_from_before_all_steps(tmp_path):
    for item in first_of(chosen(write_run(tmp_path)), "policy-sft"):
        row = int(item.pair.prompt_id)
        assert (item.pair.a, item.pair.b) == (answer(15, row), answer(0, row))
        assert (item.a.model, item.a.step, item.a.score, item.a.length) == ("policy", 15, 15 + row / 100, 25 + row)
        assert (item.b.model, item.b.step) == ("sft", 0)


def test_ten_pairs_are_six_two_and_two_with_one_planted_and_two_shown_again(tmp_path):
    expected = {"policy-sft": 6, "sft-sft": 2, "policy-policy": 2, "planted": 1, "shown again": 2}
    assert counts(chosen(write_run(tmp_path))) == expected


def test_pairs_within_a_model_are_two_samples_of_it_where_it_gave_two(tmp_path):
    items = chosen(write_run(tmp_path, each=2))
    for kind, step in (("sft-sft", 0), ("policy-policy", 15)):
        assert {(i.a.step, i.b.step) for i in first_of(items, kind)} == {(step, step)}
        assert all(i.pair.b == i.pair.a + " again" for i in first_of(items, kind))


def test_otherwise_they_are_of_neighbouring_evaluations_and_the_plan_says_so(tmp_path):
    run = write_run(tmp_path)
    items = chosen(run)
    assert {(i.a.step, i.b.step) for i in first_of(items, "sft-sft")} == {(0, 5)}
    assert {(i.a.step, i.b.step) for i in first_of(items, "policy-policy")} == {(15, 10)}
    assert "Pairs within the SFT model are answers after step 0 and after step 5." in begin(run).plan["notes"]


def test_what_a_kind_cannot_give_is_taken_of_the_others_and_the_plan_says_so(tmp_path):
    run = write_run(tmp_path, steps=(0, 15))
    session = begin(run, count=10)
    assert session.plan["pairs"] == {
        "policy-sft": 10, "sft-sft": 0, "policy-policy": 0, "planted": 1, "shown again": 2
    }  # fmt: skip
    assert sum("no second answer" in note for note in session.plan["notes"]) == 2


def test_while_there_are_enough_prompts_each_is_asked_about_once(tmp_path):
    items = [i for i in chosen(write_run(tmp_path, rows=10)) if i.pair.kind != "planted" and not i.pair.repeats]
    assert sorted(int(i.pair.prompt_id) for i in items) == list(range(10))


def test_identical_answers_are_left_out_and_counted(tmp_path):
    run = write_run(tmp_path, text=lambda step, row: "the same" if row < 3 else answer(step, row))
    session = begin(run)
    assert session.plan["identical_pairs_left_out_as_ties"] == {"policy-sft": 3, "sft-sft": 3, "policy-policy": 3}
    assert all(pair.a != pair.b for pair in session.pairs)


def test_a_planted_pair_holds_the_sft_models_words_in_order_and_in_disorder(tmp_path):
    for item in first_of(chosen(write_run(tmp_path), count=60), "planted"):
        assert item.pair.a == answer(0, int(item.pair.prompt_id))
        assert item.pair.b != item.pair.a
        assert Counter(item.pair.b.split()) == Counter(item.pair.a.split())


def test_a_pair_shown_again_is_another_item_with_the_same_texts(tmp_path):
    items = {item.pair.item: item.pair for item in chosen(write_run(tmp_path))}
    again = [pair for pair in items.values() if pair.repeats]
    assert len(again) == 2
    for pair in again:
        first = items[pair.repeats]
        assert (first.prompt, first.a, first.b, first.kind) == (pair.prompt, pair.a, pair.b, pair.kind)
        assert not first.repeats


def test_the_seed_decides_and_another_decides_otherwise(tmp_path):
    run = write_run(tmp_path)
    assert chosen(run, seed=1) == chosen(run, seed=1) != chosen(run, seed=2)


@pytest.mark.parametrize("steps", [(), (0,), (5, 10)])
def test_a_run_without_both_ends_is_refused(tmp_path, steps):
    with pytest.raises(ValueError, match="before the first step"):
        begin(write_run(tmp_path, steps=steps))


def test_a_step_without_evaluation_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"step=7 has no samples; .* \[5, 10, 15\]"):
        begin(write_run(tmp_path), step=7)


def test_the_plan_stays_when_training_goes_on(tmp_path):
    run = write_run(tmp_path, steps=(0, 5))
    before = begin(run)
    RunFolder(run).log_evaluation(10, 40, {}, [])
    again = read_session(run, 5)
    assert (again.items, again.plan) == (before.items, before.plan)
    assert again.plan["decoding"]["temperature"] == 0.7


def test_pairs_that_were_changed_after_the_plan_are_refused(tmp_path):
    run = write_run(tmp_path)
    begin(run)
    file = run / "rate" / "pairs_000015.jsonl"
    file.write_text(file.read_text().replace("answer of step 15", "a better answer"))
    with pytest.raises(ValueError, match="is not the file that was planned"):
        read_session(run, 15)


LINE = {"item": "x", "kind": "sft-sft", "prompt_id": "1", "prompt": "P?", "a": "A", "b": "B"}


def test_pairs_made_elsewhere_are_taken_as_they_are(tmp_path):
    run = write_run(tmp_path / "run")
    file = tmp_path / "pairs.jsonl"
    talk = [{"role": "user", "content": "Hello?"}]
    file.write_text(
        json.dumps(LINE) + "\n" + json.dumps(LINE | {"item": "y", "prompt": talk, "a_is": {"model": "m"}}) + "\n"
    )
    session = begin(run, given=file, step=15)
    assert [pair.prompt for pair in session.pairs] == ["P?", talk]
    assert session.items["y"].a.model == "m"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([LINE | {"kind": "best"}], "line 1 is no pair"),
        ([LINE, {**LINE, "item": "y", "a": None}], "line 2 is no pair [(]a[)]"),
        ([LINE, LINE], "two pairs are named 'x'"),
        ([LINE | {"repeats": "z"}], "repeats 'z', which is not there"),
        ([LINE | {"a_is": {"name": "m"}}], "a_is and b_is hold model"),
        ([], "holds no pairs"),
    ],
)
def test_a_file_that_is_none_of_pairs_is_refused_by_its_line(tmp_path, lines, said):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=said):
        read_items(file)
