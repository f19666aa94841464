"""The stages around PPO: supervised fine-tuning, reward models, DPO; their rows, their checks, their judgement."""

import logging

# TRL imports bitsandbytes where it is installed, which then tells of kernels that no stage uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
