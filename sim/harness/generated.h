// Included after all other headers by all code that Verilator generates.
#pragma once

// Verilator's own popcount shifts and masks, the machine's is one instruction.
#define VL_COUNTONES_I(lhs) static_cast<IData>(__builtin_popcount(lhs))
#define VL_COUNTONES_Q(lhs) static_cast<IData>(__builtin_popcountll(lhs))

// Conditions are enables, and few of them hold in a cycle (a fifth, counted in BART-base): so what hangs on them is laid out apart, and
// what is evaluated in every cycle stands together.
#define if(...) if (__builtin_expect(bool(__VA_ARGS__), 0))
