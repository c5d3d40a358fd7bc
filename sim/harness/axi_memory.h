// External memory behind the AXI4 master port of the core: fixed latency, bandwidth as a fraction, optional random stalls.
//
// Timing, in cycles of the core's clock. A read burst whose address is taken in cycle n offers its first beat in cycle
// n + latency at the earliest; bursts are served in order. A write response comes `latency` cycles after the last data beat.
// Write data is accepted once its address was taken. Each direction gains `beats` / `cycles` of a data beat a cycle and keeps less
// than one from cycle to cycle; each beat, offered or accepted, uses up one.
// With a stall seed other than 0, every channel pauses in 3 of 8 cycles at random. sim/tb/axi_model.py is the same model in
// Python; both must give the same cycle counts.
#pragma once

#include "axi_bytes.h"  // AXI_BYTES, written by sim/build.py

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>

struct Timing {
    uint64_t latency;     // >= 1
    uint32_t beats;       // 1 <= beats <= cycles
    uint32_t cycles;
    uint64_t stall_seed;  // 0: no stalls
};

// What a valid channel showed in the last cycle, to check that it holds until it is taken.
struct Held {
    bool waiting = false;
    uint64_t addr = 0;
    uint32_t len = 0;
};

// What the next cycle depends on, besides the open bursts and the contents of the memory.
struct AxiState {
    uint64_t random_;
    uint32_t r_credit_, w_credit_;  // in 1/cycles of a beat
    bool ar_ready_ = false, r_valid_ = false, aw_ready_ = false, w_ready_ = false, b_valid_ = false;
    Held held_ar_, held_aw_, held_w_;
};

template <class Top>
class AxiMemory : AxiState {
  public:
    static constexpr uint64_t BYTES = AXI_BYTES;
    static constexpr size_t QUEUE = 8;  // bursts in flight in each direction

    AxiMemory(Top& top, uint8_t* data, uint64_t size, Timing timing)
        : AxiState{timing.stall_seed, timing.cycles, timing.cycles}, top_(top), data_(data), size_(size), timing_(timing) {}

    // First violation of the bus protocol by the core; empty if none.
    const std::string& violation() const { return violation_; }

    // In cycle `now`: take what is handshaken, decide what the next cycle offers.
    void step(uint64_t now) {
        draw();
        check_held();
        step_read(now);
        step_write(now);
    }

    // Set the inputs of the next cycle.
    void drive() {
        top_.m_axi_arready = ar_ready_;
        top_.m_axi_rvalid = r_valid_;
        if (r_valid_) {
            const Burst& burst = reads_.front();
            std::memset(&top_.m_axi_rdata, 0, sizeof top_.m_axi_rdata);
            if (inside(burst.addr)) std::memcpy(&top_.m_axi_rdata, data_ + burst.addr, BYTES);
            top_.m_axi_rresp = inside(burst.addr) ? OKAY : DECERR;
            top_.m_axi_rlast = burst.beats == 1;
            if constexpr (requires { top_.m_axi_rid; }) top_.m_axi_rid = burst.id;
        }
        top_.m_axi_awready = aw_ready_;
        top_.m_axi_wready = w_ready_;
        top_.m_axi_bvalid = b_valid_;
        if (b_valid_) {
            top_.m_axi_bresp = replies_.front().bad ? DECERR : OKAY;
            if constexpr (requires { top_.m_axi_bid; }) top_.m_axi_bid = replies_.front().id;
        }
    }

    // All but the contents of the memory, to and from a stream of Verilator's save and restore.
    template <class Stream>
    void save(Stream& stream) const {
        stream.write(static_cast<const AxiState*>(this), sizeof(AxiState));
        for (const auto* bursts : {&reads_, &writes_, &replies_}) {
            stream << uint64_t(bursts->size());
            for (const Burst& burst : *bursts) stream.write(&burst, sizeof burst);
        }
    }

    template <class Stream>
    void restore(Stream& stream) {
        stream.read(static_cast<AxiState*>(this), sizeof(AxiState));
        for (auto* bursts : {&reads_, &writes_, &replies_}) {
            uint64_t size = 0;
            stream >> size;
            bursts->resize(size);
            for (Burst& burst : *bursts) stream.read(&burst, sizeof burst);
        }
    }

  private:
    enum Channel { AR, R, AW, W, B };
    static constexpr int OKAY = 0, DECERR = 3;

    struct Burst {
        uint64_t addr;
        uint32_t beats;  // still to come
        uint32_t id;
        uint64_t due;    // first cycle in which it may be answered
        bool bad;        // touched an address outside of the memory
    };

    bool inside(uint64_t addr) const { return addr < size_ && size_ - addr >= BYTES; }

    void draw() {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
    }

    // What the next cycle adds.
    void gain(uint32_t& credit) const { credit = std::min(credit, timing_.cycles - 1) + timing_.beats; }

    bool stall(Channel channel) const { return random_ != 0 && (random_ >> 8 * channel & 0xff) < 96; }

    void violate(const std::string& text) {
        if (violation_.empty()) violation_ = text;
    }

    void check_held_channel(const char* name, Held& held, bool valid, bool ready, uint64_t addr, uint32_t len) {
        if (held.waiting && !valid) violate(std::string(name) + " must stay valid until it is taken");
        if (held.waiting && valid && (addr != held.addr || len != held.len))
            violate(std::string(name) + " must not change until it is taken");
        held = {valid && !ready, addr, len};
    }

    void check_held() {
        check_held_channel("AR", held_ar_, top_.m_axi_arvalid, ar_ready_, top_.m_axi_araddr, top_.m_axi_arlen);
        check_held_channel("AW", held_aw_, top_.m_axi_awvalid, aw_ready_, top_.m_axi_awaddr, top_.m_axi_awlen);
        check_held_channel("W", held_w_, top_.m_axi_wvalid, w_ready_, first_bytes(&top_.m_axi_wdata), top_.m_axi_wlast);
    }

    static uint64_t first_bytes(const void* data) {
        uint64_t value = 0;
        std::memcpy(&value, data, std::min<uint64_t>(BYTES, 8));
        return value;
    }

    Burst open(uint64_t addr, uint32_t len, uint32_t size, uint32_t burst, uint32_t id, uint64_t due) {
        if ((1ull << size) != BYTES) violate("AxSIZE must be the bus width");
        if (burst != 1) violate("AxBURST must be INCR");
        if (addr % BYTES) violate("AxADDR must be aligned to the bus");
        if (addr / 4096 != (addr + (len + 1) * BYTES - 1) / 4096) violate("a burst must not cross 4 KB");
        return {addr, len + 1, id, due, false};
    }

    void step_read(uint64_t now) {
        if (r_valid_ && top_.m_axi_rready) {
            r_valid_ = false;
            Burst& burst = reads_.front();
            burst.addr += BYTES;
            if (--burst.beats == 0) reads_.pop_front();
        }
        if (top_.m_axi_arvalid && ar_ready_) {
            uint32_t id = 0;
            if constexpr (requires { top_.m_axi_arid; }) id = top_.m_axi_arid;
            reads_.push_back(open(top_.m_axi_araddr, top_.m_axi_arlen, top_.m_axi_arsize, top_.m_axi_arburst, id,
                                  now + timing_.latency));
        }
        gain(r_credit_);
        if (!r_valid_ && !reads_.empty() && now + 1 >= reads_.front().due && r_credit_ >= timing_.cycles && !stall(R)) {
            r_valid_ = true;
            r_credit_ -= timing_.cycles;
        }
        ar_ready_ = reads_.size() < QUEUE && !stall(AR);
    }

    void step_write(uint64_t now) {
        if (b_valid_ && top_.m_axi_bready) {
            b_valid_ = false;
            replies_.pop_front();
        }
        if (w_ready_ && top_.m_axi_wvalid) write_beat(now);
        if (top_.m_axi_awvalid && aw_ready_) {
            uint32_t id = 0;
            if constexpr (requires { top_.m_axi_awid; }) id = top_.m_axi_awid;
            writes_.push_back(open(top_.m_axi_awaddr, top_.m_axi_awlen, top_.m_axi_awsize, top_.m_axi_awburst, id, 0));
        }
        if (!b_valid_ && !replies_.empty() && now + 1 >= replies_.front().due && !stall(B)) b_valid_ = true;
        aw_ready_ = writes_.size() + replies_.size() < QUEUE && !stall(AW);
        gain(w_credit_);
        w_ready_ = !writes_.empty() && w_credit_ >= timing_.cycles && !stall(W);
    }

    void write_beat(uint64_t now) {
        w_credit_ -= timing_.cycles;
        Burst& burst = writes_.front();
        uint64_t strobe = 0;
        std::memcpy(&strobe, &top_.m_axi_wstrb, sizeof top_.m_axi_wstrb);
        burst.bad |= !inside(burst.addr);
        const uint8_t* source = reinterpret_cast<const uint8_t*>(&top_.m_axi_wdata);
        for (uint64_t i = 0; i < BYTES && inside(burst.addr); i++)
            if (strobe >> i & 1) data_[burst.addr + i] = source[i];
        burst.addr += BYTES;
        if (bool(top_.m_axi_wlast) != (burst.beats == 1)) violate("WLAST must mark the last beat of a burst");
        if (--burst.beats == 0) {
            burst.due = now + timing_.latency;
            replies_.push_back(burst);
            writes_.pop_front();
        }
    }

    Top& top_;
    uint8_t* data_;
    uint64_t size_;
    Timing timing_;
    std::string violation_;
    std::deque<Burst> reads_, writes_, replies_;
};
