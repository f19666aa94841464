"""The stages around PPO: supervised fine-tuning, reward models, DPO; their rows, their checks, their judgement."""
