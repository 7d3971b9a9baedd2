"""The formats by name: those built in, those registered in this process, those of installed packages.

A package adds formats by entry points of the group "bitwright.formats": the entry point's name is the
format's name, its object is the format, or a function without arguments that returns it. An entry point is
loaded when its name is first asked for; listing names loads none. See docs/formats.md.

`path/to/file.py:NAME` is the format, or function or class without arguments that makes one, called NAME in a Python
file; its own name is what its codes carry. However the path is written, one file and NAME is loaded once.

A format's own name is lower-case letters, digits and _, and nobody else's.

`name:option=value,...` is a variant of a format: the same with another scale format, rule or rounding, such as
"mxfp4:scale_rule=rceil" or "int4:scale=e8m0". Options are in alphabetical order, and a default is left out, so that
a variant has one name. A format with variants has `options` (choices by name) and `with_options`; see options.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from bitwright.arch.errors import FormatError, shown, suggest
from bitwright.arch.formats.afpq import AFPQ_FORMATS
from bitwright.arch.formats.base import Format
from bitwright.arch.formats.bfp import BFP_FORMATS
from bitwright.arch.formats.bipolar import BIPOLAR_FORMATS, NESTED_FORMATS
from bitwright.arch.formats.bitmod import BITMOD_FORMATS
from bitwright.arch.formats.codebook import KMEANS_FORMATS
from bitwright.arch.formats.flint import FLINT_FORMATS
from bitwright.arch.formats.floats import BF16, FP16
from bitwright.arch.formats.gguf_blocks import GGUF_FORMATS
from bitwright.arch.formats.integer import AsymmetricInt, SymmetricInt
from bitwright.arch.formats.minifloats import MINIFLOAT_FORMATS
from bitwright.arch.formats.mx import MX_FORMATS
from bitwright.arch.formats.normalfloat import NORMAL_FLOAT_FORMATS
from bitwright.arch.formats.nv import NV_FORMATS
from bitwright.arch.formats.olive import OLIVE_FORMATS
from bitwright.arch.formats.ordered import ORDERED_FORMATS
from bitwright.arch.formats.posit import POSIT_FORMATS
from bitwright.arch.formats.powers import POWER_FORMATS
from bitwright.arch.formats.sparse import DENSE_AND_SPARSE_FORMATS
from bitwright.arch.formats.ternary import TERNARY

ENTRY_POINT_GROUP = "bitwright.formats"

_formats: dict[str, Format] = {}
_from_files: dict[tuple[Path, str], Format] = {}  # by resolved path and member
_NAME = re.compile(r"[a-z0-9_]+")


def get(name: str) -> Format:
    """The format of this name; FormatError with the closest name if there is none."""
    if not isinstance(name, str):
        raise FormatError(f"format = {shown(name)}: must be a name, a str")
    if name in _formats:
        return _formats[name]
    if ".py:" in name:
        return _from_file(name)
    if name.partition(":")[0] and ":" in name:
        return _variant(name)
    point = _outside().get(name)
    if point is None:
        text = shown(name, quote=False)
        raise FormatError(f"format = {text}: not a known format; {suggest(name, names())}")
    _formats[name] = _load(point)
    return _formats[name]


def base_name(name: str) -> str:
    """The name of a format without its options: "mxfp4" of "mxfp4:scale_rule=rceil"."""
    return name.partition(":")[0]


def is_built_in(name: str) -> bool:
    """Whether the name, or what it is a variant of, is one of bitwright's own formats."""
    return base_name(name) in _BUILT_IN


def _from_file(name: str) -> Format:
    """The format `NAME` of `file.py:NAME`; FormatError when the file, the name or the object is not as it must be."""
    stem, _, member = name.partition(".py:")
    path = Path(f"{stem}.py")
    if ":" in member:
        raise FormatError(f"format = {name}: a format in a file takes no options here (call with_options in the file)")
    if not path.is_file():
        raise FormatError(f"format = {name}: {path}: no such file (write path/to/file.py:NAME)")
    key = (path.resolve(), member)
    if key not in _from_files:
        try:
            loaded = _made(getattr(_module(key[0]), member))
        except Exception as error:  # whatever a foreign file raises
            sys.modules.pop(_module_name(key[0]), None)
            raise FormatError(
                f"format = {name}: cannot be loaded ({type(error).__name__}: {error}); correct {path}"
            ) from error
        _from_files[key] = _check_own(loaded, name)
    fmt = _from_files[key]
    if _formats.get(fmt.name, fmt) is not fmt or fmt.name in _outside():
        raise FormatError(f"format = {fmt.name}: the name is taken (choose another); {name}")
    _formats[fmt.name] = fmt
    return fmt


def _module_name(path: Path) -> str:
    return f"bitwright_format_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def _module(path: Path) -> ModuleType:
    """The module of a file, loaded once."""
    name = _module_name(path)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, "a .py file has a loader"
        assert spec.loader is not None, "a .py file has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _made(loaded: object) -> object:
    """The object, or what it makes: a class is called also where its attributes look like a format's members."""
    if isinstance(loaded, type) or (callable(loaded) and not isinstance(loaded, Format)):
        made: object = loaded()
        return made
    return loaded


@cache
def _variant(name: str) -> Format:
    """The variant that `name:option=value,...` describes; FormatError for a bad name, option or choice."""
    stem, _, text = name.partition(":")
    base = get(stem)
    if not (getattr(base, "options", None) and hasattr(base, "with_options")):
        raise FormatError(f"format = {name}: {stem} has no options (write {stem})")
    chosen = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        if not equals or key in chosen:
            raise FormatError(f"format = {name}: must be {stem}:option=value,option=value")
        chosen[key] = value
    variant = base.with_options(**chosen)
    if variant.name != name:
        raise FormatError(
            f"format = {name}: is {variant.name} (write that: options in alphabetical order, no defaults)"
        )
    return _check(variant, "formats.get")


def names() -> tuple[str, ...]:
    """All names: built in and registered first, in that order, then those of installed packages, sorted."""
    return (*_formats, *(name for name in sorted(_outside()) if name not in _formats))


def register(fmt: Format) -> Format:
    """Add a format to this process and return it; FormatError if the name is taken or it is not a Format."""
    _check_own(fmt, "formats.register")
    if fmt.name in _formats or fmt.name in _outside():
        raise FormatError(f"format = {fmt.name}: the name is taken (choose another); formats.register")
    _formats[fmt.name] = fmt
    return fmt


@cache
def _outside() -> dict[str, EntryPoint]:
    """Entry points by name; FormatError if two packages, or a package and bitwright, claim one name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found or point.name in _BUILT_IN:
            owner = found[point.name].value if point.name in found else "bitwright"
            raise FormatError(
                f"entry point = {point.name}: the name is taken by {owner} "
                f"(rename or uninstall one); {ENTRY_POINT_GROUP}, {point.value}"
            )
        found[point.name] = point
    return found


def _load(point: EntryPoint) -> Format:
    where = f"entry point {ENTRY_POINT_GROUP}, {point.value}"
    try:
        loaded = _made(point.load())
    except Exception as error:  # whatever a foreign package raises when imported
        raise FormatError(
            f"format = {point.name}: cannot be loaded ({type(error).__name__}: {error}); "
            f"correct or uninstall its package; {where}"
        ) from error
    fmt = _check_own(loaded, where)
    if fmt.name != point.name:
        raise FormatError(f"format = {fmt.name}: must be {point.name}, the name of its entry point; {where}")
    return fmt


def _check_own(fmt: object, where: str) -> Format:
    """A format from outside: its members and its name."""
    found = _check(fmt, where)
    if not (isinstance(found.name, str) and _NAME.fullmatch(found.name)):
        raise FormatError(
            f"format = {shown(found.name, quote=False)}: its name must be lower-case letters, digits and _; {where}"
        )
    return found


def _check(fmt: object, where: str) -> Format:
    if isinstance(fmt, Format):
        return fmt
    members = {name: member for name, member in vars(Format).items() if not name.startswith("_")}
    methods = {name for name, member in members.items() if callable(member)}
    missing = sorted(
        name for name in members if not hasattr(fmt, name) or (name in methods and getattr(fmt, name) is None)
    )
    raise FormatError(f"format = {fmt!r}: not a Format, it lacks {', '.join(missing)}; {where}")


_built_in: tuple[Format, ...] = (
    FP16,
    BF16,
    *(SymmetricInt(bits) for bits in range(2, 9)),
    *(AsymmetricInt(bits) for bits in range(2, 9)),
    *ORDERED_FORMATS,
    *BIPOLAR_FORMATS,
    *NESTED_FORMATS,
    TERNARY,
    *MINIFLOAT_FORMATS,
    *AFPQ_FORMATS,
    *POSIT_FORMATS,
    *MX_FORMATS,
    *NV_FORMATS,
    *BFP_FORMATS,
    *FLINT_FORMATS,
    *BITMOD_FORMATS,
    *OLIVE_FORMATS,
    *POWER_FORMATS,
    *NORMAL_FLOAT_FORMATS,
    *KMEANS_FORMATS,
    *DENSE_AND_SPARSE_FORMATS,
    *GGUF_FORMATS,
)
_formats.update({fmt.name: fmt for fmt in _built_in})
_BUILT_IN = frozenset(_formats)
