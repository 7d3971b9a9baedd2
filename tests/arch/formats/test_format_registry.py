"""Names, outside formats, and every error message of the format room, whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import FormatError
from bitwright.arch.formats import registry
from bitwright.arch.formats.integer import SymmetricInt
from numpy.typing import NDArray

BUILT_IN = [
    "fp16",
    "bf16",
    *(f"int{bits}" for bits in range(2, 9)),
    *(f"int{bits}_asym" for bits in range(2, 9)),
    *(f"int{bits}_asym_ordered" for bits in (2, 3, 4, 8)),
    *(f"bipolar_int{bits}" for bits in range(2, 9)),
    *(f"nested{bits}" for bits in range(2, 9)),
    "ternary",
    "fp4_e2m1",
    "fp3_e2m0",
    *(
        f"fp{bits}_e{exponent}m{bits - 1 - exponent}"
        for bits in range(3, 9)
        for exponent in range(1, bits)
        if (bits, exponent) not in ((4, 2), (3, 2))
    ),
    *("afpq_fp4", "afpq_fp3"),
    *("posit8_es0", "posit8_es1", "posit8_es2", "posit16_es1", "posit16_es2"),
    *("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8", "mxint6", "mxint4"),
    *("nvfp4", "nvint4"),
    *(f"bfp{bits}" for bits in range(3, 17)),
    *("flint4", "flint5", "flint6", "flint4_unsigned", "ant4", "ant5", "ant6"),
    *("bitmod_fp4", "bitmod_fp3", "bitmod_fp4_er", "bitmod_fp4_ea", "bitmod_fp3_er", "bitmod_fp3_ea"),
    *("ovp4", "ovp8", "ovp4_flint"),
    *("pot3", "pot4", "pot5", "pot6", "denseshift2", "denseshift3", "denseshift4"),
    *("sp2_4", "sp2_5", "sp2_6", "sp2_7", "sp2_8"),
    "nf4",
    *("kmeans3", "kmeans4", "dns_int4", "dns_int3", "dns_kmeans4", "dns_kmeans3"),
    *(f"gguf_{name}" for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")),
    *(f"gguf_{name}" for name in ("tq1_0", "tq2_0", "mxfp4", "nvfp4", "iq4_nl", "iq4_xs")),
]
KNOWN = f"{len(BUILT_IN)} names are known"


def f32(values: object) -> NDArray[np.float32]:
    """values as a float32 array."""
    return np.array(values, np.float32)


def message_of(call: object, *args: object, **kwargs: object) -> str:
    """The whole text of the FormatError that call raises."""
    with pytest.raises(FormatError) as error:
        call(*args, **kwargs)  # type: ignore[operator]
    return str(error.value)


class Int9(SymmetricInt):
    """A format from outside: int8 under another name."""

    def __init__(self, name: str = "int9") -> None:
        super().__init__(8)
        self.name = name


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Restores names and forgets entry points after the test."""
    monkeypatch.setattr(registry, "_formats", dict(registry._formats))
    registry._outside.cache_clear()
    yield monkeypatch
    registry._outside.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Pretend that installed packages have these entry points (name, object)."""
    found = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in points]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


# names


def test_names_lists_the_built_in_formats_in_order() -> None:
    assert list(formats.names()) == BUILT_IN


def test_every_format_tells_what_list_formats_shows() -> None:
    for name in formats.names():
        fmt = formats.get(name)
        assert isinstance(fmt, formats.Format)
        assert fmt.name == name
        assert repr(fmt) == f"<format {name}>"
        assert fmt.family
        assert fmt.block >= 1
        assert fmt.source
        assert fmt.scale_rule
        values = fmt.values()
        assert values.dtype == np.float32
        assert (np.diff(values) > 0).all()
        assert (values[0], values[-1]) == (fmt.min_value, fmt.max_value)
        if "kmeans" not in name:  # codes mean nothing without a learnt codebook
            assert fmt.code_values().shape == (2**fmt.bits,)
        without_zero = ("bipolar_int", "nested", "denseshift", "gguf_iq4", "gguf_tq")
        assert (0.0 in values) or name.startswith(without_zero), name


def test_the_docs_list_has_exactly_these_names() -> None:
    page = Path(__file__).parents[3] / "docs" / "format-list.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    listed = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert sorted(listed) == sorted(BUILT_IN)


def test_importing_formats_loads_no_heavy_library() -> None:
    code = "import sys, bitwright.arch.formats; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ml_dtypes", "pandas", "plotly", "amaranth", "simpy", "gguf", "pydantic"} & set(loaded)


# outside formats


def test_a_registered_format_is_found_by_name(clean_registry: pytest.MonkeyPatch) -> None:
    fmt = Int9()
    assert formats.register(fmt) is fmt
    assert formats.get("int9") is fmt
    assert formats.names()[-1] == "int9"


def test_an_entry_point_loads_when_its_name_is_asked_for(clean_registry: pytest.MonkeyPatch) -> None:
    module = "bitwright_test_plugin"
    plugin = type(sys)(module)
    plugin.make = lambda: Int9("plug_a")  # type: ignore[attr-defined]
    plugin.fmt = Int9("plug_b")  # type: ignore[attr-defined]
    install(clean_registry, ("plug_a", f"{module}:make"), ("plug_b", f"{module}:fmt"))
    assert formats.names()[-2:] == ("plug_a", "plug_b")  # the module does not exist yet: nothing was loaded
    clean_registry.setitem(sys.modules, module, plugin)
    assert formats.get("plug_a").name == "plug_a"
    assert formats.get("plug_a") is formats.get("plug_a")
    assert formats.get("plug_b") is plugin.fmt


# errors: names


def test_unknown_names_suggest_the_closest() -> None:
    assert message_of(formats.get, "int44") == (f"format = int44: not a known format; did you mean 'int4'? ({KNOWN})")
    assert message_of(formats.get, "zzz") == f"format = zzz: not a known format; {KNOWN}"


def test_a_taken_name_is_refused(clean_registry: pytest.MonkeyPatch) -> None:
    expected = "format = int4: the name is taken (choose another); formats.register"
    assert message_of(formats.register, Int9("int4")) == expected


def test_an_entry_point_may_not_take_a_name(clean_registry: pytest.MonkeyPatch) -> None:
    install(clean_registry, ("int4", "a:b"))
    assert message_of(formats.names) == (
        "entry point = int4: the name is taken by bitwright (rename or uninstall one); bitwright.formats, a:b"
    )
    assert formats.get("int4").bits == 4  # the built-in formats still work
    install(clean_registry, ("mine", "a:b"), ("mine", "c:d"))
    assert message_of(formats.get, "mine") == (
        "entry point = mine: the name is taken by a:b (rename or uninstall one); bitwright.formats, c:d"
    )


def test_an_entry_point_must_give_a_format_of_its_name(clean_registry: pytest.MonkeyPatch) -> None:
    module = "bitwright_test_plugin"
    plugin = type(sys)(module)
    plugin.fmt = Int9("other")  # type: ignore[attr-defined]
    plugin.number = 3  # type: ignore[attr-defined]
    clean_registry.setitem(sys.modules, module, plugin)
    install(clean_registry, ("plug", f"{module}:fmt"), ("three", f"{module}:number"))
    assert message_of(formats.get, "plug") == (
        "format = other: must be plug, the name of its entry point; "
        "entry point bitwright.formats, bitwright_test_plugin:fmt"
    )
    assert message_of(formats.get, "three") == (
        "format = 3: not a Format, it lacks bits, block, code_values, decode, default_group, default_scale_format, "
        "encode, family, fixed_group, integer_step, integers, max_value, min_value, name, scale_rule, selector_bits, "
        "source, storage_bits, values, zero_bits; entry point bitwright.formats, bitwright_test_plugin:number"
    )


# errors: values


@pytest.mark.parametrize("name", ["int4", "int4_asym", "fp4_e2m1", "bitmod_fp3", "fp16", "bf16"])
@pytest.mark.parametrize(("bad", "text"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_the_first_value_that_is_not_finite_is_named(name: str, bad: float, text: str) -> None:
    values = np.zeros((2, 3, 10), np.float32)
    values[1, 0, 7] = bad
    values[1, 2, 0] = np.nan
    assert message_of(formats.get(name).encode, values, group=4) == (
        f"values[1, 0, 7] = {text}: must be finite (replace NaN and infinity before encoding); {name}.encode"
    )


@pytest.mark.parametrize("name", ["int4", "bitmod_fp4", "bf16"])
def test_group_shape_and_dtype_rules(name: str) -> None:
    fmt = formats.get(name)
    ones = np.ones((2, 4), np.float32)
    for bad in (0, -3, 2.0, True):
        rule = f"group = {bad}: must be None (one group a row), 'tensor' or an int >= 1; {name}"
        assert message_of(fmt.encode, ones, group=bad) == f"{rule}.encode"
        assert message_of(fmt.storage_bits, (2, 4), bad) == f"{rule}.storage_bits"
    assert message_of(fmt.encode, np.empty((3, 0), np.float32)) == (
        f"values.shape = (3, 0): the last axis must not be empty (it holds the groups); {name}.encode"
    )
    assert message_of(fmt.encode, f32(1)) == (
        f"values.shape = (): must have at least one axis (reshape to (1,)); {name}.encode"
    )
    assert message_of(fmt.encode, np.ones(4)) == (
        "values.dtype = float64: must convert to float32 without loss "
        f"(round it first with .astype(np.float32)); {name}.encode"
    )


def test_unknown_scale_formats_suggest_the_closest() -> None:
    known = "(known: e4m3, e8m0, fp16, fp32, int8, none)"
    rule = f"scale_format = fp61: not a scale format; did you mean 'fp16'? {known}; int4"
    assert message_of(formats.get("int4").encode, np.ones(4, np.float32), scale_format="fp61") == f"{rule}.encode"
    assert message_of(formats.get("int4").storage_bits, (4,), None, "fp61") == f"{rule}.storage_bits"


def test_scales_beyond_the_scale_format_are_refused_and_the_limit_accepted() -> None:
    values = np.zeros((2, 3, 10), np.float32)
    values[1, 2, 9] = -1e6
    assert message_of(formats.get("int4").encode, values, group=4) == (
        "scale = 142857: fp16 scales reach 65504 (use scale_format='fp32' or smaller values); "
        "values[1, 2, 8:10], int4.encode"
    )
    assert message_of(formats.get("bitmod_fp3").encode, values[1, 2]) == (
        "scale = 250000: fp16 scales reach 65504 (use scale_format='fp32' or smaller values); "
        "values[0:10], bitmod_fp3.encode"
    )
    assert message_of(formats.get("int4").encode, values * np.float32(1e30), scale_format="fp32") == (
        "scale = 1.42857e+35: fp32 scales reach 1.26765e+30 (use smaller values); values[1, 2, 0:10], int4.encode"
    )
    limit = f32([7 * 65504.0, 0])
    for name in ("int4", "int2_asym"):
        fmt = formats.get(name)
        top = limit if name == "int4" else limit / 7 * 3
        assert fmt.decode(fmt.encode(top)).tolist() == top.tolist()


def test_codes_of_another_format_or_out_of_range_are_refused() -> None:
    fmt = formats.get("bitmod_fp3")
    good = fmt.encode(np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6), group=4)
    for method in ("decode", "integers"):
        where = f"bitmod_fp3.{method}"
        call = getattr(fmt, method)
        assert message_of(call, replace(good, format="int4")) == (
            f"encoded.format = int4: must be bitmod_fp3 (use formats.get('int4')); {where}"
        )
        assert message_of(call, replace(good, codes=good.codes | np.uint8(8))) == (
            f"encoded.codes: largest is {int((good.codes | 8).max())}, must be below 8 (3 bits); {where}"
        )
        assert good.selectors is not None
        assert message_of(call, replace(good, selectors=good.selectors | np.uint8(4))) == (
            f"encoded.selectors: largest is {int((good.selectors | 4).max())}, must be below 4; {where}"
        )
        assert message_of(call, replace(good, scales=None)) == (
            f"encoded.scales.shape = None: must be (2, 2), one a group; {where}"
        )
        assert message_of(call, replace(good, group=2)) == (
            f"encoded.scales.shape = (2, 2): must be (2, 3), one a group; {where}"
        )


def test_selectors_and_zeros_of_a_code_table_are_checked() -> None:
    assert (
        message_of(formats.get("bitmod_fp3").code_values, 4) == "selector = 4: must be in 0..3; bitmod_fp3.code_values"
    )
    assert (
        message_of(formats.get("int4_asym").code_values, zero=16)
        == "zero = 16: must be in 0..15; int4_asym.code_values"
    )
    assert message_of(formats.get("int4").code_values, zero=1) == "zero = 1: must be in 0..0; int4.code_values"


def test_encode_codes_wants_the_shape_of_its_model() -> None:
    fmt = formats.get("int4")
    like = fmt.encode(np.ones((2, 4), np.float32))
    assert message_of(fmt.encode_codes, np.ones((4, 2), np.float32), like) == (  # type: ignore[attr-defined]
        "values.shape = (4, 2): must be (2, 4), as like.codes; int4.encode_codes"
    )
    bad = f32([[0, 0, 0, 0], [0, np.nan, 0, 0]])
    assert message_of(fmt.encode_codes, bad, like) == (  # type: ignore[attr-defined]
        "values[1, 1] = nan: must be finite (replace NaN and infinity before encoding); int4.encode_codes"
    )


def test_negative_codes_zeros_out_of_range_and_codes_of_another_type_are_refused() -> None:
    fmt = formats.get("int4_asym")
    good = fmt.encode(np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6), group=4)
    assert good.zeros is not None
    for bad, text in (
        (replace(good, codes=good.codes.astype(np.int16) - 16), "codes: least is -16, must be 0 or more"),
        (replace(good, codes=good.codes.astype(np.float32)), "codes.dtype = float32: must be an integer type"),
        (replace(good, zeros=good.zeros | np.uint8(16)), "zeros: largest is 31, must be below 16"),
    ):
        assert message_of(fmt.decode, bad) == f"encoded.{text}; int4_asym.decode"
    half = formats.get("fp16")
    stored = half.encode(f32([1, 2]))
    assert message_of(half.decode, replace(stored, codes=np.array([-1]))) == (
        "encoded.codes: least is -1, must be 0 or more; fp16.decode"
    )


# formats in a file, variants


FILE = """
from bitwright.arch.formats.integer import SymmetricInt

class Mine(SymmetricInt):
    def __init__(self):
        super().__init__(3)
        self.name = "mine3"

MINE = Mine()
NOT_ONE = 3
"""


def test_a_format_in_a_file_is_found_by_path_and_name(clean_registry: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    fmt = formats.get(f"{path}:MINE")
    assert fmt.name == "mine3"
    assert formats.get("mine3") is fmt
    assert fmt.encode(f32([3, -1, 0])).codes.tolist() == [3, 7, 0]
    assert message_of(formats.get, f"{path}:NOT_ONE").startswith("format = 3: not a Format, it lacks ")
    assert message_of(formats.get, f"{path}:ABSENT") == (
        f"format = {path}:ABSENT: cannot be loaded (AttributeError: module "
        f"'{type(fmt).__module__}' has no attribute 'ABSENT'); correct {path}"
    )
    missing = tmp_path / "none.py"
    assert message_of(formats.get, f"{missing}:MINE") == (
        f"format = {missing}:MINE: {missing}: no such file (write path/to/file.py:NAME)"
    )


def test_one_file_is_loaded_once_however_its_path_is_written(
    clean_registry: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.py").write_text(FILE.replace("mine3", "mine_in_other"))
    clean_registry.chdir(tmp_path)
    fmt = formats.get("other.py:MINE")
    for path in ("./other.py", "folder/../other.py", str(tmp_path / "other.py")):
        assert formats.get(f"{path}:MINE") is fmt
    assert message_of(formats.get, "other.py:Mine") == (
        "format = mine_in_other: the name is taken (choose another); other.py:Mine"
    )
    assert message_of(formats.get, "other.py:MINE:scale=e8m0") == (
        "format = other.py:MINE:scale=e8m0: a format in a file takes no options here (call with_options in the file)"
    )


def test_a_class_is_called_also_where_its_attributes_look_like_a_format(
    clean_registry: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    members = sorted(member for member in vars(formats.Format) if not member.startswith("_"))
    text = "\n".join(f"    {member} = print" for member in members if member != "name")
    (tmp_path / "klass.py").write_text(f"class Klass:\n    name = 'klass'\n{text}\n")
    fmt = formats.get(f"{tmp_path}/klass.py:Klass")
    assert not isinstance(fmt, type)
    assert fmt.name == "klass"


def test_names_of_formats_from_outside_are_plain_and_free(clean_registry: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for bad in ("Int9", "a b", "a:b", "", "x.py"):
        text = bad or "''"
        assert message_of(formats.register, Int9(bad)) == (
            f"format = {text}: its name must be lower-case letters, digits and _; formats.register"
        )
    install(clean_registry, ("mine_of_a_package", "a:b"))
    registry._outside.cache_clear()
    (tmp_path / "taken.py").write_text(FILE.replace("mine3", "mine_of_a_package"))
    path = f"{tmp_path}/taken.py:MINE"
    assert message_of(formats.get, path) == (f"format = mine_of_a_package: the name is taken (choose another); {path}")


@pytest.mark.parametrize("bad", [[], None, 3, b"int4"])
def test_a_name_is_a_string(bad: object) -> None:
    assert message_of(formats.get, bad) == f"format = {bad!r}: must be a name, a str"


def test_a_name_without_a_stem_is_unknown() -> None:
    assert message_of(formats.get, ":").startswith("format = :: not a known format; ")
    assert message_of(formats.get, "").startswith("format = '': not a known format; ")


def test_a_variant_differs_in_its_option_and_name_only() -> None:
    plain, variant = formats.get("int4"), formats.get("int4:scale=e8m0,scale_rule=rceil")
    assert variant is formats.get("int4:scale=e8m0,scale_rule=rceil")
    assert (variant.name, variant.bits, variant.default_scale_format) == ("int4:scale=e8m0,scale_rule=rceil", 4, "e8m0")
    assert plain.default_scale_format == "fp16"
    encoded = variant.encode(f32([7.5, -3, 0.25]))
    assert (encoded.format, encoded.scale_codes.tolist()) == (variant.name, [128])  # type: ignore[union-attr]
    assert variant.decode(encoded).tolist() == [8.0, -4.0, 0.0]
    lower = formats.get("fp4_e2m1:ties=lower")
    assert lower.decode(lower.encode(f32([6, 2.5, -2.5]))).tolist() == [6.0, 2.0, -3.0]


def test_bad_variants_are_refused() -> None:
    assert message_of(formats.get, "int4:scale=fp61") == (
        "int4: scale = fp61: no such choice; did you mean 'fp16'? (known: e4m3, e8m0, fp16, fp32, int8, none)"
    )
    assert message_of(formats.get, "int4:scal=fp16") == (
        "int4: option scal: no such option; did you mean 'scale'? (known: scale, scale_rule)"
    )
    assert message_of(formats.get, "int4:fp16") == ("format = int4:fp16: must be int4:option=value,option=value")
    assert message_of(formats.get, "int4:scale_rule=ceil,scale=e8m0") == (
        "format = int4:scale_rule=ceil,scale=e8m0: is int4:scale=e8m0,scale_rule=ceil "
        "(write that: options in alphabetical order, no defaults)"
    )
    assert message_of(formats.get, "fp16:ties=even") == ("format = fp16:ties=even: fp16 has no options (write fp16)")
    assert message_of(formats.get, "bitmod_fp4:scale=e8m0") == (
        "bitmod_fp4: scale = e8m0: no such choice; known: fp16, fp32, int8"
    )


# one scale for the whole array


def test_a_tensor_group_is_one_group_over_all_rows() -> None:
    values = f32([[1, 2, 3], [4, -7, 6]])
    for name in ("int4", "int4_asym", "fp4_e2m1", "bitmod_fp4"):
        fmt = formats.get(name)
        whole, flat = fmt.encode(values, group="tensor"), fmt.encode(values.reshape(1, -1))
        assert np.array_equal(whole.codes.reshape(-1), flat.codes.reshape(-1))
        assert whole.scales is not None
        assert whole.scales.shape == (1, 1)
        assert np.array_equal(fmt.decode(whole), fmt.decode(flat).reshape(2, 3))
        ints = fmt.integers(whole)
        assert ints.group is None
        assert np.array_equal(ints.scales * (ints.ints - ints.zeros), fmt.decode(whole))
        assert fmt.storage_bits((2, 3), "tensor").total == fmt.storage_bits((1, 6), None).total
