"""What is measured: shapes, prompts, and models of random weights. Both sides import this, so it knows neither.

Lengths of answers are a property of the model, not of a hook: its weights are set so that it ends when it should.

- Where no early end is wanted, the output rows of the end and pad tokens point away from a direction that every
  token's embedding has, so that neither is ever drawn.
- Where answers end at random, every token belongs to a class 1...N (N the longest answer), which stands for the number
  of tokens to come. A token's embedding has a strong component along its class, and its output row one along the class
  before, so that a token of class 7 is followed by one of class 6 (any of them, at random), and class 1 by the end.
  The length of each answer is drawn beforehand and is the class of its prompt's last token.

Either side, and `transformers.generate`, then sees an ordinary Llama that draws at random and ends where the other
one ends. One learning rate of 1e-6 does not move this: a wrong class has a probability below 1e-9.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PAD, EOS, FIRST = 0, 1, 2
"""Ids of padding and end; ordinary tokens begin at FIRST."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. `family` is "llama" or "qwen2" (which has biases at its queries, keys and values)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    tied: bool = False
    family: str = "llama"

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True)
class Workload:
    """One line of the table. Lengths are (shortest, longest); a process times `iterations`, and `rounds` will do."""

    name: str
    shape: Shape
    rows: int
    prompt: tuple[int, int]
    response: tuple[int, int]
    epochs: int
    minibatches: int
    lora_r: int = 0
    device: str = "cpu"
    iterations: int = 1
    rounds: int = 3

    @property
    def ragged(self) -> bool:
        return self.response[0] < self.response[1]

    @property
    def minibatch_rows(self) -> int:
        return self.rows // self.minibatches

    @property
    def optimizer_steps(self) -> int:
        return self.epochs * self.minibatches


SMALL = Shape(hidden=256, layers=8, heads=4, kv_heads=4, ffn=1024, vocab=8192)
SMOLLM2 = Shape(hidden=576, layers=30, heads=9, kv_heads=3, ffn=1536, vocab=49152, tied=True)
QWEN2 = Shape(hidden=896, layers=24, heads=14, kv_heads=2, ffn=4864, vocab=151936, tied=True, family="qwen2")
TOY = Shape(hidden=64, layers=2, heads=4, kv_heads=2, ffn=128, vocab=512)

WORKLOADS = {
    w.name: w
    for w in (
        Workload("small", SMALL, 32, (64, 64), (64, 64), 4, 4),
        Workload("ragged", SMALL, 32, (16, 128), (8, 128), 4, 4),
        Workload("real", SMOLLM2, 8, (64, 64), (64, 64), 4, 2, rounds=2),
        Workload("real-lora", SMOLLM2, 8, (64, 64), (64, 64), 4, 2, lora_r=16, rounds=2),
        Workload("gpu", QWEN2, 256, (256, 256), (256, 256), 1, 4, device="cuda", rounds=1),
        Workload("gpu-64", QWEN2, 64, (256, 256), (256, 256), 1, 4, device="cuda", rounds=2),  # TRL can hold this one
        Workload("toy", TOY, 8, (4, 16), (4, 16), 2, 2),
    )
}


@dataclass(frozen=True)
class Prompts:
    """Token ids of each prompt, and how long the answer to it will be."""

    ids: list[list[int]]
    response_lengths: list[int]


def make_prompts(w: Workload, seed: int = 0) -> Prompts:
    """Random prompts; the last token of each tells the length of its answer where answers end at random."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(w.prompt[0], w.prompt[1] + 1, (w.rows,), generator=draw).tolist()
    answers = torch.randint(w.response[0], w.response[1] + 1, (w.rows,), generator=draw).tolist()
    ids = [torch.randint(FIRST, w.shape.vocab, (n,), generator=draw).tolist() for n in lengths]
    if w.ragged:
        for row, answer in zip(ids, answers, strict=True):
            row[-1] = FIRST + answer - 1  # the first token of class `answer`
    return Prompts(ids, answers)


def make_policy(w: Workload, seed: int = 1) -> Any:
    """A causal language model in float32 whose answers have the workload's lengths."""
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    kind = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}[w.shape.family]
    model = _drawn(kind, _config(w), seed)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = EOS, PAD
    with torch.no_grad():
        if w.ragged:
            _count_down(model, w.response[1])
        else:
            _never_end(model)
    return model


def make_classifier(w: Workload, seed: int) -> Any:
    """A model of the policy's size with one output, for the value model and the reward model."""
    from transformers import LlamaForSequenceClassification, Qwen2ForSequenceClassification

    kind = {"llama": LlamaForSequenceClassification, "qwen2": Qwen2ForSequenceClassification}[w.shape.family]
    return _drawn(kind, _config(w, num_labels=1), seed)


def load_library() -> None:
    """Makes a toy of each kind of model, so that what is imported on first use is there before memory is measured."""
    make_policy(WORKLOADS["toy"])
    make_classifier(WORKLOADS["toy"], seed=0)
    make_tokenizer(WORKLOADS["toy"])


def make_tokenizer(w: Workload) -> Any:
    """One character for each id, so that text and ids say the same; no rule joins or splits anything."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<pad>": PAD, "<eos>": EOS} | {character(i): i for i in range(FIRST, w.shape.vocab)}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<pad>", "<eos>")])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def character(token_id: int) -> str:
    """How a token is written: a character of the planes of rare Han, of which there are enough."""
    return chr(0x20000 + token_id)


def lora_config(w: Workload) -> Any:
    """An adapter on every linear layer, or None where all weights are trained."""
    if not w.lora_r:
        return None
    from peft import LoraConfig

    return LoraConfig(r=w.lora_r, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")


def checksum(model: nn.Module) -> str:
    """A short fingerprint of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _config(w: Workload, **more: Any) -> Any:
    from transformers import LlamaConfig, Qwen2Config

    s = w.shape
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config}[s.family]
    return kind(
        vocab_size=s.vocab,
        hidden_size=s.hidden,
        intermediate_size=s.ffn,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=s.tied,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
        **more,
    )


def _drawn(kind: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).float().eval()


def _never_end(model: Any) -> None:
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embeddings[FIRST:, 0] = 2.0
    head[:FIRST, 0] = -15.0


def _count_down(model: Any, longest: int) -> None:
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embeddings is head or longest >= head.shape[1]:
        raise ValueError(f"counting down from {longest} needs untied embeddings of more than {longest} columns")
    classes = token_classes(len(head), longest)
    ordinary = torch.arange(FIRST, len(head))
    followers = classes < longest  # nothing is followed by the longest class: it only ends prompts
    ahead = 30 / math.sqrt(head.shape[1])  # the last norm makes a direction as long as the root of the width
    embeddings[ordinary, classes] += 20.0
    head[ordinary[followers], classes[followers] + 1] += ahead
    head[EOS, 1] += ahead


def token_classes(vocab: int, longest: int) -> Tensor:
    """The class, 1 to `longest`, of every ordinary token."""
    return torch.arange(vocab - FIRST) % longest + 1
