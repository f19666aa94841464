"""Rows of any common format (text, conversations, ids) -> prompts, and the order in which they are taken."""

from surefoot.prompts.load import DetectionReport, PromptSet, Tally, load_prompts
from surefoot.prompts.order import PromptOrder, split_eval

__all__ = ["DetectionReport", "PromptOrder", "PromptSet", "Tally", "load_prompts", "split_eval"]
