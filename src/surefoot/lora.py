"""peft, imported only here: without a word, and without a fetch from a hub. It takes its time, so import it late."""

import contextlib

from surefoot.eightbit import bitsandbytes

with contextlib.suppress(Exception):  # what peft imports where it is installed; whoever needs it is told what is wrong
    bitsandbytes()

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import load_peft_weights

__all__ = ["LoraConfig", "PeftConfig", "PeftModel", "get_peft_model", "load_peft_weights"]
