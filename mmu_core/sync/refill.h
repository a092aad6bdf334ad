// Filling a thread's own stock of tables or other pieces from the pool that all
// share, before mmu_lock is taken (LCK-01).
//
// What was unlinked from page tables goes back to its pool after an RCU grace
// period; until then it is neither in use nor free. A pool that has nothing but
// that is not exhausted, so whoever needs a piece waits for the grace period,
// once. Every stock is filled by FillFromPool, so that everybody does.

#ifndef MMU_CORE_SYNC_REFILL_H_
#define MMU_CORE_SYNC_REFILL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace mmu {

// What one look into a pool came to. A value.
struct Refill {
  bool enough = false;  // the stock has what its owner needs
  // Pieces of the pool that were in their grace period at that moment.
  uint64_t in_grace_period = 0;
};

// Whether the calling thread may fill a stock: it is in no RCU read section,
// for whose end it might wait, and holds no mmu_lock, under which nothing is
// allocated. The latter is known in debug builds only.
bool MayFillFromPool();

// `take` moves pieces from the pool to the stock. If they are too few and some
// are in their grace period, waits for its end and calls `take` once more: what
// was on its way is there then, unless others were faster. True if there is
// enough. REQUIRES: MayFillFromPool() (checked).
bool FillFromPool(absl::FunctionRef<Refill()> take);

// How often that waited, in the whole process. Thread-safe.
uint64_t GracePeriodWaits();

}  // namespace mmu

#endif  // MMU_CORE_SYNC_REFILL_H_
