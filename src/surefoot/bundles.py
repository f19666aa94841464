"""Fault bundles: everything about the rows of a step that was not finite, kept in the run folder to be looked at.

    faults/step_000012/fault.json         what, where, losses and norms, every row with its prompt, score and length
    faults/step_000012/rows.safetensors   token ids, masks and every tensor of these rows; process0/... and so on

Numbers that are not finite stand as texts in the JSON ("nan", "inf"). A second fault of a step is step_000012_2.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from surefoot.config import PPOConfig
from surefoot.faults import Fault
from surefoot.redaction import hide_values
from surefoot.runtime import Runtime
from surefoot.settings import to_yaml
from surefoot.types import Prompt

_LOG = logging.getLogger("surefoot")
MOST = 100
"""Bundles that one process keeps; after that faults are only counted."""


class FaultBundles:
    """Writes bundles into the run folder of `config`, on the main process; without a folder it writes none."""

    def __init__(self, config: PPOConfig, runtime: Runtime) -> None:
        self._config, self._runtime = config, runtime
        self._folder = None if config.output_dir is None else Path(config.output_dir, "faults")
        self._written = 0

    def writer(self, step: int, queries: Sequence[Any]) -> Callable[[Fault, Mapping[str, Tensor]], Path | None]:
        """What keeps the faults of one step; it is to be called on every process."""
        return lambda fault, tensors: self._write(step, fault, tensors, queries)

    def _write(self, step: int, fault: Fault, tensors: Mapping[str, Tensor], queries: Sequence[Any]) -> Path | None:
        if self._folder is None or self._written == MOST:
            return None
        self._written += 1
        rows = [_row(i, at, queries[i], tensors, self._runtime.rank) for at, i in enumerate(fault.rows)]
        named = {f"process{self._runtime.rank}/{name}": x.contiguous() for name, x in tensors.items()}
        place = _free(self._folder / f"step_{step:06d}")
        everybody = self._runtime.gather([(rows, named)])
        if self._runtime.is_main:
            about = self._about(step, fault) | {"rows": [row for theirs, _ in everybody for row in theirs]}
            try:
                place.mkdir(parents=True)
                text = json.dumps(_strict(about), indent=2, allow_nan=False)
                (place / "fault.json").write_text(text + "\n", encoding="utf-8")
                all_tensors = {name: x for _, theirs in everybody for name, x in theirs.items()}
                save_file(all_tensors, place / "rows.safetensors")
            except (OSError, SafetensorError) as error:  # the fault itself is the news, not that it was not kept
                _LOG.warning("the fault bundle %s could not be written: %s", place, error)
        return place

    def _about(self, step: int, fault: Fault) -> dict[str, Any]:
        settings = hide_values(to_yaml(self._config))
        return {
            "step": step,
            "what": fault.what,
            "minibatch": fault.minibatch,
            "numbers": dict(fault.numbers),
            "on_fault": self._config.on_fault,
            "config_sha256": hashlib.sha256(settings.encode()).hexdigest(),
        }


def _row(row: int, at: int, query: Any, tensors: Mapping[str, Tensor], process: int) -> dict[str, Any]:
    """One row in numbers; `at` is its place in the tensors. `prompt` is its number in the data set."""
    found: dict[str, Any] = {
        "process": process,
        "row": row,
        "prompt": query.index if isinstance(query, Prompt) else None,
        "query_tokens": int(tensors["query_mask"][at].sum()),
        "response_tokens": int(tensors["lengths"][at]),
        "score": tensors["scores"][at].tolist(),
    }
    for name in ("rewards", "old_logprobs", "ref_logprobs", "kl", "old_values", "advantages", "returns"):
        if name in tensors:
            found[f"finite/{name}"] = bool(tensors[name][at].isfinite().all())
            found[f"mean/{name}"] = float(tensors[name][at][: found["response_tokens"]].mean())
    return found


def _strict(value: Any) -> Any:
    """The value with texts in place of numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list) else value


def _free(path: Path) -> Path:
    """The path, with a number behind it where it is taken."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free
