"""A language model of two million parameters, trained on the spot on very simple texts.

It is a toy that writes sentences like "Phone: The screen broke." and exists so that the quick demo needs no download.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

END = "<|end|>"


@dataclass(frozen=True, slots=True)
class Pretraining:
    """What the training of the toy model came to.

    Attributes:
        parameters: weights of the model. tokens: read in training, padding not counted.
        first_loss, last_loss: nats per token over the first and the last twentieth of the steps.
    """

    parameters: int
    tokens: int
    first_loss: float
    last_loss: float


def make_tokenizer(texts: Sequence[str], vocab_size: int = 1024) -> Any:
    """A byte-level BPE tokenizer learned from `texts`; its one special token ends a text and pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END, padding_side="left")


def make_model(tokenizer: Any, seed: int) -> Any:
    """A new Llama: width 192, 4 layers, 6 heads. Its weights come from a generator of their own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def pretrain(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    seed: int,
    autocast: bool,
    steps: int = 800,
    rows: int = 24,
    learning_rate: float = 3e-3,
    say: Callable[[str], None] = lambda line: None,
) -> Pretraining:
    """Teaches the model to continue `texts`, in place: AdamW, a short warm-up, then a cosine down to zero."""
    encoded = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(texts))["input_ids"]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=steps // 20)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - steps // 20)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], [steps // 20])
    losses, tokens = [], 0
    model.train()
    for step, (ids, mask) in zip(range(steps), batches(encoded, rows, seed), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(input_ids=ids, attention_mask=mask).logits
        wanted = torch.where(mask, ids, -100)[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        tokens += int(mask.sum())
        if (step + 1) % max(1, steps // 4) == 0:
            say(f"  {step + 1} of {steps} batches read, {losses[-1]:.2f} nats per token")
    model.eval()
    part = max(1, steps // 20)
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    return Pretraining(sum(p.numel() for p in model.parameters()), tokens, first, last)


def batches(encoded: Sequence[Sequence[int]], rows: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of texts of like length, padded on the right: ids and a mask that is True on real tokens."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(encoded), generator=generator).tolist()
        order.sort(key=lambda row: len(encoded[row]) // 8)  # stable: random among texts of like length
        groups = [order[start : start + rows] for start in range(0, len(order), rows)]
        for group in torch.randperm(len(groups), generator=generator).tolist():
            chosen = [torch.tensor(encoded[row]) for row in groups[group]]
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in chosen], batch_first=True).bool()
            yield torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True), mask
