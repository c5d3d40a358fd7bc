// Event simulation of a mapped netlist, a clock cycle at a time: zero-delay (every net settles by levels, at most one toggle a
// cycle) or timed (inertial delays in picoseconds, so glitches that a gate lets through are counted).
//
// A cycle: clock gates open where their enable was 1 at the end of the cycle before, flip-flops and memory banks behind open ones take
// what their inputs were, the input vector is applied, all settles, outputs are sampled. Nets 0 and 1 are the constants.
#include <algorithm>
#include <cstdint>
#include <vector>

struct Netlist {
    int32_t nets, gates, flops, inputs, outputs, groups, clocks, rams;
    const int32_t *gate_out, *gate_first, *gate_in;  // inputs of gate g: gate_in[gate_first[g] .. gate_first[g + 1])
    const uint64_t *table;
    const int32_t *rise, *fall;  // delay to a rising and falling output, for every gate_in
    const int32_t *flop_d, *flop_q, *flop_qn, *flop_delay, *flop_clock;  // flop_qn -1: none
    const int32_t *clock_enable, *clock_parent;  // of clock gates, parents first; domain `clocks` is the clock itself
    const double *clock_energy;                  // of a cycle of every domain: domains x groups
    const int32_t *ram;                          // memory banks, one after the other, as Ram reads them
    const int32_t *input_net, *output_net;
    const float *weight;   // energy of a toggle of each net
    const int32_t *group;  // group of each net
};

namespace {

constexpr int WHEEL = 1 << 14;  // picoseconds; delays are clipped below it

// A bank of rtl/parts/primitives/ternbin_ram.v, all zero at first.
struct Ram {
    int clock, depth, width, addr, elements, planes;
    const int32_t *ren, *raddr, *wen, *waddr, *wdata, *wmask, *rdata;
    std::vector<uint8_t> bits;
    std::vector<uint8_t> read;  // what rdata becomes

    explicit Ram(const int32_t *&at) : clock(at[0]), depth(at[1]), width(at[2]), addr(at[3]), elements(at[4]), planes(at[5]) {
        ren = at + 6, raddr = ren + 1, wen = raddr + addr, waddr = wen + 1, wdata = waddr + addr, wmask = wdata + width;
        rdata = wmask + elements;
        at = rdata + width;
        bits.resize(size_t(depth) * width);
        read.resize(width);
    }

    size_t word(const int32_t *nets, const std::vector<uint8_t> &value) const {
        size_t result = 0;
        for (int i = 0; i < addr; i++) result |= size_t(value[nets[i]]) << i;
        return std::min<size_t>(result, depth - 1) * width;
    }

    void edge(const std::vector<uint8_t> &value) {
        if (value[*ren]) std::copy_n(bits.begin() + word(raddr, value), width, read.begin());
        if (value[*wen]) {
            const size_t to = word(waddr, value);
            const int part = width / (elements * planes);
            for (int i = 0; i < width; i++)
                if (value[wmask[i / part % elements]]) bits[to + i] = value[wdata[i]];
        }
    }
};

struct Sim {
    const Netlist &n;
    std::vector<Ram> rams;
    std::vector<uint8_t> open;  // clock domains that have an edge now
    std::vector<uint8_t> value, pending, pending_value, queued, next_d;
    std::vector<int32_t> fan_first, fan_gate, fan_slot, level;
    std::vector<uint32_t> serial;
    uint64_t *toggles;
    double *energy = nullptr;  // of this cycle, by group
    bool counting = false;

    explicit Sim(const Netlist &netlist) : n(netlist) {
        value.assign(n.nets, 0);
        value[1] = 1;
        fan_first.assign(n.nets + 1, 0);
        for (int i = 0; i < n.gate_first[n.gates]; i++) fan_first[n.gate_in[i] + 1]++;
        for (int i = 0; i < n.nets; i++) fan_first[i + 1] += fan_first[i];
        fan_gate.resize(n.gate_first[n.gates]);
        fan_slot.resize(n.gate_first[n.gates]);
        std::vector<int32_t> at(fan_first.begin(), fan_first.end() - 1);
        for (int g = 0; g < n.gates; g++)
            for (int i = n.gate_first[g]; i < n.gate_first[g + 1]; i++) {
                int p = at[n.gate_in[i]]++;
                fan_gate[p] = g;
                fan_slot[p] = i;
            }
        next_d.assign(n.flops, 0);
        const int32_t *ram = n.ram;
        for (int i = 0; i < n.rams; i++) rams.emplace_back(ram);
        open.assign(n.clocks + 1, 1);
    }

    uint8_t evaluate(int g) const {
        unsigned index = 0;
        for (int i = n.gate_first[g], b = 0; i < n.gate_first[g + 1]; i++, b++) index |= unsigned(value[n.gate_in[i]]) << b;
        return n.table[g] >> index & 1;
    }

    // Levels by Kahn's order; false for a combinational loop.
    bool levelize() {
        std::vector<int32_t> missing(n.gates, 0), driver(n.nets, -1), ready;
        for (int g = 0; g < n.gates; g++) driver[n.gate_out[g]] = g;
        level.assign(n.gates, 0);
        for (int g = 0; g < n.gates; g++) {
            for (int i = n.gate_first[g]; i < n.gate_first[g + 1]; i++) missing[g] += driver[n.gate_in[i]] >= 0;
            if (!missing[g]) ready.push_back(g);
        }
        for (size_t k = 0; k < ready.size(); k++) {
            int g = ready[k], out = n.gate_out[g];
            for (int p = fan_first[out]; p < fan_first[out + 1]; p++) {
                level[fan_gate[p]] = std::max(level[fan_gate[p]], level[g] + 1);
                if (!--missing[fan_gate[p]]) ready.push_back(fan_gate[p]);
            }
        }
        if (int(ready.size()) != n.gates) return false;
        for (int g : ready) value[n.gate_out[g]] = evaluate(g);
        return true;
    }

    // Which clock domains have an edge, what flip-flops and memory banks take with it.
    void edge() {
        for (int i = 0; i < n.clocks; i++) open[i] = value[n.clock_enable[i]] && open[n.clock_parent[i]];
        for (int f = 0; f < n.flops; f++)
            if (open[n.flop_clock[f]]) next_d[f] = value[n.flop_d[f]];
        for (Ram &ram : rams)
            if (open[ram.clock]) ram.edge(value);
        if (!energy) return;
        for (int i = 0; i <= n.clocks; i++)
            for (int g = 0; open[i] && g < n.groups; g++) energy[g] += n.clock_energy[i * n.groups + g];
    }

    void set(int net, uint8_t v) {
        value[net] = v;
        if (!counting) return;
        toggles[net]++;
        if (energy) energy[n.group[net]] += n.weight[net];
    }

    // Zero delay.
    std::vector<std::vector<int32_t>> buckets;
    void mark(int net) {
        for (int p = fan_first[net]; p < fan_first[net + 1]; p++) {
            int g = fan_gate[p];
            if (queued[g]) continue;
            queued[g] = 1;
            buckets[level[g]].push_back(g);
        }
    }
    void change_now(int net, uint8_t v) {
        if (value[net] == v) return;
        set(net, v);
        mark(net);
    }
    void settle_levels() {
        for (auto &bucket : buckets) {
            for (size_t k = 0; k < bucket.size(); k++) {
                int g = bucket[k];
                queued[g] = 0;
                change_now(n.gate_out[g], evaluate(g));
            }
            bucket.clear();
        }
    }

    // Timed. An event is (net, serial): stale when the gate was cancelled since.
    struct Event { int32_t net; uint32_t serial; uint8_t v; };
    std::vector<std::vector<Event>> wheel;
    std::vector<uint64_t> occupied;
    std::vector<int32_t> driver;
    int64_t live = 0;
    void schedule(int64_t t, int net, uint8_t v) {
        int slot = t & (WHEEL - 1);
        wheel[slot].push_back({net, serial[net], v});
        occupied[slot >> 6] |= 1ull << (slot & 63);
        live++;
    }
    void settle_timed() {
        std::vector<int32_t> changed;
        for (int64_t t = 0; live > 0; t++) {
            int slot = t & (WHEEL - 1);
            uint64_t word = occupied[slot >> 6] >> (slot & 63);
            if (!word) { t |= 63; continue; }
            t += __builtin_ctzll(word);
            slot = t & (WHEEL - 1);
            auto &events = wheel[slot];
            changed.clear();
            for (const Event &e : events) {
                live--;
                if (e.serial != serial[e.net]) continue;
                pending[e.net] = 0;
                if (value[e.net] == e.v) continue;
                set(e.net, e.v);
                changed.push_back(e.net);
            }
            events.clear();
            occupied[slot >> 6] &= ~(1ull << (slot & 63));
            for (int net : changed)
                for (int p = fan_first[net]; p < fan_first[net + 1]; p++) {
                    int g = fan_gate[p], out = n.gate_out[g];
                    uint8_t v = evaluate(g);
                    if (pending[out]) {
                        if (pending_value[out] == v) continue;
                        pending[out] = 0;  // shorter than the gate's delay: filtered
                        serial[out]++;
                    }
                    if (v == value[out]) continue;
                    pending[out] = 1;
                    pending_value[out] = v;
                    int32_t delay = v ? n.rise[fan_slot[p]] : n.fall[fan_slot[p]];
                    schedule(t + std::min(std::max(delay, 1), WHEEL - 1), out, v);
                }
        }
    }
};

uint8_t bit(const uint8_t *bytes, int64_t i) { return bytes[i >> 3] >> (i & 7) & 1; }

}  // namespace

// Delays in picoseconds. stimuli: `cycles` rows of inputs bits, each row padded to bytes; results likewise. Toggles and energies (cycles
// x groups, or null) are counted from cycle `from` on. Returns 0, or 1 for a combinational loop.
extern "C" int simulate(const Netlist *netlist, int timed, int64_t cycles, int64_t from, int32_t input_delay,
                        int32_t ram_delay, const uint8_t *stimuli, uint8_t *results, uint64_t *toggles, double *energies) {
    const Netlist &n = *netlist;
    Sim sim(n);
    sim.toggles = toggles;
    const int64_t in_bytes = (n.inputs + 7) / 8, out_bytes = (n.outputs + 7) / 8;
    if (cycles) for (int i = 0; i < n.inputs; i++) sim.value[n.input_net[i]] = bit(stimuli, i);
    for (int f = 0; f < n.flops; f++) if (n.flop_qn[f] >= 0) sim.value[n.flop_qn[f]] = 1;
    if (!sim.levelize()) return 1;
    sim.queued.assign(n.gates, 0);
    int levels = 1;
    for (int l : sim.level) levels = std::max(levels, l + 1);
    sim.buckets.resize(levels);
    if (timed) {
        sim.pending.assign(n.nets, 0);
        sim.pending_value.assign(n.nets, 0);
        sim.serial.assign(n.nets, 0);
        sim.wheel.resize(WHEEL);
        sim.occupied.assign(WHEEL / 64, 0);
    }
    for (int64_t c = 0; c < cycles; c++) {
        sim.counting = c >= from;
        sim.energy = energies && sim.counting ? energies + c * n.groups : nullptr;
        if (c) sim.edge();
        const uint8_t *row = stimuli + c * in_bytes;
        for (int f = 0; c && f < n.flops; f++) {
            uint8_t v = sim.next_d[f];
            if (sim.value[n.flop_q[f]] == v) continue;
            if (timed) {
                sim.schedule(n.flop_delay[f], n.flop_q[f], v);
                if (n.flop_qn[f] >= 0) sim.schedule(n.flop_delay[f], n.flop_qn[f], !v);
            } else {
                sim.change_now(n.flop_q[f], v);
                if (n.flop_qn[f] >= 0) sim.change_now(n.flop_qn[f], !v);
            }
        }
        for (const Ram &ram : sim.rams)
            for (int i = 0; i < ram.width; i++) {
                if (sim.value[ram.rdata[i]] == ram.read[i]) continue;
                if (timed) sim.schedule(ram_delay, ram.rdata[i], ram.read[i]);
                else sim.change_now(ram.rdata[i], ram.read[i]);
            }
        for (int i = 0; i < n.inputs; i++) {
            uint8_t v = bit(row, i);
            if (sim.value[n.input_net[i]] == v) continue;
            if (timed) sim.schedule(input_delay, n.input_net[i], v);
            else sim.change_now(n.input_net[i], v);
        }
        if (timed) sim.settle_timed();
        else sim.settle_levels();
        uint8_t *out = results + c * out_bytes;
        for (int i = 0; i < n.outputs; i++) out[i >> 3] |= sim.value[n.output_net[i]] << (i & 7);
    }
    return 0;
}
