"""PPO for language models in one file: sample, score, price the drift, estimate, update.

Everything PPO does to a language model stands on this page, for reading. A small GPT-2 that knows nothing is taught
by a rule to write digits in rising order; on a CPU that takes some seconds:

    python examples/ppo_in_one_file.py --steps 60

Shapes: B answers, Q padded prompt, R padded answer, V vocabulary. A mask is 1 where a token counts.
"""

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, HfArgumentParser

PAD, EOS, VOCABULARY = 0, 1, 12  # ids 2 to 11 are the digits


@dataclass
class Args:
    seed: int = 0
    steps: int = 60  # a step: sample, score, and several epochs of gradient steps
    batch_size: int = 64  # answers of a step
    mini_batch_size: int = 32  # answers of a gradient step
    epochs: int = 4  # how often a step goes through its answers
    learning_rate: float = 2e-3
    max_new_tokens: int = 8
    temperature: float = 1.0
    gamma: float = 1.0  # discount
    lam: float = 0.95  # GAE: how far advantages look past the critic
    clip: float = 0.2  # of the ratio of new to old probability
    value_clip: float = 0.2  # of the critic's move
    vf_coef: float = 0.1  # weight of the critic's loss
    kl_coef: float = 0.1  # price of a nat of drift from the reference
    target_kl: float = 0.1  # nats per token that the price steers to
    horizon: float = 10_000  # answers over which the price may move by a fifth
    max_grad_norm: float = 1.0


# ------------------------------------------------------------------------------------------------ the rule
def score(answer: list[int]) -> float:
    """The share of neighbours in rising order; an answer that never ends, or holds a pad, gets nothing."""
    digits = answer[:-1]
    if answer[-1] != EOS or PAD in digits or len(digits) < 2:
        return 0.0
    return sum(a < b for a, b in pairwise(digits)) / (len(digits) - 1)


# ------------------------------------------------------------------------------------------------ the models
def make_policy() -> GPT2LMHeadModel:
    """A model of 30 thousand weights. Dropout is off: it would make the old and the new policy differ by chance."""
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=4, initializer_range=0.1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def make_critic(policy: nn.Module) -> nn.Linear:
    """A linear head on the policy's last hidden state. It starts at 0, so that at first nobody is surprised."""
    head = nn.Linear(policy.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def look(policy: nn.Module, critic: nn.Module, batch: dict, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of every answer token [B, R], and the critic's value of the state before it [B, R]."""
    ids = torch.cat([batch["queries"], batch["responses"]], 1)
    attend = torch.cat([batch["query_mask"], batch["mask"]], 1)
    positions = (attend.cumsum(1) - 1).clamp(min=0)  # prompts are padded on the left: count from their first token
    out = policy(input_ids=ids, attention_mask=attend, position_ids=positions, output_hidden_states=True)
    before = slice(-batch["responses"].shape[1] - 1, -1)  # the state before a token predicts it
    table = (out.logits[:, before].float() / temperature).log_softmax(-1)
    logprobs = table.gather(-1, batch["responses"].unsqueeze(-1)).squeeze(-1)
    return logprobs, critic(out.hidden_states[-1][:, before]).squeeze(-1)


# ------------------------------------------------------------------------------------------------ 1. sample
@torch.no_grad()
def sample(policy: nn.Module, args: Args, generator: torch.Generator) -> dict:
    """Random prompts of one to three digits, padded on the left, and an answer to each, padded on the right."""
    queries = torch.randint(2, VOCABULARY, (args.batch_size, 3), generator=generator)
    lengths = torch.randint(1, 4, (args.batch_size, 1), generator=generator)
    query_mask = (torch.arange(3) >= 3 - lengths).long()
    queries = queries * query_mask
    ids, attend = queries, query_mask
    alive = torch.ones(args.batch_size, 1, dtype=torch.long)
    for _ in range(args.max_new_tokens):
        positions = (attend.cumsum(1) - 1).clamp(min=0)
        logits = policy(input_ids=ids, attention_mask=attend, position_ids=positions).logits[:, -1]
        drawn = torch.multinomial((logits / args.temperature).softmax(-1), 1, generator=generator) * alive
        ids, attend = torch.cat([ids, drawn], 1), torch.cat([attend, alive], 1)
        alive = alive * (drawn != EOS)
    return {"queries": queries, "query_mask": query_mask, "responses": ids[:, 3:], "mask": attend[:, 3:]}


def answers(batch: dict) -> list[list[int]]:
    """The answers as lists of ids, the end included and the padding left out."""
    return [row[:n].tolist() for row, n in zip(batch["responses"], batch["mask"].sum(1), strict=True)]


# ------------------------------------------------------------------------------------------------ 2. estimate
def mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens that count, of the whole batch at once."""
    return (x * mask).sum() / mask.sum()


@torch.no_grad()
def estimate(policy, critic, reference, batch: dict, scores: Tensor, kl_coef: float, args: Args) -> dict:
    """What every token was worth: rewards from score and KL, then advantages and returns by GAE."""
    mask = batch["mask"]
    old_logprobs, old_values = look(policy, critic, batch, args.temperature)
    ref_logprobs, _ = look(reference, critic, batch, args.temperature)
    kl = (old_logprobs - ref_logprobs) * mask  # unbiased on samples of the policy
    last = mask.cumsum(1) == mask.sum(1, keepdim=True)
    rewards = -kl_coef * kl + scores[:, None] * (last & mask.bool())  # the score belongs to the last token

    values, advantages = old_values * mask, torch.zeros_like(kl)
    next_value = next_advantage = torch.zeros(len(kl))  # behind the end there is nothing to come
    for t in reversed(range(kl.shape[1])):
        delta = rewards[:, t] + args.gamma * next_value - values[:, t]
        advantages[:, t] = (delta + args.gamma * args.lam * next_advantage) * mask[:, t]
        next_value, next_advantage = values[:, t], advantages[:, t]
    returns = advantages + values  # from the raw advantages
    centre = mean(advantages, mask)
    variance = ((advantages - centre).square() * mask).sum() / (mask.sum() - 1)
    return batch | {
        "old_logprobs": old_logprobs, "old_values": values, "returns": returns, "kl": kl,
        "advantages": (advantages - centre) * torch.rsqrt(variance + 1e-8) * mask,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ 3. update
def update(policy, critic, optimizer, batch: dict, args: Args, generator: torch.Generator) -> tuple[float, float]:
    """Several epochs of clipped minibatches; the mean losses of policy and critic."""
    policy_losses, value_losses = [], []
    for _ in range(args.epochs):
        for rows in torch.randperm(len(batch["mask"]), generator=generator).split(args.mini_batch_size):
            b = {name: x[rows] for name, x in batch.items()}
            logprobs, values = look(policy, critic, b, args.temperature)
            ratio = ((logprobs - b["old_logprobs"]) * b["mask"]).exp()
            gain, limited = ratio * b["advantages"], ratio.clamp(1 - args.clip, 1 + args.clip) * b["advantages"]
            policy_loss = -mean(torch.minimum(gain, limited), b["mask"])
            near = b["old_values"] + (values - b["old_values"]).clamp(-args.value_clip, args.value_clip)
            errors = torch.maximum((values - b["returns"]).square(), (near - b["returns"]).square())
            value_loss = 0.5 * mean(errors, b["mask"])
            (policy_loss + args.vf_coef * value_loss).backward()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            policy_losses.append(policy_loss.item())
            value_losses.append(value_loss.item())
    return sum(policy_losses) / len(policy_losses), sum(value_losses) / len(value_losses)


def next_kl_coef(kl_coef: float, batch: dict, args: Args) -> float:
    """Dearer where the policy drifts faster than the target, cheaper where it drifts more slowly."""
    error = float(mean(batch["kl"], batch["mask"])) / args.target_kl - 1
    return kl_coef * (1 + min(max(error, -0.2), 0.2) * len(batch["mask"]) / args.horizon)


# ------------------------------------------------------------------------------------------------ all of it
def train(args: Args) -> list[float]:
    """The mean score of every step."""
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    policy = make_policy().eval()
    critic, reference = make_critic(policy), copy.deepcopy(policy).requires_grad_(False)
    optimizer = torch.optim.Adam([*policy.parameters(), *critic.parameters()], lr=args.learning_rate)
    kl_coef, history = args.kl_coef, []
    for step in range(args.steps):
        batch = sample(policy, args, generator)
        scores = torch.tensor([score(answer) for answer in answers(batch)])
        batch = estimate(policy, critic, reference, batch, scores, kl_coef, args)
        policy_loss, value_loss = update(policy, critic, optimizer, batch, args, generator)
        kl_coef = next_kl_coef(kl_coef, batch, args)
        history.append(scores.mean().item())
        if step % 10 == 0 or step == args.steps - 1:
            kl = float(mean(batch["kl"], batch["mask"]))
            print(f"step {step:4d}  score {history[-1]:.3f}  kl/token {kl:.3f}  kl_coef {kl_coef:.4f}  "
                  f"policy loss {policy_loss:+.4f}  value loss {value_loss:.4f}")  # fmt: skip
    return history


if __name__ == "__main__":
    train(HfArgumentParser(Args).parse_args_into_dataclasses()[0])
