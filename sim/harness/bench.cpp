// The compiled simulation: clock, external memory, register access, probes, records. A shared library with a C interface;
// sim/runner.py is its only user and documents the meaning of every argument.
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>

#include "Vtop.h"
#include "axi_memory.h"
#include "verilated.h"
#include "verilated_save.h"
#include "visible.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Tracer = VerilatedFstC;
#elif VM_TRACE
#include "verilated_vcd_c.h"
using Tracer = VerilatedVcdC;
#endif

namespace {

constexpr int UNITS = 4;
constexpr int PROGRESS_EVERY = 2048;  // cycles between looks at the clock on the wall

// The structures that cross the C interface; sim/runner.py has the same.
struct Probe {
    uint32_t unit, index;         // instruction: unit, number within the unit's instructions of this call
    uint32_t memory, bank, banks; // memory: number given by tb_memory
    uint32_t addr, words, word_bytes;
    uint64_t offset;              // of the copy in the output
};

struct Record {
    uint32_t unit, index;
    uint64_t start, done;  // cycles since the start of the call
};

struct CallResult {
    uint64_t cycles;   // from the first cycle of the core's run to the interrupt
    uint64_t records;  // instructions done
    uint64_t probes;   // probes copied
};

enum Status { DONE = 0, CYCLE_LIMIT = 1, STOPPED = 2, VIOLATION = 3 };

// The register port in one cycle: what the host drives, then what it sees.
struct HostCycle {
    uint32_t awaddr, wdata, wstrb, araddr;
    uint8_t awvalid, wvalid, bready, arvalid, rready;
    uint8_t awready, wready, bvalid, arready, rvalid, bresp, rresp, irq;
    uint32_t rdata;
};

using Progress = int (*)(uint64_t cycles, uint64_t instructions);  // not 0: stop

struct CallContext {
    uint64_t base = 0;
    const Probe* probes = nullptr;
    uint64_t probe_count = 0;
    uint8_t* out = nullptr;
    Record* records = nullptr;
    uint64_t* deltas = nullptr;  // [record][counter]
    uint64_t capacity = 0;
    CallResult* result = nullptr;
    uint64_t next_probe[UNITS] = {};     // probes are sorted by (unit, index)
    uint32_t done_count[UNITS] = {};
    std::deque<uint64_t> starts[UNITS];
};

// Streams of a model's state to and from memory.
class StateWriter final : public VerilatedSerialize {
  public:
    explicit StateWriter(std::vector<uint8_t>& out) : out_(out) {}
    void flush() override {
        out_.insert(out_.end(), m_bufp, m_cp);
        m_cp = m_bufp;
    }

  private:
    std::vector<uint8_t>& out_;
};

class StateReader final : public VerilatedDeserialize {
  public:
    StateReader(uint8_t* data, uint64_t size) { m_cp = data, m_endp = data + size; }
    bool at_end() const { return m_cp == m_endp; }

  protected:
    void fill() override {}  // all is there already
};

class Bench {
  public:
    Bench(uint8_t* data, uint64_t size, Timing timing, uint32_t seed)
        : context_(std::make_unique<VerilatedContext>()) {
        context_->randReset(seed ? 2 : 0);  // registers without reset and memories start with random bits, or as zeros
        context_->randSeed(seed);
#if VM_TRACE
        context_->traceEverOn(true);
#endif
        top_ = std::make_unique<Vtop>(context_.get(), "TOP");
        restart_memory_ = [=, this] { memory_ = std::make_unique<AxiMemory<Vtop>>(*top_, data, size, timing); };
        top_->clk = 0;
        reset(4);
    }

    // Reset for so many cycles. External memory keeps its contents and forgets its bursts in flight.
    void reset(uint32_t cycles) {
        restart_memory_();
        clear_inputs();
        top_->rst = 1;
        while (cycles--) cycle();
        top_->rst = 0;
        cycle();
    }

    ~Bench() {
        Verilated::threadContextp(context_.get());  // another bench, freed since, may have left its own with this thread
        top_->final();
    }

    int add_memory(const std::string& path, uint32_t banks) {
        std::vector<Bank> found;
        for (uint32_t i = 0; i < banks; i++) found.push_back(find_bank(*context_, path + std::to_string(i)));
        for (const Bank& bank : found)
            if (bank.data == nullptr) return -1;
        memories_.push_back(found);
        return int(memories_.size()) - 1;
    }

    int add_counter(const std::string& name, uint32_t unit) {
        Signal counter = find_signal(*context_, name);
        if (counter.data == nullptr) return -1;
        counters_.push_back({counter, unit, counter.value()});
        return int(counters_.size()) - 1;
    }

    // From now on, what the signals of these names are in every cycle, to a file; sizes: bytes of each. False: one is not visible.
    bool record(const char* path, const char* const* names, uint32_t count, uint32_t* sizes) {
        for (uint32_t i = 0; i < count; i++) {
            recorded_.push_back(find_signal(*context_, names[i]));
            if (recorded_.back().data == nullptr) return false;
            sizes[i] = uint32_t(recorded_.back().bytes);
        }
        record_.reset(std::fopen(path, "wb"));
        return record_ != nullptr;
    }

    void waves(const char* path, uint64_t from, uint64_t to) {
        wave_from_ = from, wave_to_ = to;
#if VM_TRACE
        tracer_ = std::make_unique<Tracer>();
        top_->trace(tracer_.get(), 99);
        tracer_->open(path);
#else
        (void)path;
#endif
    }

    void close_waves() {
#if VM_TRACE
        if (tracer_) tracer_->close();
        tracer_.reset();
#endif
    }

    uint64_t now() const { return cycle_; }
    const std::string& violation() const { return memory_->violation(); }

    int write_register(uint32_t address, uint32_t value) {
        top_->s_axil_awaddr = address, top_->s_axil_wdata = value, top_->s_axil_wstrb = 0xf;
        top_->s_axil_awvalid = top_->s_axil_wvalid = top_->s_axil_bready = 1;
        for (int i = 0; i < REGISTER_LIMIT; i++) {
            cycle();
            if (seen_.aw) top_->s_axil_awvalid = 0;
            if (seen_.w) top_->s_axil_wvalid = 0;
            if (seen_.b) {
                top_->s_axil_bready = 0;
                return seen_.bresp;
            }
        }
        return -1;
    }

    int read_register(uint32_t address, uint32_t* value) {
        top_->s_axil_araddr = address;
        top_->s_axil_arvalid = top_->s_axil_rready = 1;
        for (int i = 0; i < REGISTER_LIMIT; i++) {
            cycle();
            if (seen_.ar) top_->s_axil_arvalid = 0;
            if (seen_.r) {
                top_->s_axil_rready = 0;
                *value = seen_.rdata;
                return seen_.rresp;
            }
        }
        return -1;
    }

    // One cycle in which the host drives the register port itself.
    void host_cycle(HostCycle& port) {
        top_->s_axil_awaddr = port.awaddr, top_->s_axil_wdata = port.wdata, top_->s_axil_wstrb = port.wstrb;
        top_->s_axil_araddr = port.araddr, top_->s_axil_awvalid = port.awvalid, top_->s_axil_wvalid = port.wvalid;
        top_->s_axil_bready = port.bready, top_->s_axil_arvalid = port.arvalid, top_->s_axil_rready = port.rready;
        cycle();
        port.awready = top_->s_axil_awready, port.wready = top_->s_axil_wready, port.bvalid = top_->s_axil_bvalid;
        port.arready = top_->s_axil_arready, port.rvalid = top_->s_axil_rvalid, port.bresp = top_->s_axil_bresp;
        port.rresp = top_->s_axil_rresp, port.rdata = top_->s_axil_rdata, port.irq = top_->irq;
    }

    // Between calls: all that later cycles depend on, but the contents of external memory.
    const std::vector<uint8_t>& save() {
        state_.clear();
        StateWriter stream(state_);
        stream << *top_;
        stream << cycle_ << started_ << done_;
        memory_->save(stream);
        stream.flush();
        return state_;
    }

    // Continue where a bench of the same model and timing was saved; false: not such a state.
    bool restore(uint8_t* data, uint64_t size) {
        StateReader stream(data, size);
        stream >> *top_;
        stream >> cycle_ >> started_ >> done_;
        memory_->restore(stream);
        return stream.at_end();
    }

    static constexpr uint32_t CTRL_CLEAR = 4;

    // Start the core through its control register and run until the interrupt.
    Status call(uint32_t control, uint32_t start, uint64_t limit, Progress progress, CallContext& call) {
        const bool cleared = start & CTRL_CLEAR;  // the same write clears the counters
        for (auto& counter : counters_) counter.last = cleared ? 0 : counter.counter.value();
        skip_probes(call);
        call_ = &call;
        call.base = cycle_ + 1;  // the core sees the write from the next cycle on
        if (write_register(control, start) != 0) return STOPPED;
        Status status = wait(limit, progress);
        call_ = nullptr;
        call.result->cycles = cycle_ - call.base;
        return status;
    }

  private:
    static constexpr int REGISTER_LIMIT = 1000;

    struct Watched {
        Signal counter;
        uint32_t unit;
        uint64_t last;
    };

    // Handshakes of the register port in the current cycle.
    struct Seen {
        bool aw, w, b, ar, r;
        int bresp, rresp;
        uint32_t rdata;
    };

    void clear_inputs() {
        top_->s_axil_awvalid = top_->s_axil_wvalid = top_->s_axil_bready = top_->s_axil_arvalid = top_->s_axil_rready = 0;
        memory_->drive();
    }

    Status wait(uint64_t limit, Progress progress) {
        auto last = std::chrono::steady_clock::now();
        for (uint64_t i = 1; !top_->irq; i++) {
            cycle();
            if (!violation().empty()) return VIOLATION;
            if (i >= limit) return CYCLE_LIMIT;
            if (i % PROGRESS_EVERY || progress == nullptr) continue;
            auto time = std::chrono::steady_clock::now();
            if (time - last < std::chrono::milliseconds(200)) continue;
            last = time;
            if (progress(cycle_ - call_->base, call_->result->records)) return STOPPED;
        }
        return DONE;
    }

    // The clock edge that ends the current cycle; then what the new cycle shows. Inputs are registers of the wrapper: what is
    // written to them now, the core sees after the next edge.
    void cycle() {
        const uint32_t started = started_, done = done_;
        top_->clk = 1;
        top_->eval();
        dump(0);
        if (call_ != nullptr && (started | done)) trace(started, done);
        top_->clk = 0;
        top_->eval();
        dump(1);
        cycle_++;
        started_ = top_->trace_start, done_ = top_->trace_done;
        if (record_)
            for (const Signal& signal : recorded_) std::fwrite(signal.data, 1, signal.bytes, record_.get());
        sample_registers();
        if (!top_->rst) memory_->step(cycle_);
        memory_->drive();
    }

    void dump(int phase) {
#if VM_TRACE
        if (tracer_ && cycle_ >= wave_from_ && cycle_ < wave_to_) tracer_->dump(2 * cycle_ + phase);
#else
        (void)phase;
#endif
    }

    void sample_registers() {
        seen_ = {
            bool(top_->s_axil_awvalid && top_->s_axil_awready), bool(top_->s_axil_wvalid && top_->s_axil_wready),
            bool(top_->s_axil_bvalid && top_->s_axil_bready), bool(top_->s_axil_arvalid && top_->s_axil_arready),
            bool(top_->s_axil_rvalid && top_->s_axil_rready), top_->s_axil_bresp, top_->s_axil_rresp, top_->s_axil_rdata,
        };
    }

    // Called after the clock edge that ends cycle_, in which units started or finished instructions.
    void trace(uint32_t started, uint32_t done) {
        for (uint32_t unit = 0; unit < UNITS; unit++) {
            if (started >> unit & 1) call_->starts[unit].push_back(cycle_ - call_->base);
            if (done >> unit & 1) finish(unit);
        }
    }

    void finish(uint32_t unit) {
        CallContext& call = *call_;
        const uint32_t index = call.done_count[unit]++;
        copy_probes(unit, index);
        uint64_t start = cycle_ - call.base;
        if (!call.starts[unit].empty()) {
            start = call.starts[unit].front();
            call.starts[unit].pop_front();
        }
        const uint64_t number = call.result->records++;
        if (number >= call.capacity) return;
        call.records[number] = {unit, index, start, cycle_ - call.base};
        uint64_t* deltas = call.deltas + number * counters_.size();
        for (size_t i = 0; i < counters_.size(); i++) {
            Watched& watched = counters_[i];
            if (watched.unit != unit) continue;
            const uint64_t value = watched.counter.value();
            deltas[i] = value - watched.last;
            watched.last = value;
        }
    }

    void skip_probes(CallContext& call) {
        for (uint32_t unit = 0; unit < UNITS; unit++)
            while (call.next_probe[unit] < call.probe_count && call.probes[call.next_probe[unit]].unit < unit)
                call.next_probe[unit]++;
    }

    void copy_probes(uint32_t unit, uint32_t index) {
        for (uint64_t& next = call_->next_probe[unit]; next < call_->probe_count; next++) {
            const Probe& probe = call_->probes[next];
            if (probe.unit != unit || probe.index != index) break;
            copy(probe, call_->out + probe.offset);
            call_->result->probes++;
        }
    }

    void copy(const Probe& probe, uint8_t* out) const {
        for (uint32_t b = 0; b < probe.banks; b++) {
            const Bank& bank = memories_[probe.memory][probe.bank + b];
            const uint8_t* from = bank.data + probe.addr * bank.stride;
            for (uint32_t w = 0; w < probe.words; w++, from += bank.stride, out += probe.word_bytes)
                std::memcpy(out, from, probe.word_bytes);
        }
    }

    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
    std::unique_ptr<AxiMemory<Vtop>> memory_;
    std::function<void()> restart_memory_;
#if VM_TRACE
    std::unique_ptr<Tracer> tracer_;
#endif
    struct Close {
        void operator()(FILE* file) const { std::fclose(file); }
    };
    std::unique_ptr<FILE, Close> record_;
    std::vector<Signal> recorded_;
    uint64_t wave_from_ = 0, wave_to_ = 0;
    uint64_t cycle_ = 0;
    uint32_t started_ = 0, done_ = 0;  // trace outputs of the current cycle
    Seen seen_ = {};
    std::vector<std::vector<Bank>> memories_;
    std::vector<Watched> counters_;
    std::vector<uint8_t> state_;  // as last saved
    CallContext* call_ = nullptr;
};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Bench* tb_new(uint8_t* data, uint64_t size, uint64_t latency, uint32_t beats, uint32_t cycles,
                     uint64_t stall_seed, uint32_t seed) {
    return new Bench(data, size, {latency, beats, cycles, stall_seed}, seed);
}

EXPORT void tb_free(Bench* bench) {
    bench->close_waves();
    delete bench;
}

EXPORT void tb_reset(Bench* bench, uint32_t cycles) { bench->reset(cycles); }

EXPORT int tb_memory(Bench* bench, const char* path, uint32_t banks) { return bench->add_memory(path, banks); }

EXPORT int tb_counter(Bench* bench, const char* name, uint32_t unit) { return bench->add_counter(name, unit); }

EXPORT void tb_waves(Bench* bench, const char* path, uint64_t from, uint64_t to) { bench->waves(path, from, to); }

EXPORT int tb_record(Bench* bench, const char* path, const char* const* names, uint32_t count, uint32_t* sizes) {
    return bench->record(path, names, count, sizes);
}

EXPORT int tb_write(Bench* bench, uint32_t address, uint32_t value) { return bench->write_register(address, value); }

EXPORT int tb_read(Bench* bench, uint32_t address, uint32_t* value) { return bench->read_register(address, value); }

EXPORT void tb_host_cycle(Bench* bench, HostCycle* port) { bench->host_cycle(*port); }

EXPORT uint64_t tb_now(const Bench* bench) { return bench->now(); }

EXPORT const char* tb_violation(const Bench* bench) { return bench->violation().c_str(); }

EXPORT int tb_call(Bench* bench, uint32_t control, uint32_t start, uint64_t limit, Progress progress,
                   const Probe* probes, uint64_t probe_count, uint8_t* out, Record* records, uint64_t* deltas,
                   uint64_t capacity, CallResult* result) {
    CallContext call;
    call.probes = probes, call.probe_count = probe_count, call.out = out;
    call.records = records, call.deltas = deltas, call.capacity = capacity, call.result = result;
    *result = {};
    return bench->call(control, start, limit, progress, call);
}

EXPORT const uint8_t* tb_save(Bench* bench, uint64_t* size) {
    const std::vector<uint8_t>& state = bench->save();
    *size = state.size();
    return state.data();
}

EXPORT int tb_restore(Bench* bench, uint8_t* data, uint64_t size) { return bench->restore(data, size); }
