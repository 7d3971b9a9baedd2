// An AXI4 memory behind a verilated master: the timing of arch/fixed_memory.py, or random stalls; a driver includes it.
// Times are cycles. What it drives in a cycle follows from its state alone; it looks at the master when that has settled.

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

namespace axi {

enum : uint32_t { OKAY = 0, SLVERR = 2, DECERR = 3, INCR = 1 };

struct Region {
    uint64_t base, bytes;
    uint8_t* data;
    int64_t writable;
};

struct Settings {
    int64_t latency_cycles, beat_cycles, reads, writes, response_cycles;  // of FixedMemory
    int64_t stalls_seed;                                                  // negative: no stalls
    int64_t error_read_beat, error_write_beat;                            // the how-manieth from 0 gets an error; negative: none
};

// One accepted burst, as Python reads it; -1: not yet, and the response of a read.
struct Record {
    int64_t write, address, beats, accepted, first, last, response;
};

template <int BYTES>
struct Master {  // its outputs
    uint32_t arvalid, arlen, arsize, arburst, rready, awvalid, awlen, awsize, awburst, wvalid, wlast, bready;
    uint64_t araddr, awaddr;
    uint8_t wdata[BYTES], wstrb[(BYTES + 7) / 8];
};

template <int BYTES>
struct Slave {  // its inputs
    uint32_t arready, rvalid, rresp, rlast, awready, wready, bvalid, bresp;
    uint8_t rdata[BYTES];
};

// Whether a channel pauses in a cycle: with a chance that changes every few cycles, up to long waits.
struct Pauses {
    int64_t chance = 0, left = 0;
    bool operator()(std::mt19937_64& random) {
        static const int64_t chances[] = {0, 10, 50, 90, 99};
        if (left-- == 0) {
            chance = chances[random() % 5];
            left = 16 + static_cast<int64_t>(random() % 64);
        }
        return static_cast<int64_t>(random() % 100) < chance;
    }
};

template <int BYTES>
class Memory {
public:
    Slave<BYTES> out{};
    std::vector<Record> records;
    int64_t cycle = 0, read_beats = 0, write_beats = 0;
    char violation[256] = "";

    Memory(const Settings& settings, const Region* regions, int64_t count)
        : settings_(settings), regions_(regions, regions + count),
          random_(static_cast<uint64_t>(settings.stalls_seed)) {}

    // In reset nothing is open; a master's VALIDs are low after it.
    void reset() {
        out = {};
        seen_ = {};
        before_ = {};
        order_.clear();
        writes_.clear();
        responses_.clear();
        beats_.clear();
        reads_open_ = writes_open_ = announced_ = wlasts_ = 0;
        free_ = 0;
        ++cycle;
    }

    // What the master sees in this cycle.
    void drive() {
        if (stalls()) drive_with_stalls(); else drive_fixed();
    }

    // What the master does in this cycle.
    void sample(const Master<BYTES>& in) {
        check(in);
        if (in.arvalid && out.arready) accept(false, in.araddr, in.arlen + 1);
        const bool aw = in.awvalid && out.awready;
        if (out.rvalid && in.rready) read_ends();
        if (aw) accept(true, in.awaddr, in.awlen + 1);
        if (in.wvalid && out.wready) {
            Beat beat;
            std::memcpy(beat.data, in.wdata, BYTES);
            std::memcpy(beat.strobe, in.wstrb, sizeof beat.strobe);
            beat.last = in.wlast;
            beats_.push_back(beat);
            ++write_beats;
        }
        if (out.bvalid && in.bready) {
            records[responses_.front().record].response = cycle;
            responses_.pop_front();
            --writes_open_;
            out.bvalid = 0;
        }
        write();
        seen_ = in;
        ++cycle;
    }

private:
    struct Burst {
        bool write;
        uint64_t address;
        int64_t beats, done, first;
        size_t record;
        uint32_t response;
    };
    struct Beat {
        uint8_t data[BYTES], strobe[(BYTES + 7) / 8];
        uint32_t last;
    };
    struct Response {
        int64_t from;
        uint32_t code;
        size_t record;
    };

    Settings settings_;
    std::vector<Region> regions_;
    std::mt19937_64 random_;
    Pauses pause_ar_, pause_r_, pause_aw_, pause_w_, pause_b_;
    Master<BYTES> seen_{};          // the cycle before
    Slave<BYTES> before_{};
    std::deque<Burst> order_;       // fixed: reads and writes in service order; stalls: reads
    std::deque<Burst> writes_;      // stalls: writes
    std::deque<Beat> beats_;        // taken and not yet written
    std::deque<Response> responses_;
    int64_t reads_open_ = 0, writes_open_ = 0, free_ = 0;
    int64_t announced_ = 0, wlasts_ = 0;  // bursts whose AWVALID was seen, and whose last beat was

    bool stalls() const { return settings_.stalls_seed >= 0; }

    __attribute__((format(printf, 2, 3))) void fail(const char* text, ...) {
        if (violation[0]) return;
        const int used = std::snprintf(violation, sizeof violation, "cycle %lld: ", static_cast<long long>(cycle));
        va_list arguments;
        va_start(arguments, text);
        std::vsnprintf(violation + used, sizeof violation - used, text, arguments);
        va_end(arguments);
    }

    const Region* region(uint64_t address) const {
        for (const Region& r : regions_)
            if (address >= r.base && address - r.base + BYTES <= r.bytes) return &r;
        return nullptr;
    }

    void drive_fixed() {
        out.arready = reads_open_ < settings_.reads;
        out.awready = writes_open_ < settings_.writes;
        out.rvalid = out.wready = out.bvalid = 0;
        if (!order_.empty()) {
            Burst& burst = order_.front();
            if (burst.first + burst.done * settings_.beat_cycles == cycle) {
                if (burst.write) out.wready = 1; else offer(burst);
            }
        }
        if (!responses_.empty() && responses_.front().from == cycle) {
            out.bvalid = 1;
            out.bresp = responses_.front().code;
        }
    }

    void drive_with_stalls() {
        out.arready = reads_open_ < settings_.reads && !pause_ar_(random_);
        out.awready = writes_open_ < settings_.writes && !pause_aw_(random_);
        out.wready = beats_.size() < 64 && !pause_w_(random_);
        const bool r = !pause_r_(random_), b = !pause_b_(random_);
        if (!out.rvalid && !order_.empty() && r) offer(order_.front());
        if (!out.bvalid && !responses_.empty() && b) {
            out.bvalid = 1;
            out.bresp = responses_.front().code;
        }
    }

    // The next beat of a read on the pins; it stays until it is taken.
    void offer(const Burst& burst) {
        const uint64_t address = burst.address + burst.done * BYTES;
        const Region* from = region(address);
        out.rvalid = 1;
        out.rlast = burst.done + 1 == burst.beats;
        out.rresp = from == nullptr ? DECERR : read_beats == settings_.error_read_beat ? SLVERR : OKAY;
        if (from != nullptr) std::memcpy(out.rdata, from->data + (address - from->base), BYTES);
        else std::memset(out.rdata, 0xE5, BYTES);
    }

    void accept(bool write, uint64_t address, int64_t beats) {
        const int64_t first = std::max(cycle + settings_.latency_cycles, free_);
        free_ = first + beats * settings_.beat_cycles;
        records.push_back({write, static_cast<int64_t>(address), beats, cycle, -1, -1, -1});
        const Burst burst{write, address, beats, 0, first, records.size() - 1, OKAY};
        ++(write ? writes_open_ : reads_open_);
        (write && stalls() ? writes_ : order_).push_back(burst);
        const uint64_t bytes = beats * BYTES;
        if (address % BYTES) fail("address 0x%llx: not a whole beat", static_cast<unsigned long long>(address));
        if (address % 4096 + bytes > 4096)
            fail("%lld beats from 0x%llx cross a multiple of 4096", static_cast<long long>(beats),
                 static_cast<unsigned long long>(address));
    }

    void note(const Burst& burst) {
        Record& record = records[burst.record];
        if (burst.done == 0) record.first = cycle;
        if (burst.done + 1 == burst.beats) record.last = cycle;
    }

    void read_ends() {
        Burst& burst = order_.front();
        note(burst);
        ++read_beats;
        out.rvalid = 0;
        if (++burst.done == burst.beats) {
            order_.pop_front();
            --reads_open_;
        }
    }

    // Beats that were taken to where their bursts say.
    void write() {
        std::deque<Burst>& bursts = stalls() ? writes_ : order_;
        while (!beats_.empty() && !bursts.empty() && bursts.front().write) {
            Burst& burst = bursts.front();
            const Beat& beat = beats_.front();
            note(burst);
            const uint64_t address = burst.address + burst.done * BYTES;
            const Region* to = region(address);
            if (to == nullptr || !to->writable) burst.response = DECERR;
            else
                for (int i = 0; i < BYTES; ++i)
                    if (beat.strobe[i / 8] >> (i % 8) & 1) to->data[address - to->base + i] = beat.data[i];
            const int64_t number = write_beats - static_cast<int64_t>(beats_.size());
            if (number == settings_.error_write_beat && burst.response == OKAY) burst.response = SLVERR;
            if (beat.last != (burst.done + 1 == burst.beats))
                fail("WLAST = %u on beat %lld of a burst of %lld", beat.last, static_cast<long long>(burst.done),
                     static_cast<long long>(burst.beats));
            beats_.pop_front();
            if (++burst.done == burst.beats) {
                responses_.push_back({cycle + settings_.response_cycles, burst.response, burst.record});
                bursts.pop_front();
            }
        }
    }

    void held(const char* name, bool was, bool stays, bool same) {
        if (was && !stays) fail("%sVALID dropped before %sREADY", name, name);
        if (was && stays && !same) fail("the payload of %s changed before %sREADY", name, name);
    }

    void check(const Master<BYTES>& in) {
        held("AR", seen_.arvalid && !before_.arready, in.arvalid,
             in.araddr == seen_.araddr && in.arlen == seen_.arlen && in.arsize == seen_.arsize);
        held("AW", seen_.awvalid && !before_.awready, in.awvalid,
             in.awaddr == seen_.awaddr && in.awlen == seen_.awlen && in.awsize == seen_.awsize);
        held("W", seen_.wvalid && !before_.wready, in.wvalid,
             in.wlast == seen_.wlast && !std::memcmp(in.wdata, seen_.wdata, BYTES) &&
                 !std::memcmp(in.wstrb, seen_.wstrb, sizeof in.wstrb));
        const uint32_t size = BYTES == 8 ? 3 : BYTES == 16 ? 4 : BYTES == 32 ? 5 : 6;
        if (in.arvalid && (in.arsize != size || in.arburst != INCR)) fail("ARSIZE or ARBURST is not the port's");
        if (in.awvalid && (in.awsize != size || in.awburst != INCR)) fail("AWSIZE or AWBURST is not the port's");
        if (in.awvalid && !(seen_.awvalid && !before_.awready)) ++announced_;
        if (in.wvalid && wlasts_ >= announced_) fail("WVALID before the AWVALID of its burst");
        if (in.wvalid && out.wready && in.wlast) ++wlasts_;
        if (!stalls()) {
            if (out.rvalid && !in.rready) fail("RREADY low in the cycle of a beat");
            if (out.wready && !in.wvalid) fail("WVALID low in the cycle of a beat");
            if (out.bvalid && !in.bready) fail("BREADY low in the cycle of a response");
        }
        before_ = out;
    }
};

}  // namespace axi
