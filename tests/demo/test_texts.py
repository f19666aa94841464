"""Prompts of the demo: none of a held-out source is trained on."""

import pytest

from surefoot.demo import texts


def thing(opening: str) -> str:
    return opening.partition(":")[0]


def test_the_toy_corpus_lies_in_the_package():
    found = texts.toy_texts()
    assert len(found) == 8653
    assert all(isinstance(text, str) and text for text in found)


def test_toy_openings_for_judging_are_about_things_that_training_never_prompts():
    found = texts.toy_openings(held_out_things=12)
    assert len({thing(t) for t in found.held_out}) == 12
    assert not {thing(t) for t in found.held_out} & {thing(t) for t in found.training}
    assert len(set(found.training)) == len(found.training) > 1000
    assert len(set(found.held_out)) == len(found.held_out) >= 256


def test_toy_openings_are_the_first_words_of_reviews_and_leave_something_to_say():
    reviews = texts.toy_reviews()
    for opening in texts.toy_openings().training[:100]:
        assert any(review.startswith(opening) and review != opening for review in reviews)
        assert len(opening.split()) in (2, 3)


def test_the_seed_decides_who_is_held_out():
    assert texts.toy_openings(seed=1) == texts.toy_openings(seed=1)
    assert texts.toy_openings(seed=1).held_out != texts.toy_openings(seed=2).held_out


def test_line_breaks_of_web_pages_become_blanks():
    assert texts.plain("Well.<br /><br />It  is") == "Well. It is"


def test_an_opening_is_the_first_words():
    assert texts.opening("one two  three four", 3) == "one two three"
    assert texts.opening("one", 3) == "one"


@pytest.mark.demo
def test_no_review_is_on_both_sides():
    found = texts.review_openings(held_out=96, words=(5, 8, 12))
    assert len(found.held_out) == 96
    assert len(found.training) == 104 * 3
    starts = {texts.opening(t, 5) for t in found.held_out}
    assert not starts & {texts.opening(t, 5) for t in found.training}
