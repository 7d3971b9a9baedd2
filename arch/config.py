"""Strict YAML configs: frozen pydantic models, and errors that name the key, the value, the rule and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from bitwright.arch.errors import ConfigError, suggest
from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """Base of every config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigT = TypeVar("ConfigT", bound=Config)
Location = tuple[str | int, ...]


def load_yaml(path: Path) -> tuple[Any, dict[Location, int]]:
    """Read a YAML file as plain data, with the line (from 1) of every key and item.

    Raises ConfigError when the file cannot be read, is not YAML, or holds the same key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text; give the path of a YAML file") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "syntax error"
        raise ConfigError(f"{path.name}{line}: is not valid YAML ({problem})") from error
    if node is None:
        raise ConfigError(f"{path.name}: is empty; it must hold a mapping of keys")
    lines: dict[Location, int] = {(): node.start_mark.line + 1}
    _refuse_aliases(node, path)
    _collect_lines(node, (), lines, path)
    return yaml.safe_load(text), lines


def _refuse_aliases(node: yaml.Node, path: Path) -> None:
    """A node that contains itself would never end; shared nodes are fine."""
    open_nodes: set[int] = set()

    def visit(item: yaml.Node) -> None:
        if id(item) in open_nodes:
            raise ConfigError(
                f"{path.name}, line {item.start_mark.line + 1}: refers to itself; break the cycle of anchors"
            )
        open_nodes.add(id(item))
        if isinstance(item, yaml.MappingNode):
            for key, value in item.value:
                visit(key)
                visit(value)
        elif isinstance(item, yaml.SequenceNode):
            for value in item.value:
                visit(value)
        open_nodes.discard(id(item))

    visit(node)


def _collect_lines(node: yaml.Node, location: Location, lines: dict[Location, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*location, str(key.value))
            if here in lines:
                raise ConfigError(
                    f"{path.name}, line {key.start_mark.line + 1}: key '{key.value}' stands twice "
                    f"(first on line {lines[here]}); keep one"
                )
            lines[here] = key.start_mark.line + 1
            _collect_lines(value, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = (*location, index)
            lines[here] = value.start_mark.line + 1
            _collect_lines(value, here, lines, path)


def validate(model: type[ConfigT], data: Any, source: str, lines: dict[Location, int] | None = None) -> ConfigT:
    """Turn plain data into a config of type `model`.

    `source` names the file (or 'the command line') in messages. Raises ConfigError whose first line is the
    first broken rule, e.g. `array.cols = 0: must be greater than or equal to 1; edge.yaml, line 14`; further
    broken rules follow on their own lines.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: holds {type(data).__name__}; it must hold a mapping of keys")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        messages = [_explain(model, item, source, lines or {}) for item in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(messages))) from error


def load(model: type[ConfigT], path: Path) -> ConfigT:
    """`load_yaml` and `validate` together."""
    data, lines = load_yaml(path)
    return validate(model, data, path.name, lines)


def _explain(model: type[BaseModel], item: Any, source: str, lines: dict[Location, int]) -> str:
    location = tuple(item["loc"])
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    line = _line_of(location, lines)
    where = f"{source}, line {line}" if line else source
    if item["type"] == "extra_forbidden":
        fields = _fields_at(model, location[:-1])
        return f"{name}: unknown key; {suggest(str(location[-1]), fields)}; {where}"
    if item["type"] == "missing":
        return f"{name}: missing; add this key; {where}"
    rule = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    rule = rule if rule.startswith("must") or item["type"] == "value_error" else f"must be {rule}"
    value = item["input"]
    if not name:
        return f"{rule}; {where}"
    shown = "" if isinstance(value, dict | list) else f" = {value!r}"
    return f"{name}{shown}: {rule}; {where}"


def _line_of(location: Location, lines: dict[Location, int]) -> int | None:
    for end in range(len(location), -1, -1):
        if location[:end] in lines:
            return lines[location[:end]]
    return None


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """The field names of the nested model that `location` points to."""
    current: type[BaseModel] = model
    for part in location:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part)
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            return []
        current = inner
    return list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
