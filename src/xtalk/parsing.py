"""JSON and YAML that others wrote, read within bounds: whatever is wrong with a text is a ValueError."""

import json
from typing import Any

import yaml

LONGEST_YAML = 1 << 20
"""Characters; more is no configuration, and takes PyYAML seconds."""

_MOST_NODES = 1 << 18  # of a YAML text, each counted as often as it is referred to


def parsed_json(text: str) -> Any:
    """What a JSON text says. Errors: ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parsed_yaml(text: str) -> Any:
    """What a YAML text says, without objects; Python's tuples, which some programs write, are lists.

    Errors: ValueError, also for a text that is too long, nested too deeply, refers to itself, or is too large
    once each reference is written out.
    """
    if len(text) > LONGEST_YAML:
        raise ValueError(f"it has {len(text)} characters; a configuration has at most {LONGEST_YAML}")
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """Counts nodes before it makes anything of them: merging mappings writes references out."""

    def get_single_node(self) -> yaml.nodes.Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_size(node, {})
        return node


def _check_size(node: yaml.nodes.Node, sizes: dict[int, int]) -> int:
    """How many nodes there are from this one on; `sizes`: those known, 0 for those that are being counted."""
    known = sizes.get(id(node))
    if known == 0:
        raise yaml.YAMLError("it refers to itself")
    if known is None:
        sizes[id(node)] = 0
        value: Any = node.value
        inner = value if isinstance(value, list) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known = sizes[id(node)] = 1 + sum(_check_size(part, sizes) for part in parts)
        if known > _MOST_NODES:
            raise yaml.YAMLError("it is too large once each reference is written out")
    return known


def _sequence(loader: yaml.SafeLoader, node: yaml.nodes.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _sequence)
