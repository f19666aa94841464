"""What is said of rows before anything is learnt from them; every count by hand, every token a byte."""

import pytest
import tiny
import tokenizers
from transformers import PreTrainedTokenizerFast

from surefoot.stages.checks import check_rows, drop_unusable
from surefoot.stages.lengths import rendered, row_tokens
from surefoot.stages.rows import load_rows

USER, ANSWER, OTHER = (
    {"role": r, "content": c} for r, c in (("user", "2+2?"), ("assistant", "4"), ("assistant", "5"))
)


def pairs(*rows):
    return load_rows(
        [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows], kind="preference"
    )


def none_of(rows):
    return rows.take([])


def counts(report):
    return {finding.name: finding.count for finding in report.findings if finding.count}


@pytest.fixture
def tokenizer():
    return tiny.tiny_tokenizer(chat=True)


def test_lengths_are_those_of_whole_rows_and_the_baseline_counts_ties_half(tokenizer):
    rows = pairs(("Q1", "long", "a"), ("Q2", "a", "bbb"), ("Q3", "ab", "cd"), ("Q4", "abc", "d"))
    report = check_rows(rows, none_of(rows), tokenizer)
    # prompt 2 + longer answer 4, 3, 2, 3 + the end that trainers put behind plain text
    assert report.tokens == (5, 6.0, 7)
    assert (report.pairs.chosen, report.pairs.rejected) == ((4 + 1 + 2 + 3) / 4, (1 + 3 + 2 + 1) / 4)
    assert (report.pairs.longer, report.pairs.equal, report.pairs.baseline) == (0.5, 0.25, 0.625)
    assert '"longer is better" alone is right in 62.5%' in report.text()


def test_an_end_counts_where_one_is_put_and_only_there(tokenizer):
    rows = load_rows(["abc", "ab<|eos|>"], kind="sft")
    assert row_tokens(rows, tokenizer) == [4, 3]
    assert row_tokens(rows, tokenizer, ends=False) == [3, 3]
    assert rendered(rows, tokenizer) == ["abc<|eos|>", "ab<|eos|>"]
    assert check_rows(rows, none_of(rows), tokenizer, ends=False).examples == ("abc", "ab<|eos|>")


def test_conversations_are_measured_through_the_chat_template(tokenizer):
    rows = load_rows([{"messages": [USER, ANSWER]}], kind="sft")
    report = check_rows(rows, none_of(rows), tokenizer)
    text = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    assert report.tokens[0] == len("user\n2+2?\nassistant\n4\n") + 4  # bytes, and four tokens of the template
    assert report.examples == (text.replace("\n", r"\n"),)
    assert report.pairs is None


def test_conversations_need_a_chat_template():
    rows = load_rows([{"messages": [USER, ANSWER]}], kind="sft")
    with pytest.raises(ValueError, match="no chat template: give chat_template"):
        check_rows(rows, none_of(rows), tiny.tiny_tokenizer())


def test_rows_that_teach_nothing_are_dropped_by_kind_and_the_others_stay():
    rows = pairs(
        ("Q", "a", "b"), ("", "a", "b"), ("Q", " ", "b"), ("Q", "same", "same "), ("R", "a", ""), ("Q", "c", "d")
    )
    kept, dropped = drop_unusable(rows)
    assert [row["chosen"] for row in kept.rows] == ["a", "c"]
    assert kept.places == ("row 1 of the list", "row 6 of the list")
    assert {finding.name: (finding.count, finding.of) for finding in dropped} == {
        "rows have no prompt": (1, 6),
        "rows have no answer": (2, 6),
        "pairs have the same text as chosen and rejected": (1, 6),
    }
    assert "row 3 of the list: 'Q'" in dropped[1].sentence


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"text": "a"}, True),
        ({"text": " \n"}, False),
        ({"messages": [USER, ANSWER]}, True),
        ({"messages": [USER]}, False),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, False),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]}, True),
        ({"prompt": [USER], "completion": [ANSWER]}, True),
        ({"prompt": [USER], "completion": None}, False),
    ],
)
def test_which_rows_sft_can_learn_from(row, kept):
    rows = load_rows([row, {name: row[name] for name in row}], kind="sft") if kept else _with_a_good_one(row)
    assert len(drop_unusable(rows)[0]) == (2 if kept else 1)


def _with_a_good_one(row):
    good = {"text": "a", "messages": [USER, ANSWER], "prompt": [USER], "completion": [ANSWER]}
    return load_rows([{name: good[name] for name in row}, row], kind="sft")


def test_answers_without_a_common_beginning_have_no_prompt():
    rows = load_rows([{"chosen": "Q a", "rejected": "Q b"}, {"chosen": "yes", "rejected": "no"}], kind="preference")
    kept, dropped = drop_unusable(rows)
    assert [row["prompt"] for row in kept.rows] == ["Q"]
    assert dropped[0].name == "rows have no prompt"


def test_what_is_repeated_is_counted_within_and_across_the_sides(tokenizer):
    train = pairs(("Q", "a", "b"), ("Q", "a", "b"), ("Q", "c", "d"), ("R", "a", "b"), ("R", "b", "a"))
    held_out = pairs(("Q", "a", "b"), ("R", "x", "y"), ("S", "a", "b"))
    report = check_rows(train, held_out, tokenizer)
    assert counts(report) == {
        "rows repeat an earlier row": 1,
        "rows repeat an earlier prompt with another answer": 2,
        "held-out rows are among those that are learnt": 1,
        "held-out rows share their prompt with a row that is learnt": 1,
        "pairs are preferred the other way round by another row": 2,
    }
    assert len(report.problems) == 1
    assert report.problems[0].startswith("1 of 3 held-out rows are among those that are learnt")
    assert "problem   1 of 3 held-out rows" in report.text()


def test_rows_over_the_limit_are_counted_and_only_all_of_them_stop_training(tokenizer):
    train, held_out = pairs(("Q", "a", "b"), ("Q", "abcdef", "b")), pairs(("S", "a", "b"))
    report = check_rows(train, held_out, tokenizer, 5, too_long="left out")
    (finding,) = (f for f in report.findings if "tokens" in f.name)
    assert (finding.count, finding.of, finding.examples) == (1, 3, ("row 2 of the list: 8 tokens",))
    assert "left out" in finding.sentence
    assert report.problems == []
    assert "no row fits" in check_rows(train, held_out, tokenizer, 2).problems[0]
    assert not any("tokens" in f.name for f in check_rows(train, held_out, tokenizer).findings)


def test_nothing_left_to_learn_from_is_a_problem_with_its_reason(tokenizer):
    kept, dropped = drop_unusable(pairs(("Q", "a", "a"), ("R", "b", "b")))
    report = check_rows(kept, kept, tokenizer, dropped=dropped)
    assert report.problems == [
        "2 of 2 rows were dropped: none is left to learn from: pairs have the same text as chosen and rejected"
    ]


def test_clean_rows_have_nothing_said_against_them(tokenizer):
    train, held_out = pairs(("Q", "a", "b"), ("R", "a", "b")), pairs(("S", "a", "b"))
    report = check_rows(train, held_out, tokenizer, 100)
    assert counts(report) == {}
    assert report.problems == []
    assert report.text().split("\n")[0] == "data      2 rows to learn from, 1 held out"
    written = report.as_dict()
    assert (written["train"], written["held_out"], written["pairs"]["baseline"], written["problems"]) == (
        2,
        1,
        0.5,
        [],
    )


def test_hostile_text_is_shown_and_never_obeyed(tokenizer):
    rows = pairs(("\x1b[2Jgone", "a", "a"), ("Q", "\x1b[31m", "b"))
    kept, dropped = drop_unusable(rows)
    assert "\x1b" not in check_rows(kept, none_of(kept), tokenizer, dropped=dropped).text()


def merging_tokenizer():
    """Letters are tokens, and so is "ab"."""
    letters = {letter: i for i, letter in enumerate(["<|eos|>", "a", "b", "c", "ab"])}
    words = tokenizers.Tokenizer(tokenizers.models.BPE(letters, [("a", "b")]))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|eos|>", pad_token="<|eos|>")


def test_prompts_that_end_inside_a_token_are_counted_for_either_answer():
    rows = pairs(("ca", "b", "c"), ("ca", "c", "ba"), ("cb", "a", "b"), ("ab", "b", "a"))
    report = check_rows(rows, none_of(rows), merging_tokenizer())
    assert counts(report) == {
        "rows repeat an earlier prompt with another answer": 1,
        "prompts end inside of a token of prompt and answer together": 2,
    }
    assert "row 1 of the list: 'ca'; row 2 of the list: 'ca'" in report.findings[-1].sentence
    assert not counts(check_rows(rows.take([2, 3]), none_of(rows), merging_tokenizer()))
    assert not counts(check_rows(rows.take([0]), none_of(rows), merging_tokenizer(), ends=False))  # read as one text


def test_a_conversation_whose_template_asks_as_it_answers_ends_no_prompt_inside_a_token(tokenizer):
    rows = load_rows([{"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}], kind="preference")
    assert not counts(check_rows(rows, none_of(rows), tokenizer))
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>assistant", "assistant")
    assert counts(check_rows(rows, none_of(rows), tokenizer))
