"""Liger's fused kernels for norms and gated feed-forward layers: less memory and time on a GPU, where it is installed.

Liger replaces names in transformers' modules, for every model that is made or run from then on. Here they are put
back, so that only the model that was asked for is changed; what looks its kernel up by name (rotation) stays as it is.
"""

import sys
from typing import Any

from surefoot.networks import base_of

_LEFT_OUT = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}


def fuse(model: Any) -> bool:
    """Gives the layers of `model` Liger's kernels, for good; whether liger-kernel is there to do so."""
    from transformers.utils.import_utils import is_liger_kernel_available

    if not is_liger_kernel_available():
        return False
    from transformers.integrations.liger import apply_liger_kernel

    base = base_of(model)
    names = vars(sys.modules[type(base).__module__])
    before = dict(names)
    try:
        apply_liger_kernel(base, _LEFT_OUT)
    finally:
        names.update(before)
    return True
