"""The files of `make rlhf`: nothing that is judged on was learnt from, and every row is what it says."""

import json

import pytest

from surefoot.demo import prepare, texts


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sentence_is_cut_behind_its_first_words_and_nothing_is_lost():
    sentence = "The film begins well and then it goes on for far too long."
    ((opening, rest),) = prepare.beginnings([sentence, "Too short a one.", "word " * 40], seed=0)
    assert opening + rest == sentence
    assert len(opening.split()) in prepare.OPENING


def test_every_beginning_is_there_once():
    found = prepare.beginnings(
        ["The same four words, " + end for end in ("and this it is.", "but that it was.")] * 20, 0
    )
    openings = [opening for opening, _ in found]
    assert len(openings) == len(set(openings))


def test_sentences_end_at_full_stops_before_capitals():
    text = 'It cost $3.50 to see. Why? "Because," he said. i.e. nothing! The end.'
    assert texts.sentences(text) == ["It cost $3.50 to see.", "Why?", '"Because," he said. i.e. nothing!', "The end."]


def test_the_toys_files_hold_apart_what_is_learnt_and_what_is_judged(tmp_path):
    read, judged = prepare.toy_beginnings(seed=0)
    prepare.write(tmp_path, read, judged)
    learnt = {row["prompt"] for row in rows(tmp_path / "prompts.jsonl")}
    asked = {row["prompt"] for row in rows(tmp_path / "held_out.jsonl")}
    assert len(learnt) > 1000
    assert len(asked) > 80
    assert not learnt & asked
    assert not {text.partition(":")[0] for text in learnt} & {text.partition(":")[0] for text in asked}
    assert {row["prompt"] for row in rows(tmp_path / "texts.jsonl")} == learnt


def test_the_link_to_the_model_is_made_anew(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
        prepare.link(tmp_path / "model", tmp_path / name)
        assert (tmp_path / "model" / "config.json").read_text() == name


def test_a_toy_that_is_there_is_not_made_again(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    said = []
    prepare.prepare_quick(tmp_path, say=said.append)
    assert said == [f"The toy and its files are in {tmp_path} already."]
    assert not (tmp_path / "texts.jsonl").exists()


@pytest.mark.demo
def test_the_real_files_come_from_different_reviews(tmp_path):
    train, held_out = texts.review_split()
    assert not set(train) & set(held_out)
    read = prepare.beginnings([s for review in train for s in texts.sentences(review)], 0)
    assert 900 < len(read) < 1100
