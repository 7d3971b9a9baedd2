"""Strict YAML configs: frozen pydantic models, and errors that name the key, the value, the rule and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import yaml
from bitwright.arch.errors import ConfigError, shown, suggest
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator


class Config(BaseModel):
    """Base of every config: frozen; an unknown key is an error, and true, NaN and infinity are no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _leaves(cls.model_fields[str(info.field_name)].annotation)
        if bool not in kinds and kinds & {int, float}:
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, bool):
                    raise ValueError(f"must be a number, not {str(item).lower()}")
        return value


def _leaves(annotation: Any) -> set[Any]:
    """The types in an annotation: of `tuple[int, ...] | None`, int and None."""
    inner = get_args(annotation)
    return set().union(*map(_leaves, inner)) if inner else ({annotation} if isinstance(annotation, type) else set())


ConfigT = TypeVar("ConfigT", bound=Config)
Location = tuple[str | int, ...]

LARGEST_BYTES = 1 << 16  # of a config file: PyYAML needs a second for it
_MOST_LEVELS = 40
_MOST_VALUES = 100_000  # after anchors are expanded: a few lines of them can stand for 10**30 values
_MOST_MESSAGES = 10
_TAG = "tag:yaml.org,2002:"
_RULES = {
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must hold at least one item",
}
"""Rules in YAML's words, where pydantic's are Python's."""
_PLAIN_TAGS = frozenset(_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map"))


def load_yaml(path: Path) -> tuple[Any, dict[Location, int]]:
    """Read a YAML file as plain data, with the line (from 1) of every key and item.

    Plain means null, bool, int, float, text, lists, and mappings whose keys are text; anchors and merge keys work.
    Raises ConfigError when the file cannot be read, is not YAML, is longer than 65,536 bytes, holds the same key twice,
    another kind of value, more than 40 levels, or more than 100,000 values once its anchors are expanded.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise ConfigError(f"{path}: {size} bytes: must be at most {LARGEST_BYTES}; give the path of a YAML file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text; give the path of a YAML file") from error
    try:
        loader = _Loader(text, path)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _not_yaml(error, path) from error
    if node is None:
        raise ConfigError(f"{path.name}: is empty; it must hold a mapping of keys")
    lines: dict[Location, int] = {(): node.start_mark.line + 1}
    _Walk(path, loader).visit(node)
    _collect_lines(node, (), lines, path)
    try:
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:  # a merge key whose value is no mapping
        raise _not_yaml(error, path) from error


def _not_yaml(error: yaml.YAMLError, path: Path) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "syntax error"
    return ConfigError(f"{path.name}{line}: is not valid YAML ({shown(problem, quote=False)})")


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which needs a time that grows with the square of the nesting, stopped at a depth."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path, self.level = path, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As in yaml.composer; ConfigError for the level after the last one."""
        if self.level == _MOST_LEVELS:
            parser: Any = self  # PyYAML's parser has no types
            line = parser.peek_event().start_mark.line + 1
            raise ConfigError(f"{self.path.name}, line {line}: has more than {_MOST_LEVELS} levels; make it flatter")
        self.level += 1
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


class _Walk:
    """Visits every node once and refuses what cannot become plain data of a bounded size."""

    def __init__(self, path: Path, loader: _Loader) -> None:
        self.path, self.loader = path, loader
        self.sizes: dict[int, tuple[int, int]] = {}  # node -> values and levels, anchors expanded
        self.open_nodes: set[int] = set()

    def refuse(self, node: yaml.Node, what: str) -> NoReturn:
        raise ConfigError(f"{self.path.name}, line {node.start_mark.line + 1}: {what}")

    def visit(self, node: yaml.Node) -> tuple[int, int]:
        """Number of values and of levels below and with `node`."""
        if id(node) in self.sizes:
            return self.sizes[id(node)]
        if id(node) in self.open_nodes:
            self.refuse(node, "refers to itself; break the cycle of anchors")
        self.open_nodes.add(id(node))
        values, levels = 1, 1
        for child in self._children(node):
            inside = self.visit(child)
            values, levels = values + inside[0], max(levels, inside[1] + 1)
        if levels > _MOST_LEVELS:
            self.refuse(node, f"has more than {_MOST_LEVELS} levels; make it flatter")
        if values > _MOST_VALUES:
            self.refuse(node, f"holds more than {_MOST_VALUES} values once its anchors are expanded; use fewer")
        self.open_nodes.discard(id(node))
        self.sizes[id(node)] = values, levels
        return values, levels

    def _children(self, node: yaml.Node) -> list[yaml.Node]:
        if node.tag not in _PLAIN_TAGS:
            kind = shown(node.tag.removeprefix(_TAG), quote=False)
            self.refuse(node, f"is read as YAML's {kind}: must be plain data (put text in quotes)")
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                    what = shown(key.value) if isinstance(key, yaml.ScalarNode) else "of several values"
                    self.refuse(key, f"key {what} must be text (put it in quotes)")
            return [item for pair in node.value for item in pair if item.tag != f"{_TAG}merge"]
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        try:
            self.loader.construct_object(node)
        except (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError):
            self.refuse(node, f"{shown(node.value)} is no {node.tag.removeprefix(_TAG)}")
        return []


def _collect_lines(node: yaml.Node, location: Location, lines: dict[Location, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*location, str(key.value))
            if here in lines:
                raise ConfigError(
                    f"{path.name}, line {key.start_mark.line + 1}: key {shown(key.value)} stands twice "
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
    first broken rule, e.g. `array.cols = 0: must be greater than or equal to 1; edge.yaml, line 14`; up to 9 further
    broken rules follow on their own lines.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: holds {type(data).__name__}; it must hold a mapping of keys")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        items = _causes(error.errors(include_url=False))
        messages = [_explain(model, item, source, lines or {}) for item in items[:_MOST_MESSAGES]]
        if len(items) > _MOST_MESSAGES:
            messages.append(f"and {len(items) - _MOST_MESSAGES} more; {source}")
        raise ConfigError("\n".join(dict.fromkeys(messages))) from error


def _causes(items: list[Any]) -> list[Any]:
    """Broken rules without those that only follow: a list is too short for pydantic when its items are refused."""
    deeper = {item["loc"][:end] for item in items for end in range(len(item["loc"]))}
    return [item for item in items if item["type"] != "too_short" or item["loc"] not in deeper]


def load(model: type[ConfigT], path: Path) -> ConfigT:
    """`load_yaml` and `validate` together."""
    data, lines = load_yaml(path)
    return validate(model, data, path.name, lines)


def _explain(model: type[BaseModel], item: Any, source: str, lines: dict[Location, int]) -> str:
    location = tuple(item["loc"])
    names = (f"[{part}]" if isinstance(part, int) else f".{shown(part, quote=False)}" for part in location)
    name = "".join(names).removeprefix(".")
    line = _line_of(location, lines)
    where = f"{source}, line {line}" if line else source
    if item["type"] == "extra_forbidden":
        fields = _fields_at(model, location[:-1])
        return f"{name}: unknown key; {suggest(str(location[-1]), fields)}; {where}"
    if item["type"] == "missing":
        return f"{name}: missing; add this key; {where}"
    rule = _RULES.get(item["type"], item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    rule = rule if rule.startswith("must") or item["type"] == "value_error" else f"must be {rule}"
    value = item["input"]
    if not name:
        return f"{rule}; {where}"
    given = "" if isinstance(value, dict | list) else f" = {shown(value)}"
    return f"{name}{given}: {rule}; {where}"


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
