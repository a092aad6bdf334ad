// Filling a thread's own stock of tables or other pieces from the pool that all
// share, before mmu_lock is taken (LCK-01).
//
// A piece that nobody can reach any more goes back to its pool in two steps: a
// thread comes to it, and unlinks it (Reclaim); then an RCU grace period
// passes. Until then it is neither in use nor free. A pool that has nothing but
// that is not exhausted, so whoever needs a piece waits for what was on its way
// when it found too little. Every stock is filled by FillFromPool, so that
// everybody does.

#ifndef MMU_CORE_SYNC_REFILL_H_
#define MMU_CORE_SYNC_REFILL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace mmu {

// A thread takes apart what nobody can reach any more, or will be able to in a
// moment: tables under roots that it invalidates, tables and shadow pages that
// it unlinks. (An obsolete root that a vCPU is on goes only when that vCPU
// drops it, at its next access; of a vCPU that does not run it is in use.)
// Exists from before the first of that cannot be reached until the last was
// handed to RCU. It may let go of mmu_lock meanwhile, which takes long; whoever
// lacks pieces waits for its end.
//
// Neither made nor ended in a way that allocates or blocks for long, so it may
// be under mmu_lock. Its thread may not fill a stock (checked): it would wait
// for itself. Externally synchronised: belongs to the thread that made it.
class Reclaim {
 public:
  Reclaim();
  ~Reclaim();
  Reclaim(const Reclaim&) = delete;
  Reclaim& operator=(const Reclaim&) = delete;

  // Whether the calling thread has one: what it unlinks meanwhile is covered.
  static bool ThisThreadHasOne();

 private:
  friend class OpenReclaims;

  uint64_t number_ = 0;  // 1 is the first of the process
  Reclaim* older_ = nullptr;
  Reclaim* newer_ = nullptr;
};

// What one look into a pool came to. A value.
struct Refill {
  bool enough = false;  // the stock has what its owner needs
  // Pieces of the pool that were in their grace period at that moment: whoever
  // counts one as such is in an RCU read section from then until it has handed
  // the piece to RCU.
  uint64_t in_grace_period = 0;
};

// Whether the calling thread may fill a stock: it is in no RCU read section and
// has no Reclaim, for whose end it might wait, and holds no mmu_lock, under
// which nothing is allocated. The latter is known in debug builds only.
bool MayFillFromPool();

// `take` moves pieces from the pool to the stock. If they are too few and
// others are on their way, waits for those and calls `take` again, until it has
// enough or all that was on its way then is back in the pool, and others were
// faster. True if there is enough. REQUIRES: MayFillFromPool() (checked).
bool FillFromPool(absl::FunctionRef<Refill()> take);

// How many calls waited, in the whole process. Thread-safe.
uint64_t GracePeriodWaits();

}  // namespace mmu

#endif  // MMU_CORE_SYNC_REFILL_H_
