"""The C++ that drives a verilated design: arrays of input words in, arrays of output words out, cycle by cycle."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bitwright.arch.errors import ConfigError
from bitwright.rtl.bench.words import word_count

CLOCK, RESET = "clk", "rst"

_TEMPLATE = """\
#include <cstdint>
#include <cstring>
#include <memory>
#include "verilated.h"
#include "V@TOP@.h"

#define API extern "C" __attribute__((visibility("default")))
enum : int { IN_WORDS = @IN_WORDS@, OUT_WORDS = @OUT_WORDS@ };

struct Design {
    VerilatedContext context;
    std::unique_ptr<V@TOP@> top;
};

// One valid/ready stream into the design. Word indices point into the input or output vector.
struct Stream {
    int32_t valid_word, ready_word, payload_words, pad;
    int64_t beats, offers_cycles;
    const int32_t* payload_map;   // input word of each payload word
    const uint32_t* data;         // [beats][payload_words]
    const uint8_t* offers;        // [offers_cycles], whether the source starts a beat in that cycle; null: always
    int64_t* accepted_at;         // [beats], filled with the cycle in which each beat was taken
    int64_t next, pending;        // state: next beat, and whether it is being offered
};

static void put(V@TOP@& t, const uint32_t* w) {
@PUT@
    (void)w;
}
static void take(V@TOP@& t, uint32_t* w) {
@TAKE@
    (void)w;
}
static void settle(Design& d, const uint32_t* in) {
    put(*d.top, in);
@LOW@
    d.top->eval();
}
static void edge(Design& d) {
@HIGH@
}

API void* bw_open(int32_t random_state, int32_t seed) {
    auto* d = new Design;
    d->context.randReset(random_state ? 2 : 0);
    d->context.randSeed(seed);
    d->top = std::make_unique<V@TOP@>(&d->context, "");
    return d;
}
API void bw_close(void* handle) {
    auto* d = static_cast<Design*>(handle);
    d->top->final();
    delete d;
}
API void bw_run(void* handle, int64_t cycles, const uint32_t* in, uint32_t* out) {
    auto& d = *static_cast<Design*>(handle);
    for (int64_t t = 0; t < cycles; ++t) {
        settle(d, in + t * IN_WORDS);
        take(*d.top, out + t * OUT_WORDS);
        edge(d);
    }
}
// Streams until `wanted` captures or `cycles`; returns the cycles used. A capture is the output vector of a cycle
// in which bit 0 of output word `capture_word` is set.
API int64_t bw_stream(void* handle, int64_t cycles, const uint32_t* idle, int32_t count, Stream* streams,
                      int32_t capture_word, int64_t wanted, uint32_t* captured, int64_t* captured_at, int64_t* done) {
    auto& d = *static_cast<Design*>(handle);
    uint32_t in[IN_WORDS + 1], out[OUT_WORDS + 1];
    std::memcpy(in, idle, sizeof(uint32_t) * IN_WORDS);
    int64_t t = 0;
    for (*done = 0; t < cycles && *done < wanted; ++t) {
        for (int32_t k = 0; k < count; ++k) {
            Stream& s = streams[k];
            if (!s.pending && s.next < s.beats && (!s.offers || (t < s.offers_cycles ? s.offers[t] : 1))) s.pending = 1;
            in[s.valid_word] = static_cast<uint32_t>(s.pending);
            if (s.pending)
                for (int32_t i = 0; i < s.payload_words; ++i)
                    in[s.payload_map[i]] = s.data[s.next * s.payload_words + i];
        }
        settle(d, in);
        take(*d.top, out);
        for (int32_t k = 0; k < count; ++k) {
            Stream& s = streams[k];
            if (s.pending && (out[s.ready_word] & 1)) { s.accepted_at[s.next++] = t; s.pending = 0; }
        }
        if (out[capture_word] & 1) {
            std::memcpy(captured + *done * OUT_WORDS, out, sizeof(uint32_t) * OUT_WORDS);
            captured_at[(*done)++] = t;
        }
        edge(d);
    }
    return t;
}
"""


@dataclass(frozen=True)
class Port:
    """One port of the top module: its width in bits and its first word in the input or output vector."""

    name: str
    bits: int
    output: bool
    word: int

    @property
    def words(self) -> int:
        return word_count(self.bits)


_FUNCTION = re.compile(r"function .*?endfunction", re.DOTALL)  # its inputs are no ports
_PORT = re.compile(r"^\s*(input|output)\s+(?:wire\s+|reg\s+)?(?:\[(\d+):0\]\s*)?([A-Za-z_]\w*)\s*;", re.MULTILINE)


def ports_of(verilog: str, top: str) -> list[Port]:
    """The data ports of module `top` (clock left out), in the order of their declarations.

    Reads Verilog as Yosys writes it: one `input [7:0] name;` a line. Raises ConfigError when there is no such module.
    """
    module = re.search(rf"^module {re.escape(top)}\b.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if module is None:
        found = re.findall(r"^module (\S+?)\(", verilog, re.MULTILINE)
        raise ConfigError(f"top = {top!r}: no such module in this Verilog (it has {', '.join(found) or 'none'})")
    ports: list[Port] = []
    next_word = {True: 0, False: 0}
    for direction, high, name in _PORT.findall(_FUNCTION.sub("", module.group())):
        if name == CLOCK:
            continue
        bits, output = int(high or 0) + 1, direction == "output"
        ports.append(Port(name, bits, output, next_word[output]))
        next_word[output] += word_count(bits)
    return ports


def _member(name: str) -> str:
    return "t." + name.replace("__", "___05F")  # Verilator's name mangling


def _put(port: Port) -> str:
    member, word = _member(port.name), port.word
    if port.bits <= 32:
        return f"    {member} = w[{word}];"
    if port.bits <= 64:
        return f"    {member} = static_cast<uint64_t>(w[{word + 1}]) << 32 | w[{word}];"
    return f"    for (int i = 0; i < {port.words}; ++i) {member}[i] = w[{word} + i];"


def _take(port: Port) -> str:
    member, word = _member(port.name), port.word
    if port.bits <= 32:
        return f"    w[{word}] = {member};"
    if port.bits <= 64:
        return (
            f"    w[{word}] = static_cast<uint32_t>({member}); w[{word + 1}] = static_cast<uint32_t>({member} >> 32);"
        )
    return f"    for (int i = 0; i < {port.words}; ++i) w[{word} + i] = {member}[i];"


def driver_source(verilog: str, top: str) -> str:
    """The C++ driver of `top`."""
    ports = ports_of(verilog, top)
    clocked = re.search(rf"^\s*input\s+(?:wire\s+)?{CLOCK}\s*;", verilog, re.MULTILINE) is not None
    inputs, outputs = [p for p in ports if not p.output], [p for p in ports if p.output]
    fields = {
        "TOP": top,
        "IN_WORDS": str(sum(p.words for p in inputs)),
        "OUT_WORDS": str(sum(p.words for p in outputs)),
        "PUT": "\n".join(map(_put, inputs)),
        "TAKE": "\n".join(map(_take, outputs)),
        "LOW": f"    d.top->{CLOCK} = 0;" if clocked else "",
        "HIGH": f"    d.top->{CLOCK} = 1;\n    d.top->eval();" if clocked else "    (void)d;",
    }
    return re.sub(r"@([A-Z_]+)@", lambda match: fields[match.group(1)], _TEMPLATE)
