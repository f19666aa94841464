"""The smallest language model: the next token depends on the last one alone. `from bigram import bigram`."""

import torch
from tiny import VOCAB_SIZE
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class BigramConfig(PretrainedConfig):
    model_type = "bigram"

    def __init__(self, hidden_size=8, **rest):
        self.vocab_size, self.hidden_size = VOCAB_SIZE, hidden_size
        self.num_hidden_layers = self.num_attention_heads = 1
        super().__init__(**rest)


class Bigram(PreTrainedModel):
    config_class = BigramConfig
    _tied_weights_keys = {"lm_head.weight": "embed.weight"}  # noqa: RUF012 - as transformers declares it

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, use_cache=None):
        return CausalLMOutput(logits=self.lm_head(self.embed(input_ids)))


def bigram(seed=0, tied=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Bigram(BigramConfig(tie_word_embeddings=tied)).float().eval()
        for parameter in model.parameters():
            parameter.data.normal_()
    return model
