// Filling a thread's own stock of tables or other pieces from the shared pool,
// before mmu_lock is taken (LCK-01).
//
// An unreachable piece returns to its pool in two steps: a thread unlinks it
// (Reclaim), and then an RCU grace period passes. Until then the piece is
// neither in use nor free. A pool whose pieces are all in these steps is not
// exhausted, so a thread that needs a piece waits for the pieces that were
// being returned when it found too few. Every stock is filled by FillFromPool,
// so every thread follows this rule.

#ifndef MMU_CORE_SYNC_REFILL_H_
#define MMU_CORE_SYNC_REFILL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace mmu {

// Marks that the thread tears down pieces that are unreachable or about to
// become so: tables under roots that it invalidates, tables and shadow pages
// that it unlinks. (An obsolete root of a vCPU is torn down only when that vCPU
// drops it, at its next access; while that vCPU does not run, the root is in
// use.) A Reclaim exists from before the first piece becomes unreachable until
// the last was handed to RCU. Its thread may release mmu_lock in between, which
// takes long; threads that lack pieces wait for the end of the Reclaim.
//
// Neither its constructor nor its destructor allocates or blocks for long, so
// it may be made under mmu_lock. Its thread may not fill a stock (checked): the
// thread would wait for itself. Externally synchronised: belongs to the thread
// that made it.
class Reclaim {
 public:
  Reclaim();
  ~Reclaim();
  Reclaim(const Reclaim&) = delete;
  Reclaim& operator=(const Reclaim&) = delete;

  // Whether the calling thread has a Reclaim, which covers the pieces that it
  // unlinks.
  static bool ThisThreadHasOne();

 private:
  friend class OpenReclaims;

  uint64_t number_ = 0;  // 1 is the first Reclaim of the process
  Reclaim* older_ = nullptr;
  Reclaim* newer_ = nullptr;
};

// The result of one attempt to take pieces from a pool. A value.
struct Refill {
  bool enough = false;  // the stock has what its owner needs
  // The pool's pieces that were in their grace period at that moment. A thread
  // that adds a piece to this count stays in an RCU read section from then on
  // until it has handed the piece to RCU.
  uint64_t in_grace_period = 0;
};

// Whether the calling thread may fill a stock. It must be in no RCU read
// section, must have no Reclaim (it might wait for that Reclaim's end), and
// must not hold an mmu_lock, under which nothing is allocated. The last
// condition is checked in debug builds only.
bool MayFillFromPool();

// `take` moves pieces from the pool to the stock. If they are too few while
// others are being returned, waits for those and calls `take` again. Ends when
// there are enough, or when all pieces that were then being returned are back
// in the pool and other threads took them. True if there are enough. REQUIRES:
// MayFillFromPool() (checked).
bool FillFromPool(absl::FunctionRef<Refill()> take);

// The number of calls that waited, in the whole process. Thread-safe.
uint64_t GracePeriodWaits();

}  // namespace mmu

#endif  // MMU_CORE_SYNC_REFILL_H_
