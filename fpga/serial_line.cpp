// A serial line bit by bit on a verilated board top; fpga/simulated.py includes it after the design's driver.
// Its times are ideal: bit i of a character is on the line from i * clocks_per_bit after its start on, to the clock.

#include <cmath>

struct Symbol {          // a character as the line has it
    uint16_t bits;       // start bit lowest, then data, stop
    uint16_t idle_bits;  // before it
};

struct SerialLine {
    double clocks_per_bit;
    int64_t cycle = 0;
    // To the board.
    bool sending = false;
    double begun = 0;
    Symbol symbol{};
    // From the board.
    bool receiving = false;
    int bits = 0;
    uint32_t got = 0;
    double next_sample = 0;
    int64_t quiet = 0;  // cycles in which nothing has happened
};

API void* sl_open(double clocks_per_bit) {
    auto* line = new SerialLine;
    line->clocks_per_bit = clocks_per_bit;
    return line;
}
API void sl_close(void* line) { delete static_cast<SerialLine*>(line); }

// Runs at most `cycles`, fewer once nothing has happened for `quiet` of them: no character, no run (bit `running_led`).
// Characters to the board from `symbols`; `taken` of them have begun. Characters from it to `out` (its 10 bits).
// Returns the cycles that ran.
API int64_t sl_run(void* handle, void* line_handle, int64_t cycles, int64_t quiet, int32_t reset, const Symbol* symbols,
                   int64_t count, int64_t* taken, uint16_t* out, int64_t room, int64_t* got, uint32_t* leds,
                   int32_t running_led) {
    auto& d = *static_cast<Design*>(handle);
    auto& l = *static_cast<SerialLine*>(line_handle);
    uint32_t in[IN_WORDS + 1] = {}, outputs[OUT_WORDS + 1];
    in[@RST@] = reset;
    int64_t t = 0;
    *taken = *got = 0;
    for (; t < cycles && *got < room && l.quiet < quiet; ++t, ++l.cycle) {
        if (!l.sending && *taken < count) {
            l.symbol = symbols[(*taken)++];
            l.sending = true;
            l.begun = static_cast<double>(l.cycle) + l.symbol.idle_bits * l.clocks_per_bit;
        }
        uint32_t rx = 1;
        if (l.sending && static_cast<double>(l.cycle) >= l.begun) {
            const int bit = static_cast<int>(std::floor((static_cast<double>(l.cycle) - l.begun) / l.clocks_per_bit));
            rx = bit < 10 ? l.symbol.bits >> bit & 1 : 1;
            if (static_cast<double>(l.cycle) + 1 >= l.begun + 10 * l.clocks_per_bit) l.sending = false;
        }
        in[@RX@] = rx;
        settle(d, in);
        take(*d.top, outputs);
        edge(d);
        const uint32_t tx = outputs[@TX@] & 1;
        if (!l.receiving && !tx) {
            l.receiving = true;
            l.bits = 0;
            l.got = 0;
            l.next_sample = static_cast<double>(l.cycle) + 0.5 * l.clocks_per_bit;
        }
        if (l.receiving && static_cast<double>(l.cycle) + 0.5 >= l.next_sample) {
            l.got |= tx << l.bits++;
            l.next_sample += l.clocks_per_bit;
            if (l.bits == 10) {
                out[(*got)++] = static_cast<uint16_t>(l.got);
                l.receiving = false;
            }
        }
        *leds = outputs[@LEDS@];
        const bool busy = l.sending || l.receiving || *taken < count || (*leds >> running_led & 1) || reset;
        l.quiet = busy ? 0 : l.quiet + 1;
    }
    if (*taken < count || reset) l.quiet = 0;
    return t;
}
// Something comes: it is not quiet any more.
API void sl_wake(void* line_handle) { static_cast<SerialLine*>(line_handle)->quiet = 0; }
