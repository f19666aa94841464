"""Answers drawn by vLLM, in a process of its own that is given the policy's weights whenever they have changed."""

from surefoot.engine.vllm.child import EngineFaultError
from surefoot.engine.vllm.engine import EngineError, VLLMEngine

__all__ = ["EngineError", "EngineFaultError", "VLLMEngine"]
