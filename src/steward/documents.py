"""YAML text whose every field knows its line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from steward.errors import ModelFileError


class Yaml(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml is eight times as fast
    """YAML 1.2's plain values: `on`, `off`, `yes` and `no` are texts, and so are dates."""


Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$", re.IGNORECASE), list("tTfF"))


@dataclass(frozen=True)
class Document:
    r"""A YAML mapping and where each of its parts stands.

    Examples
    --------
    >>> document = Document.parse("rows:\n  min: 5\n", "m.yaml")
    >>> document.content, document.line_of(("rows", "min"))
    ({'rows': {'min': 5}}, 2)
    """

    where: str
    content: dict[str, Any]
    root: yaml.Node

    @classmethod
    def parse(cls, text: str, where: str) -> "Document":
        """Read a mapping; raises ModelFileError with the line for bad YAML, other content, and fields that stand twice."""
        try:
            root, content = _read(text, where)
        except (yaml.YAMLError, ValueError) as problem:
            mark = getattr(problem, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            got = getattr(problem, "problem", None) or str(problem)
            raise ModelFileError(
                f"{where}:{line}: not valid YAML", got=got, do="Correct this line, or the one before it", line=line
            ) from problem
        if root is None or not isinstance(content, dict):
            raise ModelFileError(
                f"{where}:1: a model file is a YAML mapping",
                got=type(content).__name__,
                do="`steward init` writes one",
                line=1,
            )
        return cls(where, content, root)

    def line_of(self, location: Sequence[str | int]) -> int:
        """The line, from 1, of the deepest part of `location` that is there."""
        node, line = self.root, self.root.start_mark.line + 1
        for part in location:
            found = _child(node, part)
            if found is None:
                break
            node, line = found
        return line


def _read(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """The nodes, which know their lines, and the values made of them; merges change the nodes, so doubles come first."""
    loader = Yaml(text)
    try:
        root = loader.get_single_node()
        _refuse_doubles(root, where)
        return root, None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item, item.start_mark.line + 1
    return None


def _refuse_doubles(node: yaml.Node | None, where: str) -> None:
    """YAML lets the last of two equal fields win; nobody wants that."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_doubles(item, where)
    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if str(key.value) in seen:
                raise ModelFileError(f"{where}:{line}: a field stands twice", got=key.value, do="Remove one", line=line)
            seen.add(str(key.value))
            _refuse_doubles(value, where)
