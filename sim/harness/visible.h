// Signals inside the model, by name: memory arrays of `ternbin_ram`, counters, what else is visible.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "verilated.h"
#include "verilated_syms.h"

// One bank: an array of equal words.
struct Bank {
    const uint8_t* data;
    size_t stride;  // bytes from word to word
    size_t words;
};

inline bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The array `mem` in the scope that ends in `.path`; data == nullptr where there is none.
inline Bank find_bank(VerilatedContext& context, const std::string& path) {
    for (const auto& entry : *context.scopeNameMap()) {
        if (!ends_with(entry.first, "." + path)) continue;
        if (VerilatedVar* var = entry.second->varFind("mem"))
            return {static_cast<const uint8_t*>(var->datap()), var->entSize(), size_t(var->elements(1))};
    }
    return {nullptr, 0, 0};
}

// A signal, low bits first.
struct Signal {
    const uint8_t* data = nullptr;
    size_t bytes = 0;
    uint64_t value() const {  // of at most 64 bits
        uint64_t result = 0;
        std::memcpy(&result, data, bytes);
        return result;
    }
};

inline Signal find_signal(VerilatedContext& context, const std::string& name) {
    for (const auto& entry : *context.scopeNameMap())
        if (VerilatedVar* var = entry.second->varFind(name.c_str()))
            return {static_cast<const uint8_t*>(var->datap()), var->entSize()};
    return {};
}
