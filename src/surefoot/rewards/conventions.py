"""The calling conventions of reward functions in the wild, told apart by the names of their parameters.

A convention says whether a function is called once for the batch or once for each answer, and what it is handed.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from surefoot.types import Completion, Prompt

BATCH_TEXTS = frozenset(
    [
        "texts",
        "responses",
        "outputs",
        "answers",
        "replies",
        "generations",
        "sentences",
        "strings",
        "documents",
        "inputs",
    ]
)
"""One parameter of such a name is handed all answers."""
RESPONSES = frozenset(["responses", "outputs", "replies", "generations"])
RESPONSE = frozenset(["response", "output", "reply", "generation"])
PROMPTS = ("prompts", "queries", "questions")
PROMPT = ("prompt", "query", "question")

_TEXT = re.compile(r"^(str|(list|List|Sequence|Iterable|tuple)\[str\b.*\])$")
_LIST = re.compile(r"^(list|List|Sequence|Iterable|tuple)\b")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function accepts.

    Attributes:
        annotations: parameter name -> annotation as text, "" for none; in the order of the signature.
        required: names without a default.
        takes_all: whether there is a **kwargs.
        positional_only: names that cannot be given as keywords.
    """

    annotations: Mapping[str, str]
    required: frozenset[str]
    takes_all: bool
    positional_only: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Signature":
        """Reads the signature of a function or a callable object.

        Raises:
            ValueError: there is none to read.
        """
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError) as error:
            raise ValueError(f"the signature of {function!r} cannot be read: wrap it in a Python function") from error
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return cls(
            annotations={p.name: _annotation(p.annotation) for p in named},
            required=frozenset(p.name for p in named if p.default is p.empty),
            takes_all=any(p.kind is p.VAR_KEYWORD for p in parameters),
            positional_only=tuple(p.name for p in named if p.kind is p.POSITIONAL_ONLY),
        )

    def wants_text(self, name: str) -> bool:
        """Whether the annotation of `name` says text, so that conversations must not be handed over."""
        return _TEXT.match(self.annotations.get(name, "")) is not None


@dataclass(frozen=True, slots=True)
class Batch:
    """The answers to score, in the forms that the conventions hand over."""

    prompts: Sequence[Prompt]
    completions: Sequence[str]
    signature: Signature
    text_only: bool
    state: SimpleNamespace
    log_extra: Callable[[str, Any], None]
    log_metric: Callable[[str, Any], None]
    special_tokens: Sequence[str] = ()

    def answers(self, name: str) -> list[Any]:
        """Each answer as text, or as an assistant's message where its prompt is a conversation."""
        plain = self.text_only or self.signature.wants_text(name)
        return [
            [{"role": "assistant", "content": str(c)}] if p.messages and not plain else str(c)
            for p, c in zip(self.prompts, self.completions, strict=True)
        ]

    def questions(self, name: str) -> list[Any]:
        """Each prompt as text, or as messages where it is a conversation."""
        plain = self.signature.wants_text(name)
        rows = zip(self.prompts, self.plain_prompts(), strict=True)
        return [[dict(m) for m in p.messages] if p.messages and not plain else text for p, text in rows]

    def plain_prompts(self) -> list[str]:
        """Each prompt as text; a plain one without the special tokens that the policy's tokenizer put around it."""
        return [p.text if p.messages else without_ends(p.text, self.special_tokens) for p in self.prompts]

    def texts(self) -> list[str]:
        """Each prompt with its answer behind it."""
        return [p + str(c) for p, c in zip(self.plain_prompts(), self.completions, strict=True)]

    def columns(self) -> dict[str, list[Any]]:
        """Every column as a list; None where a row lacks it."""
        names = dict.fromkeys(name for p in self.prompts for name in p.columns)
        return {name: [p.columns.get(name) for p in self.prompts] for name in names}

    def ids(self) -> list[list[int]]:
        """The token ids of each answer; absent ones are an error and never empty lists."""
        found = [list(c.token_ids) if isinstance(c, Completion) else [] for c in self.completions]
        if any(str(c) and not ids for c, ids in zip(self.completions, found, strict=True)):
            raise ValueError("asks for completion_ids, but these answers were given as text only")
        return found


@dataclass(frozen=True, slots=True)
class Convention:
    """How functions of one kind are called.

    Attributes:
        name: for messages.
        per_answer: called once for each answer (True) or once for the batch (False).
        arguments: the keyword arguments of one call. A callable among them is called when the function asks for it.
    """

    name: str
    per_answer: bool
    arguments: Callable[[Batch], dict[str, Any]]


class Lazy:
    """A value that is made only for functions that ask for it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def _trl(batch: Batch) -> dict[str, Any]:
    return batch.columns() | {
        "prompts": batch.questions("prompts"), "completions": batch.answers("completions"),
        "completion_ids": Lazy(batch.ids), "trainer_state": batch.state,
        "log_extra": batch.log_extra, "log_metric": batch.log_metric,
    }  # fmt: skip


def _truth(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The ground truth of a verl row, nested or flat, under the name of the function's parameter."""
    if "ground_truth" in columns:
        return {"ground_truth": columns["ground_truth"]}
    nested = columns.get("reward_model")
    return {"ground_truth": nested["ground_truth"]} if isinstance(nested, Mapping) and "ground_truth" in nested else {}


def _verl_row(batch: Batch, row: int) -> dict[str, Any]:
    columns = batch.prompts[row].columns
    own = {name: columns[name] for name in ("data_source", "extra_info") if name in columns}
    return own | _truth(columns) | {"solution_str": str(batch.completions[row])}


def _verl(batch: Batch) -> dict[str, Any]:
    return _verl_row(batch, 0)


def _verl_batch(batch: Batch) -> dict[str, Any]:
    rows = [_verl_row(batch, i) for i in range(len(batch.prompts))]
    plural = {"data_source": "data_sources", "solution_str": "solution_strs", "ground_truth": "ground_truths",
              "extra_info": "extra_infos"}  # fmt: skip
    shared = [name for name in plural if name == "extra_info" or all(name in row for row in rows)]
    return {plural[name]: [row.get(name) for row in rows] for name in shared}


def _openrlhf(batch: Batch) -> dict[str, Any]:
    prompts = [p.text for p in batch.prompts]  # with special tokens, as OpenRLHF hands them over
    queries = [p + str(c) for p, c in zip(prompts, batch.completions, strict=True)]
    return {"queries": queries, "prompts": prompts, "labels": [label_of(batch.prompts[0].columns)]}


def _trlx(batch: Batch) -> dict[str, Any]:
    return batch.columns() | {
        "samples": batch.texts(), "prompts": batch.plain_prompts(),
        "outputs": [str(c) for c in batch.completions],
    }  # fmt: skip


def _verifiers(batch: Batch) -> dict[str, Any]:
    columns = dict(batch.prompts[0].columns)
    own = {"prompt": batch.questions("prompt")[0], "completion": batch.answers("completion")[0]}
    return columns | own | {"state": columns | own}


def _reasoning_gym(batch: Batch) -> dict[str, Any]:
    prompt = batch.prompts[0]
    question = prompt.messages[-1]["content"] if prompt.messages else batch.plain_prompts()[0]
    return {"answer": str(batch.completions[0]), "entry": {"question": question} | dict(prompt.columns)}


def _grader(batch: Batch) -> dict[str, Any]:
    text = str(batch.completions[0])
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}}]
    return {"sample": {"output_text": text, "choices": choices}, "item": dict(batch.prompts[0].columns)}


def _pair(batch: Batch) -> dict[str, Any]:
    prompt = batch.prompts[0]
    return (
        dict(prompt.columns)
        | dict.fromkeys(PROMPT, batch.plain_prompts()[0])
        | dict.fromkeys(RESPONSE, str(batch.completions[0]))
    )


def _pairs(batch: Batch) -> dict[str, Any]:
    prompts = batch.plain_prompts()
    texts = [str(c) for c in batch.completions]
    return batch.columns() | dict.fromkeys(PROMPTS, prompts) | dict.fromkeys(RESPONSES, texts)


def _text(batch: Batch) -> dict[str, Any]:
    return {next(iter(batch.signature.annotations)): str(batch.completions[0])}


def _texts(batch: Batch) -> dict[str, Any]:
    return {next(iter(batch.signature.annotations)): [str(c) for c in batch.completions]}


TRL = Convention("TRL", False, _trl)

_BY_NAMES: tuple[tuple[Callable[[set[str]], bool], Convention], ...] = (
    (lambda names: bool(names & {"completions", "completion_ids"}), TRL),
    (lambda names: "solution_strs" in names, Convention("verl batch", False, _verl_batch)),
    (lambda names: "solution_str" in names, Convention("verl", True, _verl)),
    (lambda names: bool(names & RESPONSES) and bool(names & set(PROMPTS)) and "samples" not in names,
     Convention("prompts and responses", False, _pairs)),
    (lambda names: "queries" in names, Convention("OpenRLHF", True, _openrlhf)),  # in batches of one, as it does today
    (lambda names: "samples" in names, Convention("trlx", False, _trlx)),
    (lambda names: {"sample", "item"} <= names, Convention("OpenAI grader", True, _grader)),
    (lambda names: {"answer", "entry"} <= names, Convention("reasoning-gym", True, _reasoning_gym)),
    (lambda names: "completion" in names, Convention("verifiers", True, _verifiers)),
    (lambda names: bool(names & RESPONSE) and bool(names & set(PROMPT)),
     Convention("prompt and response", True, _pair)),
)  # fmt: skip


def recognise(signature: Signature, label: str) -> Convention:
    """The convention of a function with this signature.

    Raises:
        ValueError: none fits; the message names the parameters.
    """
    names = set(signature.annotations)
    for fits, convention in _BY_NAMES:
        if fits(names):
            return convention
    if not names and signature.takes_all:
        return TRL
    others = [name for name in signature.annotations if name in signature.required]
    first = next(iter(signature.annotations), None)
    if first is None or len(others) > 1 or (others and others[0] != first):
        raise ValueError(
            f"reward {label!r} takes ({', '.join(signature.annotations)}), which is no known way of calling a reward: "
            "name its parameters (prompt, response), (prompts, completions, **kwargs) or a single (text)"
        )
    annotation = signature.annotations[first]
    batch = _LIST.match(annotation) is not None if annotation else first in BATCH_TEXTS
    return Convention("texts", False, _texts) if batch else Convention("text", True, _text)


def label_of(columns: Mapping[str, Any]) -> Any:
    """What a row says the right answer is: its column label or labels, else its ground truth; None without any."""
    own = (columns[name] for name in ("label", "labels") if name in columns)
    return next(own, _truth(columns).get("ground_truth"))


def with_answer(prompt: Prompt, completion: str) -> list[dict[str, Any]]:
    """A conversation with its answer; it goes on where the prompt itself began an assistant's message."""
    messages = [dict(message) for message in prompt.messages]
    if messages[-1]["role"] == "assistant":
        messages[-1]["content"] += str(completion)
    else:
        messages.append({"role": "assistant", "content": str(completion)})
    return messages


def without_ends(text: str, tokens: Sequence[str]) -> str:
    """`text` without any of the tokens at its beginning and end."""
    shorter = text
    for token in tokens:
        shorter = shorter.removeprefix(token).removesuffix(token)
    return text if shorter == text else without_ends(shorter, tokens)


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(typing|collections\.abc|builtins)\.", "", text)
