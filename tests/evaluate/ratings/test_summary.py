"""The summary: each number is the part's own, the words say what the numbers do, and the record is plain JSON."""

import json
import math
import random

import pytest
from made_votes import session, vote, votes

from surefoot.evaluate.ratings import StoppingRule, summarise
from surefoot.evaluate.ratings.sequential import confidence_sequence
from surefoot.evaluate.ratings.summary import notes


@pytest.fixture(scope="module")
def whole():
    cast, scores, lengths = session()
    return cast, summarise(cast, scores=scores, lengths=lengths, rule=StoppingRule(planned=60))


def test_all_votes_are_accounted_for(whole):
    cast, s = whole
    assert s.votes + s.skipped == len(cast)
    assert sum(s.pairs.values()) == s.votes
    assert sum(r.votes for r in s.raters) == s.votes
    assert s.win_rate.counts.all == sum(
        v.kind == "policy-sft" and v.choice != "skip" and not v.repeats for v in cast
    )  # fmt: skip


def test_the_order_of_votes_changes_nothing(whole):
    cast, s = whole
    scores, lengths = session()[1:]
    shuffled = random.Random(0).sample(cast, len(cast))
    again = summarise(shuffled, scores=scores, lengths=lengths, rule=StoppingRule(planned=60))
    assert again.text() == s.text()


def test_the_record_is_plain_json_and_has_no_nan(whole):
    record = json.loads(json.dumps(whole[1].as_dict(), allow_nan=False))
    assert record["win_rate"]["counts"] == {
        "win": whole[1].win_rate.counts.win, "tie": whole[1].win_rate.counts.tie,
        "loss": whole[1].win_rate.counts.loss, "both_bad": whole[1].win_rate.counts.both_bad,
    }  # fmt: skip
    assert record["agreement"]["kappas"][0]["raters"] == ["ann", "bob"]
    assert record["by_kind"].keys() == {"policy-sft", "sft-sft", "policy-policy"}


def test_the_sentence_that_is_quoted():
    cast = votes("a" * 62 + "b" * 38 + "+" * 12 + "-" * 8)
    text = summarise(cast).text()
    assert text.startswith(
        "Of 120 blind votes by 1 rater the policy won 62, lost 38, tied 12, both bad 8: "
        "62 % (52 to 71 %) of the decided."
    )
    assert "reward model" not in text
    assert "Krippendorff" not in text


def test_the_reward_model_is_told_beside_length_and_people(whole):
    sentence = whole[1].text().splitlines()[0]
    assert "at equal length" in sentence
    assert "Within a model the reward model sided with people in" in sentence
    assert "longer wins: " in sentence
    assert "; two raters: " in sentence


def test_the_headline_of_the_reward_model_is_made_within_a_model_only():
    cast = votes("a" * 10) + votes("aabb", "j", kind="sft-sft")
    scores = {v.item: (1.0, 0.0) for v in cast}
    s = summarise(cast, scores=scores)
    assert (s.reward_model.model.value, s.reward_model.model.count) == (0.5, 4)
    assert s.by_kind["policy-sft"].model.value == 1.0
    assert sum(b.agreed.count for b in s.reliability.bins) == 4


def test_at_the_planned_number_the_interval_is_that_of_a_fixed_number():
    s = summarise(votes("ab" * 38 + "a" * 24), rule=StoppingRule(planned=100))
    assert s.win_rate_interval == s.win_rate.of_decided
    assert "ended at the planned number" in s.text()


@pytest.mark.parametrize(("letters", "words"), [("ab" * 25 + "a" * 12, "the planned number is not reached"),
                                                ("a" * 12 + "ab" * 25, "ended by the evidence")])  # fmt: skip
def test_sooner_than_planned_the_interval_allows_for_having_looked(letters, words):
    s = summarise(votes(letters), rule=StoppingRule(planned=100))
    wide = confidence_sequence(37, 25)
    assert s.win_rate_interval.low <= wide.low
    assert s.win_rate_interval.high >= wide.high
    assert words in s.text()


def test_the_ceiling_is_two_raters_where_there_are_else_one_asked_again():
    alone = [vote("i", "a"), vote("i2", "b", repeats="i"), vote("j", "a"), vote("j2", "a", repeats="j")]
    s = summarise(alone)
    assert (s.ceiling.value, s.ceiling_of) == (0.5, "one rater, asked again")
    s = summarise([*alone, vote("i", "a", rater="bob")])
    assert (s.ceiling.value, s.ceiling_of) == (1.0, "two raters")
    s = summarise(votes("ab"))
    assert (math.isnan(s.ceiling.value), s.ceiling_of) == (True, "")


# ---------------------------------------------------------------------------------------------- notes
def test_a_rater_who_always_takes_the_left_is_named():
    cast = [vote(f"i{n}", side, left=side) for n, side in enumerate("ab" * 10)]
    assert any("on the left was preferred too often for chance" in note for note in notes(summarise(cast)))


def test_a_rater_who_does_not_read_is_named_and_one_who_does_is_not():
    cast = [vote(f"p{n}", c, kind="planted", rater=r) for r, said in (("ann", "aaaa"), ("bob", "abab"))
            for n, c in enumerate(said)]  # fmt: skip
    found = notes(summarise(cast))
    assert [note for note in found if "planted" in note] == [note for note in found if note.startswith("bob")]
    assert any("50 %" in note for note in found if note.startswith("bob"))


def test_a_reward_model_that_is_no_better_than_length_is_told():
    cast = votes("ab" * 20, kind="sft-sft")
    given = {v.item: (2.0, 1.0) if v.choice == "a" else (1.0, 2.0) for v in cast}
    assert any("longer answers win" in note for note in notes(summarise(cast, scores=given, lengths=given)))
    short = {item: (b, a) for item, (a, b) in given.items()}
    assert not any("longer answers win" in note for note in notes(summarise(cast, scores=given, lengths=short)))


def test_no_difference_shown_is_not_called_no_difference():
    assert any("nor that there is none" in note for note in notes(summarise(votes("ab" * 20))))
    assert not any("do not show a difference" in note for note in notes(summarise(votes("a" * 20))))


def test_of_no_votes_at_all_there_is_a_summary_that_says_so():
    s = summarise([], scores={}, lengths={}, rule=StoppingRule(planned=3))
    assert s.text().startswith("Of 0 blind votes by 0 raters")
    assert "unknown of the decided" in s.text()
    json.dumps(s.as_dict(), allow_nan=False)
