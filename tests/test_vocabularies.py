"""Policy, reference, critic and reward with vocabularies and contexts that differ: refused, or given text."""

import pytest
import tiny_classifier
import torch
from tiny import VOCAB_SIZE, byte_id, tiny_gpt2, tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.rewards import ModelReward
from surefoot.types import Completion, Prompt

SMALL = {"batch_size": 4, "mini_batch_size": 4, "ppo_epochs": 1, "max_new_tokens": 6, "eval_prompts": 0}
PROMPTS = ["one", "two and", "three", "four"]


def trainer(model, *, ref_model=None, value_model=None, tokenizer=None, **options):
    config = PPOConfig(**(SMALL | options), **({} if value_model is None else {"critic": "model"}))
    return PPOTrainer(config, model, ref_model, tokenizer or tiny_tokenizer(), value_model=value_model)


def a_step(made):
    answers = made.generate(PROMPTS)
    return answers, made.step(PROMPTS, answers, [1.0, 2.0, 3.0, 4.0])


def test_a_tokenizer_with_more_tokens_than_the_policy_is_refused():
    with pytest.raises(ValueError, match=f"the tokenizer has {VOCAB_SIZE} tokens but the model only 200"):
        trainer(tiny_llama(vocab_size=200))


@pytest.mark.parametrize("name", ["ref_model", "value_model"])
def test_a_model_that_does_not_know_all_of_the_policys_tokens_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} knows {VOCAB_SIZE} tokens and the policy 300"):
        trainer(tiny_llama(vocab_size=300), **{name: tiny_llama(1)})


@pytest.mark.parametrize("name", ["ref_model", "value_model"])
def test_rows_that_are_too_long_for_any_of_the_models_are_refused(name):
    """GPT-2 has a table of positions: past its end there is nothing to look up."""
    made = trainer(tiny_gpt2(), **{name: tiny_gpt2(1, n_positions=12)})
    assert made.context == 12
    with pytest.raises(ValueError, match=r"queries\[1\] has 7 tokens .* more than the model's context of 12"):
        made.generate(PROMPTS)
    a_step(trainer(tiny_gpt2(), max_new_tokens=5, **{name: tiny_gpt2(1, n_positions=12)}))


def test_the_exact_divergence_needs_a_reference_with_the_same_vocabulary():
    with pytest.raises(ValueError, match=f"kl_penalty='full' .* ref_model has 320 tokens and the policy {VOCAB_SIZE}"):
        trainer(tiny_llama(), ref_model=tiny_llama(1, vocab_size=320), kl_penalty="full")


def test_embeddings_wider_than_the_tokenizer_are_normal():
    """The policy may then write an id that stands for no text; everybody who reads ids can read it."""
    policy = tiny_llama(vocab_size=VOCAB_SIZE + 38)
    with torch.no_grad():
        policy.lm_head.weight[VOCAB_SIZE:] = 3.0 * policy.lm_head.weight[byte_id("e")]
    made = trainer(policy, ref_model=tiny_llama(1, vocab_size=320), value_model=tiny_llama(2, vocab_size=300))
    answers, stats = a_step(made)
    assert all(torch.isfinite(torch.tensor(value)).all() for value in stats.scalars().values())
    assert all(isinstance(str(answer), str) for answer in answers)


def test_a_reward_model_with_another_tokenizer_is_given_the_text():
    """Its vocabulary is the policy's in reverse, and smaller: ids handed on as they are would be other letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    own = PreTrainedTokenizerFast(tokenizer_object=core)
    model = tiny_classifier.classifier(vocab_size=256)
    policy = tiny_tokenizer()
    ids = tuple(policy("an answer")["input_ids"])
    prompt = Prompt("a question ", tuple(policy("a question ")["input_ids"]))
    found = ModelReward(model, own)([prompt], [Completion("an answer", ids, (), "stop")]).scores
    row = torch.tensor([[alphabet.index("Ġ" if c == " " else c) for c in "a question an answer"]])
    assert found == pytest.approx(model(input_ids=row).logits[0].tolist(), abs=1e-5)
