"""Which rows SFT, reward models and DPO learn from: every format people bring, and what is said of a bad one."""

import csv
import json
import re

import pytest
from datasets import Dataset

from surefoot.stages.rows import load_rows, prompt_key, split_rows

USER, ANSWER, OTHER = (
    {"role": r, "content": c} for r, c in (("user", "2+2?"), ("assistant", "4"), ("assistant", "5"))
)
SYSTEM = {"role": "system", "content": "Be brief."}
HUMAN, GPT = {"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}
HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 2+2?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "A tale."}, {"text": "A tale."}),
        ({"story": "A tale."}, {"text": "A tale."}),  # the only column there is
        ("A tale.", {"text": "A tale."}),
        ({"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER]}),
        ({"conversations": [HUMAN, GPT]}, {"messages": [USER, ANSWER]}),
        ({"messages": [USER, ANSWER], "prompt": "2+2?", "prompt_id": "x"}, {"messages": [USER, ANSWER]}),
        ({"prompt": "2+2=", "completion": " 4"}, {"prompt": "2+2=", "completion": " 4"}),
        ({"question": "2+2?", "answer": "4"}, {"prompt": "2+2?", "completion": "4"}),
        ({"prompt": [USER], "completion": [ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"prompt": [USER], "completion": "4"}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"prompt": "2+2?", "response": [ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"prompt": "2+2?", "response": [SYSTEM, USER, ANSWER]}, {"prompt": [SYSTEM, USER], "completion": [ANSWER]}),
        ({"instruction": "Add.", "input": "2, 2", "output": "4", "text": "Below is"},
         {"prompt": "Add.\n\n2, 2", "completion": "4"}),
        ({"instruction": "Sing.", "input": "", "output": "La"}, {"prompt": "Sing.", "completion": "La"}),
        ({"input": "2+2=", "output": "4"}, {"prompt": "2+2=", "completion": "4"}),
    ],
)  # fmt: skip
def test_what_sft_learns_is_found_under_its_usual_names(row, expected):
    assert load_rows([row], kind="sft").rows == [expected]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "2+2=", "chosen": " 4", "rejected": " 5"}, {"prompt": "2+2=", "chosen": " 4", "rejected": " 5"}),
        ({"query": "Q", "chosen": "a", "rejected": "b", "score": 3}, {"prompt": "Q", "chosen": "a", "rejected": "b"}),
        ({"instruction": "Add.", "input": "2, 2", "chosen": "4", "rejected": "5"},
         {"prompt": "Add.\n\n2, 2", "chosen": "4", "rejected": "5"}),
        ({"chosen": HH + " It is 4.", "rejected": HH + " It is 5."},
         {"prompt": HH, "chosen": " It is 4.", "rejected": " It is 5."}),
        ({"chosen": "Q: 2+2? A: 4", "rejected": "Q: 2+2? A: 5"},
         {"prompt": "Q: 2+2? A:", "chosen": " 4", "rejected": " 5"}),
        ({"prompt": "Q", "chosen": "Q a", "rejected": "Q b"}, {"prompt": "Q", "chosen": " a", "rejected": " b"}),
        *(
            (row, {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]})
            for row in [
                {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
                {"prompt": [USER], "chosen": "4", "rejected": "5"},
                {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
                {"prompt": "2+2?", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},  # UltraFeedback, binarized
                {"prompt": "2+2?", "chosen": [ANSWER], "rejected": [OTHER]},
                {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
                {"messages": [USER, ANSWER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
                {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "5"}},
            ]
        ),
    ],
)  # fmt: skip
def test_a_preference_is_found_with_its_prompt_beside_or_within_the_answers(row, expected):
    assert load_rows([row], kind="preference").rows == [expected]


def test_columns_of_any_name_can_be_named():
    row = {"q": "2+2=", "good": " 4", "bad": " 5", "note": "x"}
    pair = load_rows([row], kind="preference", prompt_column="q", chosen_column="good", rejected_column="bad")
    assert pair.rows == [{"prompt": "2+2=", "chosen": " 4", "rejected": " 5"}]
    assert pair.unused == ("note",)
    assert load_rows([row], kind="sft", text_column="note").rows == [{"text": "x"}]
    chosen = load_rows([row], kind="sft", prompt_column="q", completion_column="good")
    assert chosen.rows == [{"prompt": "2+2=", "completion": " 4"}]


def test_a_file_of_any_kind_gives_the_same_rows(tmp_path):
    rows = [{"prompt": f"{i}+{i}=", "chosen": f' {2 * i}, "sure"', "rejected": " no"} for i in range(3)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "p.json").write_text(json.dumps(rows))
    with (tmp_path / "p.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = Dataset.from_list(rows)
    table.to_parquet(tmp_path / "p.parquet")
    for source in (*(tmp_path / f"p.{end}" for end in ("jsonl", "json", "csv", "parquet")), table):
        assert load_rows(source, kind="preference").rows == rows


def test_a_text_file_has_a_text_to_learn_in_each_line(tmp_path):
    (tmp_path / "t.txt").write_text("one\ntwo\n")
    assert load_rows(tmp_path / "t.txt", kind="sft").rows == [{"text": "one"}, {"text": "two"}]
    with pytest.raises(ValueError, match="a bare text a row: a preference needs a chosen and a rejected answer"):
        load_rows(tmp_path / "t.txt", kind="preference")


def test_what_was_found_is_said_with_two_examples():
    rows = [{"prompt": f"Q{i}\x1b[31m", "chosen": "a", "rejected": "b" * 999, "stars": 5} for i in range(3)]
    said = load_rows(rows, kind="preference").what.split("\n")
    assert said[0] == "rows      a list of 3: 3"
    assert (
        said[1] == "format    preference rows with an explicit prompt, plain text in 'prompt', 'chosen' and 'rejected'"
    )
    assert said[2] == "not used  'stars'"
    assert said[3] == r"example 1  prompt      Q0\x1b[31m"
    assert said[4] == "           chosen      a"
    assert said[6].startswith("example 2  prompt      Q1")
    assert "799 characters" in said[5]
    assert len(said) == 9


def test_of_a_repeated_prompt_it_is_said_that_it_was_taken_off_and_a_single_one_that_does_not_repeat_stays():
    repeat = {"prompt": "Q", "chosen": "Q a", "rejected": "Q b"}
    assert "taken off" in load_rows([repeat] * 2, kind="preference").form
    echo = [repeat, {"prompt": "Q", "chosen": "a", "rejected": "Q b"}]  # one answer that begins with the question
    found = load_rows(echo, kind="preference")
    assert found.rows == echo
    assert "taken off" not in found.form


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([{"prompt": "Q", "choosen": "a", "rejected": "b"}], {},
         ["no column 'chosen' among 'prompt' (text), 'choosen' (text)", "chosen_column", "did you mean 'choosen'?"]),
        ([{"prompt": "Q", "completion": "a"}], {}, ["no column 'chosen'"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}], {"prompt_column": "promt"},
         ["prompt_column='promt' is not among", "did you mean 'prompt'?"]),
        ([{"query": "Q", "question": "R", "chosen": "a", "rejected": "b"}], {},
         ["several columns", "'query', 'question'", "prompt_column='query'"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": [OTHER]}], {}, ["both answers must be of one kind"]),
        ([{"prompt": "Q", "chosen": 1.5, "rejected": 2.0}], {}, ["answer 'chosen' holds a number"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}, {"prompt": "Q", "chosen": 7, "rejected": "b"}], {},
         ["row 2 of the list: 'chosen' must be a text, found 7"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}, {"prompt": [USER], "chosen": "a", "rejected": "b"}], {},
         ["row 2 of the list: 'prompt' must be a text"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}, {"prompt": "Q", "rejected": "b"}], {},
         ["row 2 of the list: no column 'chosen'; this row has 'prompt', 'rejected'"]),
        ([{"prompt": [USER], "chosen": [{"role": "user", "content": "3+3?"}, ANSWER], "rejected": [OTHER]}], {},
         ["row 1 of the list: an answer begins with a message of the user", "3+3?"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}], {"chosen_column": "rejected"}, ["are both 'rejected'"]),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}], {"text_column": "prompt"},
         ["text_column='prompt' does not belong to preference rows"]),
    ],
)  # fmt: skip
def test_preference_rows_that_cannot_be_read_are_refused_with_what_was_found(rows, options, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        load_rows(rows, kind="preference", **options)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        ({"prompt": "Q", "chosen": "a", "rejected": "b"}, {}, ["completion_column='chosen'"]),
        ({"chosen": "Q a", "rejected": "Q b"}, {}, ["text_column='chosen'"]),
        ({"prompt": "Q", "completion": "a", "messages": [USER, ANSWER]}, {},
         ["several ways to read these rows: 'messages', 'prompt and answer'", "text_column"]),
        ({"prompt": "Q", "response": "a", "output": "b"}, {}, ["'response', 'output'", "completion_column"]),
        ({"input_ids": [1, 2]}, {}, ["'input_ids' (ids)", "text_column"]),
        ({"text": "a", "b": "c"}, {"text_column": "text", "prompt_column": "b"}, ["leave out prompt_column"]),
        ({"text": "a", "n": 1}, {"text_column": "n"}, ["holds a number"]),
    ],
)  # fmt: skip
def test_rows_from_which_sft_cannot_learn_are_refused_with_what_to_name(row, options, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        load_rows([row], kind="sft", **options)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_line_that_is_not_json_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"p\.jsonl line 2: not JSON"):
        load_rows(tmp_path / "p.jsonl", kind="sft")


# ---------------------------------------------------------------------------------------------- held out


def pairs(*prompts):
    return load_rows(
        [{"prompt": p, "chosen": f"{i}", "rejected": "x"} for i, p in enumerate(prompts)], kind="preference"
    )


def test_no_prompt_is_on_both_sides_and_every_row_is_on_one():
    rows = pairs(*(f"Q{i // 3}" for i in range(60)))  # 20 prompts with 3 rows each
    train, held_out = split_rows(rows, 9, seed=1)
    assert (len(train), len(held_out)) == (51, 9)
    assert {prompt_key(r) for r in train.rows} & {prompt_key(r) for r in held_out.rows} == set()
    assert sorted([*train.places, *held_out.places]) == sorted(rows.places)
    order = [int(row["chosen"]) for row in held_out.rows]
    assert order == sorted(order)


def test_the_seed_chooses_who_is_held_out_and_nothing_else_does():
    rows = pairs(*(f"Q{i}" for i in range(50)))
    first, again, other = (split_rows(rows, 10, seed)[1].rows for seed in (1, 1, 2))
    assert first == again != other


def test_conversations_that_ask_the_same_count_as_one_prompt():
    rows = load_rows(
        [{"messages": [USER, a]} for a in (ANSWER, OTHER)] + [{"messages": [SYSTEM, USER, ANSWER]}], kind="sft"
    )
    keys = [prompt_key(row) for row in rows.rows]
    assert keys[0] == keys[1] != keys[2]


def test_fewer_rows_are_held_out_where_prompts_have_several():
    assert len(split_rows(pairs("a", "a", "a", "b", "b"), 4, seed=0)[1]) in (2, 3)
    with pytest.raises(ValueError, match=r"the fewest are 2.*hold out at least 2"):
        split_rows(pairs("a", "a", "b", "b"), 1, seed=0)


def test_nothing_is_held_out_on_request_and_never_everything():
    rows = pairs("a", "b")
    train, held_out = split_rows(rows, 0, seed=0)
    assert (train.rows, held_out.rows) == (rows.rows, [])
    with pytest.raises(ValueError, match="at least one must be left"):
        split_rows(rows, 2, seed=0)
