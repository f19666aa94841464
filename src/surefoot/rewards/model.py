"""A reward model: any sequence classifier with one output, read with its own tokenizer and chat template."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from surefoot.arithmetic import arithmetic
from surefoot.networks import score_shift
from surefoot.rewards.adapter import is_adapter, on_own_base, read_adapter, tokenizer_source
from surefoot.rewards.conventions import with_answer, without_ends
from surefoot.rewards.failure import RewardError, check_scores
from surefoot.types import Prompt, RewardOutput

logger = logging.getLogger("surefoot")


class ModelReward:
    """Scores answers with a reward model. It is handed text, so it may be of another family than the policy.

    A conversation is rendered by the reward model's own chat template; a plain prompt has the answer put behind it.
    The score is what the model's own forward pass gives for the row alone, without any padding: neither the side nor
    the width of padding matters. In particular, where the model's pad token is its end-of-sequence token, the
    classifiers of transformers read the score before a final EOS, as they did in training; where it has no pad
    token, they read it at the very last token.

    A model whose config has a `score_shift` is centred: that number is taken off every score. The loss of pairs sees
    differences alone, so that a reward model's zero is arbitrary; where it lies matters where scores meet other
    numbers: other rewards, penalties, a critic that starts at 0.

    Args:
        model: folder (of a whole model, or of an adapter of peft), hub name, or an
            `AutoModelForSequenceClassification` with num_labels 1.
        tokenizer: the same for its tokenizer. None: from where the model came from.
        name: what it is logged under. None: the last part of the model's name.
        max_tokens_per_batch: tokens of one forward pass, padding included.
        max_length: longest input in tokens; longer ones lose the beginning of the prompt, which is counted.
            None: what model and tokenizer allow.
        device: where a model given by name is put. None: the accelerator if there is one.
        special_tokens: texts of the policy's special tokens, taken off both ends of plain prompts.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        name: str | None = None,
        *,
        max_tokens_per_batch: int = 16384,
        max_length: int | None = None,
        device: str | torch.device | None = None,
        special_tokens: Sequence[str] = (),
    ) -> None:
        if max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch={max_tokens_per_batch} must be at least 1")
        by_name = isinstance(model, str | PathLike)
        source = fspath(model) if by_name else str(model.config.name_or_path)
        self.model = _load(source, device) if by_name else model
        self.name = name or Path(source).name or "reward_model"
        _check_outputs(self.model.config, self.name)
        self.tokenizer = _tokenizer(tokenizer_source(source) if tokenizer is None else tokenizer, self.name)
        self.score_shift = score_shift(self.model.config, self.name)
        self.max_tokens_per_batch = max_tokens_per_batch
        self.max_length = _limit(self.model, self.tokenizer) if max_length is None else max_length
        self.special_tokens = tuple(token for token in special_tokens if token)
        self.must_be_finite = True
        self._said: set[str] = set()

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> RewardOutput:
        """Scores `completions[i]` as the answer to `prompts[i]`.

        Raises:
            RewardError: the model gave NaN or infinity.
            ValueError: the tokenizer does not belong to the model.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions: give one answer for each")
        if not prompts:
            raise ValueError("no answers to score: prompts is empty")
        rows, cut = [], 0
        for prompt, completion in zip(prompts, completions, strict=True):
            ids = self.encode(prompt, completion)
            if not ids:
                raise RewardError(self.name, "prompt and response together have no token", prompt, completion)
            cut += len(ids) > self.max_length
            rows.append(self._shortened(ids))
        self._check_ids(rows)
        if cut:
            self._say_once(
                f"reward model {self.name!r}: inputs longer than its {self.max_length} tokens lose the beginning of "
                "their prompts; rewards/<name>/truncated_rate counts them"
            )
        values = [score - self.score_shift for score in self._scores(rows)]
        scores = check_scores(self.name, values, prompts, completions, finite=self.must_be_finite)
        return RewardOutput(scores, {"truncated_rate": cut / len(rows)})

    # ------------------------------------------------------------------------------------------ text
    def render(self, prompt: Prompt, completion: str) -> str:
        """The text whose tokens the model reads."""
        if not prompt.messages:
            return without_ends(prompt.text, self.special_tokens) + str(completion)
        messages = with_answer(prompt, completion)
        if self.tokenizer.chat_template is not None:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        self._say_once(
            f"reward model {self.name!r} has no chat template: of a conversation it reads the contents of the "
            "messages, one after the other, separated by empty lines"
        )
        return "\n\n".join(str(message["content"]) for message in messages)

    def encode(self, prompt: Prompt, completion: str) -> list[int]:
        """The token ids that the model reads, before any shortening. BOS comes at most once."""
        text = self.render(prompt, completion)
        templated = bool(prompt.messages) and self.tokenizer.chat_template is not None
        bos = self.tokenizer.bos_token
        if not templated and bos:
            while text.startswith(bos):
                text = text.removeprefix(bos)
        # a template writes its special tokens itself: adding them again would double BOS
        return list(self.tokenizer(text, add_special_tokens=not templated, verbose=False)["input_ids"])

    def _shortened(self, ids: list[int]) -> list[int]:
        if len(ids) <= self.max_length:
            return ids
        keeps_first = ids[0] in self.tokenizer.all_special_ids and self.max_length > 1  # BOS or CLS
        return ids[:1] + ids[1 - self.max_length :] if keeps_first else ids[-self.max_length :]

    def _check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        known, largest = self.model.get_input_embeddings().weight.shape[0], max(map(max, rows))
        if largest >= known:
            raise ValueError(
                f"reward model {self.name!r}: its tokenizer gives id {largest}, but the model knows {known} tokens: "
                "give the tokenizer that belongs to it"
            )

    # ------------------------------------------------------------------------------------------ scores
    @torch.no_grad()
    def _scores(self, rows: Sequence[list[int]]) -> list[float]:
        scores = [0.0] * len(rows)
        device = self.model.get_input_embeddings().weight.device
        with _evaluating(self.model), arithmetic(device, bfloat16=False):
            for indices in _batches([len(row) for row in rows], self.max_tokens_per_batch):
                logits = self._forward([rows[i] for i in indices])
                for i, value in zip(indices, logits.float().tolist(), strict=True):
                    scores[i] = value
        return scores

    def _forward(self, rows: Sequence[list[int]]) -> Tensor:
        config = self.model.config.get_text_config()
        # classifiers find a row's last token as the last that is not pad, so padding must be what they call pad;
        # one without a pad token is lent an id that occurs in no row of this batch, which leaves every token a token
        own = config.pad_token_id
        pad = _unused_id(rows, self.model.get_input_embeddings().weight.shape[0]) if own is None else own
        width, device = max(map(len, rows)), self.model.get_input_embeddings().weight.device
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        config.pad_token_id = pad
        try:
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        finally:
            config.pad_token_id = own
        if logits.shape != (len(rows), 1):
            shape = tuple(logits.shape)
            raise ValueError(
                f"reward model {self.name!r} gave logits of shape {shape} for {len(rows)} rows: one each?"
            )
        return logits[:, 0]

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            logger.warning(sentence)


def _load(source: str, device: str | torch.device | None) -> Any:
    model = on_own_base(read_adapter(source)) if is_adapter(source) else _load_whole(source)
    if device is None:
        device = torch.accelerator.current_accelerator() or "cpu"
    return model.eval().requires_grad_(False).to(device)


def _load_whole(source: str) -> Any:
    _check_outputs(AutoConfig.from_pretrained(source, trust_remote_code=False), source)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        source, dtype="auto", output_loading_info=True, trust_remote_code=False
    )
    if info["missing_keys"]:
        raise ValueError(
            f"reward model {source!r} has no weights for {', '.join(sorted(info['missing_keys']))}: they would be "
            "random, and so would its scores; give a trained reward model"
        )
    return model


def _check_outputs(config: Any, name: str) -> None:
    if config.num_labels != 1:
        raise ValueError(
            f"reward model {name!r} has num_labels={config.num_labels}, a reward model has 1: give a model that was "
            "trained to output one score, or wrap this classifier in a Python function that returns a number"
        )


def _tokenizer(tokenizer: Any, name: str) -> Any:
    if not isinstance(tokenizer, str | PathLike):
        return tokenizer
    if not fspath(tokenizer):
        raise ValueError(f"reward model {name!r} comes without a tokenizer: give ModelReward(model, tokenizer)")
    return AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)


def _limit(model: Any, tokenizer: Any) -> int:
    """Tokens that the model has positions for and the tokenizer admits."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [int(tokenizer.model_max_length)]  # about 1e30 where the tokenizer does not say
    if positions is not None and positions > 0:
        offsets = [
            m.padding_idx + 1
            for n, m in model.named_modules()
            if n.endswith("position_embeddings") and isinstance(m, torch.nn.Embedding) and m.padding_idx is not None
        ]  # RoBERTa counts its positions from behind the pad token's id
        limits.append(positions - max(offsets, default=0))
    return min(limits)


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in groups whose padded size stays within the budget; at least one row a group."""
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[group[0]] * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _unused_id(rows: Sequence[Sequence[int]], count: int) -> int:
    used = {i for row in rows for i in row}
    free = next((i for i in range(count) if i not in used), None)
    if free is None:
        raise ValueError("the reward model has no pad token and every token occurs: set model.config.pad_token_id")
    return free


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Eval mode for a while: no dropout; the user's model is left in the mode it came in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
