"""A YAML file of several commands: options of all, and a section with the options of each. No torch in here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from surefoot.settings import Setting, add_setting, checked_pairs, node_value, read_text, yaml_pairs


@dataclass(frozen=True, slots=True)
class Sections:
    """What a file with sections says.

    Attributes:
        top: the options outside of every section.
        sections: section -> its options; names are not checked yet (see `surefoot.settings.make_options`).
        origins: section -> where it begins, "rlhf.yaml:7".
    """

    top: Mapping[str, Setting]
    sections: Mapping[str, Mapping[str, Setting]]
    origins: Mapping[str, str]


def read_sections(path: str | Path) -> Sections:
    """Reads options and one level of sections with options, every value with its line.

    Raises:
        ValueError: another kind of file, unreadable YAML, a name that is set twice, or anything nested deeper.
        FileNotFoundError: there is no such file.
    """
    from ruamel.yaml.nodes import MappingNode

    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(f"{path}: a file with sections ends in .yaml or .yml")
    yaml, pairs = yaml_pairs(read_text(path), path)
    top: dict[str, Setting] = {}
    sections: dict[str, Setting] = {}
    for key, node in pairs:
        origin = f"{path}:{key.start_mark.line + 1}"
        if isinstance(node, MappingNode):
            inside: dict[str, Setting] = {}
            for name, value in checked_pairs(node, path):
                place = f"{path}:{name.start_mark.line + 1}"
                add_setting(inside, name.value, Setting(node_value(yaml, value, path), place))
            add_setting(sections, key.value, Setting(inside, origin))
        else:
            add_setting(top, key.value, Setting(node_value(yaml, node, path), origin))
    return Sections(
        top,
        {name: setting.value for name, setting in sections.items()},
        {name: setting.origin for name, setting in sections.items()},
    )
