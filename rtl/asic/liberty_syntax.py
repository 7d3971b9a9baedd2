"""The syntax of a Liberty file: groups, simple attributes and complex attributes, nothing more.

Liberty is three statements: `name (args) { ... }`, `name : value;` and `name (args);`. One compiled pattern
reads them in order, so that the 6.7 MB Nangate45 file takes well under two seconds; `liberty.py` gives the
groups their meaning. Source: Liberty User Guide, volume 1, "Syntax of a Technology Library".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bitwright.arch.errors import ConfigError

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STATEMENT = re.compile(
    r"""\s*(?:
        (?P<close>\})\s*;?
      | (?P<name>[A-Za-z_][\w]*)\s*(?:
            :\s*(?P<value>"[^"]*"|[^;}\n"]*)\s*;?
          | \(\s*(?P<args>(?:[^()"]|"[^"]*")*)\)\s*(?P<open>\{)?\s*;?
        )
    )""",
    re.VERBOSE,
)


@dataclass
class Group:
    """One Liberty group.

    kind : str                       What stands before the bracket: `cell`, `pin`, `timing`, ...
    args : str                       The text between the round brackets, quotes and blanks removed.
    values : dict[str, str]          Simple attributes; quotes removed. The last one of a name wins.
    lists : list[tuple[str, str]]    Complex attributes in order: name and the raw text of the arguments.
    groups : list[Group]             Groups inside, in order.
    """

    kind: str
    args: str
    values: dict[str, str] = field(default_factory=dict)
    lists: list[tuple[str, str]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def of_kind(self, kind: str) -> Iterator[Group]:
        """The groups of one kind directly inside this one, in order."""
        return (group for group in self.groups if group.kind == kind)

    def first(self, kind: str) -> Group | None:
        """The first group of one kind directly inside this one, or None."""
        return next(self.of_kind(kind), None)

    def listed(self, name: str) -> str | None:
        """The raw argument text of the first complex attribute of that name, or None."""
        return next((text for key, text in self.lists if key == name), None)


def parse_groups(text: str, where: str) -> Group:
    """Read a whole Liberty text and return its `library` group.

    `where` names the file in messages. Raises ConfigError for a statement that is not Liberty (with its line),
    for unbalanced brackets, and for a text without a library group.
    """
    source = _COMMENT.sub(lambda found: "\n" * found.group().count("\n"), text).replace("\\\n", " \n")
    root = Group("file", "")
    stack = [root]
    position = 0
    end = len(source.rstrip())
    match = _STATEMENT.match
    while position < end:
        found = match(source, position)
        if found is None:
            line = source.count("\n", 0, position + len(source[position:]) - len(source[position:].lstrip())) + 1
            raise ConfigError(f"{where}: not a Liberty statement; line {line}")
        position = found.end()
        name = found.group("name")
        if name is None:
            if len(stack) == 1:
                line = source.count("\n", 0, position) + 1
                raise ConfigError(f"{where}: a closing bracket without an opening one; line {line}")
            stack.pop()
        elif (value := found.group("value")) is not None:
            stack[-1].values[name] = value.strip().strip('"')
        elif found.group("open"):
            group = Group(name, found.group("args").strip().replace('"', ""))
            stack[-1].groups.append(group)
            stack.append(group)
        else:
            stack[-1].lists.append((name, found.group("args")))
    if len(stack) != 1:
        raise ConfigError(f"{where}: group {stack[-1].kind}({stack[-1].args}) is not closed at the end of the file")
    library = root.first("library")
    if library is None:
        raise ConfigError(f"{where}: no library group: is this a Liberty file?")
    return library
