#include "mmu_core/sync/hold_clock.h"

namespace mmu {

#ifndef NDEBUG
constinit std::atomic<HoldClockFn> hold_clock_fn = nullptr;
#endif

}  // namespace mmu
