"""`surefoot serve-reward`: rewards behind HTTP, in OpenRLHF's protocol."""

from surefoot.serve.server import RewardServer

__all__ = ["RewardServer"]
