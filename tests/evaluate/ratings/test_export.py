"""Exports: what TRL reads, what `datasets` loads, and nothing that was not said."""

import json

import datasets
import pytest
from made_votes import pair, vote, votes

from surefoot.evaluate.ratings.export import export, preference_rows, read_votes, unpaired_rows

TALK = [{"role": "user", "content": "Why?"}]


def load(path):
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


@pytest.fixture
def exported(tmp_path):
    cast = [*votes("ab+-s"), vote("p", kind="planted"), vote("i0", "b", rater="bob", note="“<b>”\nyes")]
    pairs = [pair(f"i{n}", a=f"a{n}", b=f"b{n}") for n in range(5)] + [pair("p", kind="planted")]
    counts = export(tmp_path, cast, pairs, {"i0": (1.5, -0.5), "i1": (0.0, 2.0)})
    return tmp_path, cast, counts


def test_all_three_load_with_datasets_and_have_the_rows_that_were_told(exported):
    folder, _, counts = exported
    assert counts == {"preference.jsonl": 3, "unpaired.jsonl": 4, "votes.jsonl": 7}
    assert {name: len(load(folder / name)) for name in counts} == counts


def test_preference_rows_have_the_preferred_answer_first_and_its_score(exported):
    rows = load(exported[0] / "preference.jsonl")
    assert set(rows.column_names) >= {"prompt", "chosen", "rejected"}
    found = {
        (r["item"], r["rater"]): (r["chosen"], r["rejected"], r["score_chosen"], r["score_rejected"]) for r in rows
    }
    assert found == {
        ("i0", "ann"): ("a0", "b0", 1.5, -0.5),
        ("i0", "bob"): ("b0", "a0", -0.5, 1.5),
        ("i1", "ann"): ("b1", "a1", 2.0, 0.0),
    }


def test_unpaired_rows_are_both_good_or_both_bad(exported):
    rows = load(exported[0] / "unpaired.jsonl")
    assert [(r["completion"], r["label"]) for r in rows] == [("a2", True), ("b2", True), ("a3", False), ("b3", False)]


def test_votes_come_back_as_they_were(exported):
    folder, cast, _ = exported
    assert sorted(map(str, read_votes(folder / "votes.jsonl"))) == sorted(map(str, cast))
    assert load(folder / "votes.jsonl")["note"].count("“<b>”\nyes") == 1


def test_a_conversation_gives_messages(tmp_path):
    pairs = {"i": pair("i", prompt=TALK)}
    (row,) = preference_rows([vote()], pairs)
    assert row["prompt"] == TALK
    assert row["chosen"] == [{"role": "assistant", "content": "Because."}]
    assert row["rejected"] == [{"role": "assistant", "content": "No idea."}]
    unpaired = unpaired_rows([vote(choice="both bad")], pairs)
    assert [r["completion"][0]["content"] for r in unpaired] == ["Because.", "No idea."]
    export(tmp_path, [vote()], pairs.values())
    assert load(tmp_path / "preference.jsonl")[0]["chosen"][0]["role"] == "assistant"


def test_without_scores_there_are_no_columns_for_them():
    (row,) = preference_rows([vote()], {"i": pair()})
    assert "score_chosen" not in row


def test_repeated_pairs_are_exported_once(tmp_path):
    cast = [vote("i"), vote("i2", repeats="i")]
    assert export(tmp_path, cast, [pair("i"), pair("i2", repeats="i")])["preference.jsonl"] == 1


def test_a_file_without_rows_is_not_left_from_an_earlier_export(tmp_path):
    export(tmp_path, votes("a"), [pair("i0")])
    assert (tmp_path / "preference.jsonl").exists()
    assert export(tmp_path, votes("+"), [pair("i0")])["preference.jsonl"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unpaired.jsonl", "votes.jsonl"]


def test_a_time_that_is_not_known_is_null_and_not_nan(tmp_path):
    export(tmp_path, [vote()], [pair()])
    assert json.loads((tmp_path / "votes.jsonl").read_text())["seconds"] is None


def test_a_vote_on_an_unknown_pair_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a vote on item 'i', but no such pair"):
        export(tmp_path, [vote()], [])
    assert not list(tmp_path.iterdir())
