"""Which options TRL's configs have, and what each takes."""

import dataclasses
import enum
import functools
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


@functools.cache
def trl_kinds(config: str) -> Mapping[str, Any]:
    """The options of one of TRL's configs, with types as `surefoot.options.check_type` knows them.

    An option that takes nothing which a settings file can hold is left out.
    """
    from surefoot.stages.trl import config_class

    return {
        field.name: _one_of(field, kind)
        for field in dataclasses.fields(config_class(config))
        if field.init and (kind := plain_kind(field.type)) is not None
    }


def _one_of(field: dataclasses.Field[Any], kind: Any) -> Any:
    """A text of which the config says what it may be, and never checks it, is one of these words."""
    words = tuple(field.metadata.get("choices") or ())
    if not words or str not in _parts(kind):
        return kind
    return Literal[words] | None if NoneType in _parts(kind) else Literal[words]


def plain_kind(annotation: Any) -> Any:
    """A type as texts, numbers, words and lists of them; a mapping is a text, JSON. None: nothing of these."""
    kinds = [plain for part in _parts(annotation) if (plain := _plain(part)) is not None]
    if not any(kind is not NoneType for kind in kinds):
        return None
    return functools.reduce(lambda a, b: a | b, kinds)


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _plain(kind: Any) -> Any:
    origin = get_origin(kind)
    if kind in (str, int, float, bool, NoneType) or origin is Literal:
        return kind
    if kind is dict or origin is dict or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return str
    return _LISTS.get(get_args(kind)[0]) if origin is list else None


_LISTS: Mapping[Any, Any] = {str: tuple[str, ...], int: tuple[int, ...], float: tuple[float, ...]}
