"""What the bit-serial PE is fed with: channels that cancel, real groups, single products, and slices in disorder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import SPECIALS, Encoding, special_code
from bitwright.rtl.bench.bit_serial_bench import Channels, pack_slices, random_channels
from bitwright.rtl.bench.words import Words

FORMATS = ("int8", "int6", "int5", "bitmod_fp4", "bitmod_fp3")
# Zeros, ends of the subnormals and of the normals, one and its neighbours; infinities and a NaN at the end.
_CORNER_ACTS = (0, 0x8000, 1, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBBFF, 0x3C01, 0x7C00, 0xFC00, 0x7E01)


def storable_specials() -> list[float]:
    """Every value that a special register can hold."""
    found = []
    for halves in range(-31, 32):
        try:
            special_code(halves / 2)
        except ConfigError:
            continue
        found.append(halves / 2)
    return found


def cancelling_channels(spec: BitSerial, name: str, count: int, depth: int, group: int, seed: int) -> Channels:
    """Channels of `2 * depth` weights whose second half takes the first one away again, but for a few of the last bits.

    With a group of `2 * depth` the accumulator cancels, with one of `depth` (and the same scale) the column does.
    """
    found = random_channels(spec, name, count, depth, depth, seed)
    rng = np.random.default_rng([seed, 5])
    act = np.concatenate([found.act, found.act ^ 0x8000], axis=1)
    act[:, -1] ^= rng.choice([0, 0, 1, 2], count).astype(np.uint16)
    groups = -(-2 * depth // group)
    scale, selector = (np.repeat(part[:, :1], groups, axis=1) for part in (found.scale, found.selector))
    return Channels(name, found.encoding, group, act, np.tile(found.code, (1, 2)), scale, selector)


def extreme_channels(spec: BitSerial, name: str, count: int, depth: int, group: int, seed: int) -> Channels:
    """Channels of the ends of fp16's and the code's range; half of the slices have one sign, so that lanes add up."""
    found = random_channels(spec, name, count, depth, group, seed)
    rng, bits = np.random.default_rng([seed, 17]), found.encoding.code_bits
    act = rng.choice(
        np.array([0x7BFF, 0x7BFE, 0x7800, 0x77FF, 0x0400, 0x03FF, 0x0001, 0x0000], np.uint16), (count, depth)
    )
    one_sign = np.repeat(rng.random((count, -(-depth // spec.lanes))) < 0.5, spec.lanes, axis=1)[:, :depth]
    act |= np.where(one_sign, 0, rng.integers(0, 2, act.shape) << 15).astype(np.uint16)
    high = np.repeat(rng.random((count, -(-depth // spec.lanes))) < 0.3, spec.lanes, axis=1)[:, :depth]
    act = np.where(high, 0x7BFF, act).astype(np.uint16)
    half = 1 << (bits - 1)
    code = rng.choice(np.array([half - 1, half - 1, half, half + 1, half * 2 - 1, 1, 0]), act.shape)
    code = np.where(high, half - 1, code)
    return Channels(name, found.encoding, group, act, code, found.scale, found.selector)


def close_channels(spec: BitSerial, count: int, seed: int) -> Channels:
    """Channels of two groups whose 24-bit products with two scales cancel but for at most 15 units of the last bit.

    Each accumulator is a 16-bit whole number in two int8 slices of weight 1: its upper 11 bits, then its lower 5.
    """
    rng = np.random.default_rng([seed, 19])
    acts: list[list[int]] = []
    scales: list[list[int]] = []
    while len(acts) < count:
        first, second = (int(scale) for scale in rng.integers(129, 256, 2))
        wide, rest = int(rng.integers(1 << 15, 1 << 16)), int(rng.integers(-15, 16))
        # wide * first - narrow * second = rest: the wide one below with the right remainder, if the scales have one.
        tries = np.arange(max(1 << 15, wide - 256), wide + 1)
        fits = tries[((tries * first - rest) % second == 0) & ((tries * first - rest) // second < 1 << 16)]
        if not len(fits):
            continue
        wide = int(fits[0])
        narrow = (wide * first - rest) // second
        if narrow < 1 << 15:
            continue
        acts.append([part for number in (wide, -narrow) for part in (*_split(number, rng), 0, 0, 0)])
        scales.append([first, second])
    values = np.asarray(acts, np.float64).reshape(count, 2, 8)
    act = (values / (1 << 10)).astype(np.float16).view(np.uint16).reshape(count, 16)
    return Channels(
        "int8", spec.encoding("int8"), 8, act, np.ones((count, 16), np.int64), np.asarray(scales, np.int64),
        np.zeros((count, 2), np.int64),
    )  # fmt: skip


def tied_channels(spec: BitSerial, count: int, seed: int) -> Channels:
    """Channels of two groups whose 24-bit products are `distance` places apart, the lower one a tie of the column.

    What is lost of it is half a unit exactly, or one bit of its last place more, which sticks. Accumulators as in
    `close_channels`, the upper one with a weight of 64.
    """
    rng = np.random.default_rng([seed, 23])
    acts, scales, weight = [], [], 64
    for number in range(count):
        distance, more = 2 + number % 15, number // 15 % 2
        first, second = (2 * int(half) + 1 for half in rng.integers(112, 128, 2))
        wide = int(rng.integers(1 << 15 | 1 << 14, 1 << 16))
        # The low 16 bits of the product are as wanted: those above `distance` at random, below them the tie.
        low = int(rng.integers(0, 1 << 16)) >> distance << distance | 1 << (distance - 1) | more
        narrow = low * pow(second, -1, 1 << 16) % (1 << 16)
        if narrow < 38_000:  # the product must have its 24 bits
            narrow = (narrow + (1 << 15)) % (1 << 16)
        sign = int(rng.choice([-1, 1]))
        upper = [part * 2.0**distance / weight for part in _split(wide, rng)]
        acts.append([*upper, 0, 0, 0, *_split(sign * narrow, rng), 0, 0, 0])
        scales.append([first, second])
    act = (np.asarray(acts, np.float64) / (1 << 14)).astype(np.float16).view(np.uint16)
    code = np.tile(np.repeat([weight, 1], 8), (count, 1))
    selector = np.zeros((count, 2), np.int64)
    return Channels("int8", spec.encoding("int8"), 8, act, code, np.asarray(scales, np.int64), selector)


def stepped_channels(spec: BitSerial, count: int, seed: int) -> Channels:
    """Channels of one group: a 16-bit number with few bits, then a power of two up to 18 places above, of either sign.

    Just below a power of two the accumulator's places are half as far apart: there a tie hangs on the last lost bit.
    """
    rng, number, weight = np.random.default_rng([seed, 31]), np.arange(count), 64
    places = 1 + number % 18
    small = 1 << 15 | number // 18 % 2 | np.where(rng.random(count) < 0.5, 0, 1 << rng.integers(0, 15, count))
    act = np.zeros((count, 12))
    act[:, 0], act[:, 4] = small & ~31, small & 31
    act[:, 8] = rng.choice([-1, 1], count) * 2.0 ** (15 + places) / weight
    code = np.tile(np.repeat([1, 1, weight], 4), (count, 1))
    scale = 2 * rng.integers(0, 128, (count, 1)) + 1
    bits = (act / (1 << 14)).astype(np.float16).view(np.uint16)
    return Channels("int8", spec.encoding("int8"), 12, bits, code, scale, np.zeros((count, 1), np.int64))


def emptied_channels(spec: BitSerial, count: int, seed: int) -> Channels:
    """Channels whose column cancels exactly, and then gets zeros of either sign."""
    found = random_channels(spec, "int8", count, 12, 4, seed)
    act, code, scale = found.act, found.code, found.scale
    act[:, 4:8], code[:, 4:8], scale[:, 1] = act[:, :4] ^ 0x8000, code[:, :4], scale[:, 0]
    rng = np.random.default_rng([seed, 29])
    scale[:, 2] = np.where(rng.random(count) < 0.5, 0, scale[:, 2])
    act[:, 8:] = np.where((scale[:, 2:] == 0), act[:, 8:], act[:, 8:] & 0x8000)
    return found


def _split(number: int, rng: np.random.Generator) -> tuple[int, int, int, int, int]:
    """The upper part of a 16-bit number in one of four lanes, then its lower five bits in the first lane after them."""
    sign, size = (-1 if number < 0 else 1), abs(number)
    slice_one = [0] * 4
    slice_one[int(rng.integers(0, 4))] = sign * (size & ~31)
    return (*slice_one, sign * (size & 31))  # type: ignore[return-value]


def real_channels(spec: BitSerial, name: str, count: int, seed: int, *, group: int = 64) -> Channels:
    """Channels of SmolLM2: 256 weights in groups with 8-bit scales, on activations of the same layer."""
    from bitwright.rtl.asic.operands import sample

    found, rng = sample(), np.random.default_rng([seed, 7])
    coded = formats.get(name).encode(found.weights[..., :-1], group=group, scale_format="int8")
    layer, token, row = (
        rng.integers(0, size, count) for size in (len(found.acts), found.acts.shape[1], found.weights.shape[1])
    )
    if coded.scale_codes is None:
        raise ConfigError(f"bit-serial format = {name}: must take 8-bit scales of groups (such as bitmod_fp4)")
    scale = coded.scale_codes[layer, row].astype(np.int64)
    selector = np.zeros_like(scale) if coded.selectors is None else coded.selectors[layer, row].astype(np.int64)
    act = found.acts[layer, token, :-1].astype(np.float16).view(np.uint16)
    code = coded.codes[layer, row].astype(np.int64)
    return Channels(name, spec.encoding(name), group, act, code, scale, selector)


def product_channels(spec: BitSerial, name: str, acts: npt.NDArray[np.uint16], seed: int) -> Channels:
    """One product a channel, each of `acts` (uint16) times each code, in lanes by turns, the other lanes zero."""
    encoding, rng = spec.encoding(name), np.random.default_rng([seed, 11])
    act, code = (grid.ravel() for grid in np.meshgrid(acts, np.arange(1 << encoding.code_bits), indexing="ij"))
    rows = np.arange(act.size)
    lane = (rows + rows // 4) % spec.lanes
    all_acts, all_codes = np.zeros((act.size, spec.lanes), np.uint16), np.zeros((act.size, spec.lanes), np.int64)
    all_acts[rows, lane], all_codes[rows, lane] = act, code
    scale, selector = rng.integers(1, 256, (act.size, 1)), rng.integers(0, SPECIALS, (act.size, 1))
    return Channels(name, encoding, spec.lanes, all_acts, all_codes, scale, selector)


def bulk_channels(spec: BitSerial, size: int, seed: int, *, real: bool = True) -> Iterator[Channels]:
    """Some of everything that needs no stall, of every format; about `size` channels of each kind."""
    for place, name in enumerate(FORMATS):
        one = seed + 100 * place
        yield random_channels(spec, name, size, 48, 16, one)
        yield random_channels(spec, name, size, 30, 5, one + 1, wild=True)
        yield random_channels(spec, name, size, 1 + place, 8, one + 2, wild=True)
        yield cancelling_channels(spec, name, size, 8, 16, one + 3)
        yield cancelling_channels(spec, name, size, 8, 8, one + 4)
        yield extreme_channels(spec, name, size, 24, 12, one + 6)
        yield extreme_channels(spec, name, size, 4, 4, one + 7)
        if real:
            yield real_channels(spec, name, max(1, size // 4), one + 5)
    yield close_channels(spec, 4 * size, seed + 900)
    yield tied_channels(spec, 8 * size, seed + 901)
    yield emptied_channels(spec, 2 * size, seed + 902)
    yield stepped_channels(spec, 8 * size, seed + 903)


def restless_slices(count: int, seed: int) -> tuple[Words, Words]:
    """(`count` slices of every encoding in groups and channels of any length, garbage), as beats of the stream.

    Activations near 1, of any bits, or corners; some slices take the one before away. `channel_end` also stands where
    no group ends, and means nothing there. Garbage is any bits, encodings that do not exist among them.
    """
    rng = np.random.default_rng([seed, 13])
    near = (
        rng.integers(0, 2, (count, 4)) << 15
        | rng.integers(10, 19, (count, 4)) << 10
        | rng.integers(0, 1024, (count, 4))
    )
    kind = rng.random((count, 4))
    corner = rng.choice(np.array(_CORNER_ACTS), (count, 4), p=[0.11] * 8 + [0.05] * 2 + [0.02 / 3] * 3)
    act = np.where(kind < 0.8, near, np.where(kind < 0.9, corner, rng.integers(0, 1 << 16, (count, 4))))
    code = rng.integers(0, 256, (count, 4))
    fields = {"encoding": rng.integers(0, len(Encoding), count), "selector": rng.integers(0, SPECIALS, count)}
    undone = np.flatnonzero(rng.random(count - 1) < 0.15) + 1
    for values in (code, *fields.values()):
        values[undone] = values[undone - 1]
    act[undone] = act[undone - 1] ^ 0x8000
    ends = rng.random(count) < np.repeat(rng.choice([0.1, 0.4, 1.0], -(-count // 64)), 64)[:count]
    channels = rng.random(count) < np.where(ends, 0.5, 0.1)
    scale = np.where(rng.random(count) < 0.2, rng.choice([0, 1, 128, 255], count), rng.integers(0, 256, count))
    words = pack_slices(act, code, **fields, scale=scale, group_end=ends, channel_end=channels)
    garbage = rng.integers(0, 1 << 32, (count // 4, 4), dtype=np.uint32)
    garbage[:, 3] &= (1 << 15) - 1
    return words, garbage
