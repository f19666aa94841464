"""Fixtures for all tests: a tokenizer and factories of tiny models (see tiny.py), and no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import tiny
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer with a pad token of its own, without BOS and without a chat template."""
    return tiny.tiny_tokenizer()


@pytest.fixture
def tiny_llama():
    """The factory `tiny_llama(seed=0, **config_changes)`."""
    return tiny.tiny_llama


@pytest.fixture
def tiny_gpt2():
    """The factory `tiny_gpt2(seed=0, **config_changes)`."""
    return tiny.tiny_gpt2
