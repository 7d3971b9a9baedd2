"""lut datapath: addresses from bit planes, lookups in each row's table, shift-accumulate over planes, exact sums."""

from __future__ import annotations

from collections.abc import Iterator

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.lut import Lut
from bitwright.rtl.pe.lut_tables import Table, make_table
from bitwright.rtl.pe.stream import Flow, StreamPE

Named = dict[str, Value]


class LutPE(StreamPE):
    """The hardware of arch.pe.lut.Lut; members, timing and arithmetic as its docstring says.

    Names of values on their way: `row_r_entry_e` and `address_c` before the lookup, `value_r_c` after it, `total_r_c`
    with the planes so far, `addend_r_c` and `row_addend_r` as they enter the sums `acc_r_c` and `act_sum_r`.
    """

    spec: Lut

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        flow = Flow(m, self, phase_bits=spec.plane_bits)
        begin, final = Signal(name="begin_step"), Signal(name="end_step")
        if spec.plane_bits:
            flow.finish(flow.phase == self.step.payload.top_plane)
            m.d.comb += [begin.eq(~flow.phase.any()), final.eq(flow.phase == self.step.payload.top_plane)]
            flow.first = self.step.payload.first & begin
        else:
            m.d.comb += [begin.eq(1), final.eq(1)]
        control: Named = {"begin": begin, "final": final, "restart": self.step.payload.first}
        values = _cut(flow, spec.pipeline >= 3, {**control, **self._tables(m), **self._addresses(m, flow)})
        values = _cut(flow, spec.pipeline >= 2, self._lookups(m, values))
        values = _cut(flow, spec.pipeline >= 1, self._totals(m, flow, values))
        self._accumulate(m, flow, values)
        flow.offer()
        return m

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return ((row, column) for row in range(self.spec.m) for column in range(self.spec.n))

    def _tables(self, m: Module) -> Named:
        """Entries, exponents and special flags of all rows, made here or as they come."""
        spec, unit, found = self.spec, self.spec.tables, dict[str, Value]()
        payload = self.step.payload
        for row in range(spec.m):
            if spec.precompute:
                acts = [payload.act[row * spec.k + lane] for lane in range(spec.k)]
                table = make_table(m, unit, acts, f"row_{row}_make")
            else:
                entries = [payload.table[row * unit.entries + entry] for entry in range(unit.entries)]
                scale = [
                    payload[name] if spec.m == 1 else payload[name][row]
                    for name in ("exponent", "special")[: 2 * unit.scaled]
                ]
                table = Table(entries, *(scale or (Const(0, 1), Const(0, 1))))
            found |= {f"row_{row}_entry_{at}": entry for at, entry in enumerate(table.entries)}
            found |= {f"row_{row}_exponent": table.exponent, f"row_{row}_special": table.special}
        return found

    def _addresses(self, m: Module, flow: Flow) -> Named:
        """Where each column looks, and whether the value is negated, in the plane of this phase."""
        spec, found = self.spec, dict[str, Value]()
        wgt = self.step.payload.wgt
        codes = [[wgt[column * spec.k + lane] for lane in range(spec.k)] for column in range(spec.n)]
        planes = [Signal(spec.k, name=f"bits_{column}") for column in range(spec.n)]
        plane = Signal(max(spec.plane_bits, 1), name="plane")
        if spec.plane_bits:
            m.d.comb += plane.eq(self.step.payload.top_plane - flow.phase)
        with m.Switch(plane):
            for at in range(spec.weight_bits):
                with m.Default() if at == spec.weight_bits - 1 else m.Case(at):
                    m.d.comb += [
                        bits.eq(Cat(code[at] for code in column)) for bits, column in zip(planes, codes, strict=True)
                    ]
        for column, bits in enumerate(planes):
            low, top = bits[:-1], bits[-1]
            if spec.variant == "unpu":
                found[f"address_{column}"] = bits
            elif spec.folded:
                found |= {f"address_{column}": low, f"negate_{column}": top}
            else:
                address = Signal(spec.k - 1, name=f"unfolded_{column}")
                m.d.comb += address.eq(low ^ (~top).replicate(spec.k - 1))
                found |= {f"address_{column}": address, f"negate_{column}": ~top}
        return found

    def _lookups(self, m: Module, values: Named) -> Named:
        """Each column's entry of each row's table; negated here but for "full", which only passes the sign on."""
        spec, unit = self.spec, self.spec.tables
        found = {name: values[name] for name in ("begin", "final", "restart")}
        for row in range(spec.m):
            found |= {name: values[name] for name in (f"row_{row}_exponent", f"row_{row}_special")}
            found[f"row_{row}_sum"] = values[f"row_{row}_entry_{unit.entries - 1}"]
        for row, column in self._pairs():
            entry = Signal(signed(unit.entry_bits), name=f"lookup_{row}_{column}")
            with m.Switch(values[f"address_{column}"]):
                for at in range(unit.entries):
                    with m.Case(at):
                        m.d.comb += entry.eq(values[f"row_{row}_entry_{at}"])
            if spec.variant == "full":
                found |= {f"value_{row}_{column}": entry, f"negate_{column}": values[f"negate_{column}"]}
                continue
            negate = values["begin"] if spec.variant == "unpu" else values[f"negate_{column}"]
            value = Signal(signed(unit.entry_bits + 1), name=f"signed_{row}_{column}")
            m.d.comb += value.eq(Mux(negate, -entry, entry))
            found[f"value_{row}_{column}"] = value
        return found

    def _totals(self, m: Module, flow: Flow, values: Named) -> Named:
        """Twice the planes so far plus this plane's value, in a register a pair; whole at the step's end."""
        spec = self.spec
        found = {name: value for name, value in values.items() if not name.startswith(("value_", "negate_", "begin"))}
        shape = signed(_bits(*spec.total_range))
        for row, column in self._pairs():
            value, total = values[f"value_{row}_{column}"], Signal(shape, name=f"step_{row}_{column}")
            before: Value = Const(0, signed(1))
            if spec.plane_bits:
                part = flow.register(signed(shape.width - 1), f"part_{row}_{column}")
                with m.If(flow.advance & flow.valid):
                    m.d.sync += part.eq(total)
                before = Mux(values["begin"], 0, Cat(Const(0, 1), part).as_signed())
            if spec.variant == "full":
                negate = values[f"negate_{column}"]
                turned = (value.as_unsigned() ^ negate.replicate(len(value))).as_signed()
                m.d.comb += total.eq(before + turned + negate)
            else:
                m.d.comb += total.eq(before + value)
            found[f"total_{row}_{column}"] = total
        return found

    def _accumulate(self, m: Module, flow: Flow, values: Named) -> None:
        """Totals times their table's scale into the sums, at each step's end."""
        spec, payload = self.spec, self.sum.payload
        load = Signal(name="load")
        m.d.comb += load.eq(flow.advance & flow.valid & values["final"])
        addends = [
            (f"acc_{row}_{column}", row, values[f"total_{row}_{column}"], spec.addend_range)
            for row, column in self._pairs()
        ]
        rows = [(f"act_sum_{row}", row, values[f"row_{row}_sum"], spec.row_range) for row in range(spec.m)]
        sums = []
        for name, row, total, limits in (*addends, *rows):
            addend = Signal(
                signed(_bits(*limits)), name=name.replace("acc_", "addend_").replace("act_sum_", "row_addend_")
            )
            m.d.comb += addend.eq(_shifted(m, total, values[f"row_{row}_exponent"], len(addend), name))
            acc = flow.register(signed(spec.psum_bits), name)
            with m.If(load):
                m.d.sync += acc.eq(Mux(values["restart"], 0, acc) + addend)
            sums.append(acc)
        columns = [Cat(sums)]
        for row in range(spec.m if spec.tables.scaled else 0):
            special = flow.register(1, f"special_{row}")
            with m.If(load):
                m.d.sync += special.eq((special & ~values["restart"]) | values[f"row_{row}_special"])
            columns.append(special)
        m.d.comb += payload.as_value().eq(Cat(columns))


def _bits(low: int, high: int) -> int:
    """Two's complement width of low..high."""
    return max((~low).bit_length(), high.bit_length()) + 1


def _shifted(m: Module, value: Value, places: Value, bits: int, name: str) -> Value:
    """`value` times 2**places, modulo 2**bits."""
    if isinstance(places, Const):
        return value
    for step in range(len(places)):
        wide = Signal(signed(bits), name=f"{name}_by_{1 << step}")
        m.d.comb += wide.eq(Mux(places[step], Cat(Const(0, 1 << step), value).as_signed(), value))
        value = wide
    return value


def _cut(flow: Flow, wanted: bool, values: Named) -> Named:
    """Pipeline registers by name."""
    return dict(zip(values, flow.cut(wanted, **values), strict=True))
