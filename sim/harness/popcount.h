// Included after Verilator's headers by all code that it generates: its own popcount shifts and masks, the machine's is one instruction.
#pragma once

#define VL_COUNTONES_I(lhs) static_cast<IData>(__builtin_popcount(lhs))
#define VL_COUNTONES_Q(lhs) static_cast<IData>(__builtin_popcountll(lhs))
