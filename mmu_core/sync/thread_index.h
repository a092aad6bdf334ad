// A small number for each thread, to spread per-thread data over shards.

#ifndef MMU_CORE_SYNC_THREAD_INDEX_H_
#define MMU_CORE_SYNC_THREAD_INDEX_H_

#include <cstdint>

namespace mmu {

namespace thread_index_internal {
// 0 = this thread has no number yet. constinit: no guard on the fast path.
extern constinit thread_local uint32_t index_plus_one;
uint32_t Assign();
}  // namespace thread_index_internal

// The calling thread's number: 0, 1, 2, ... in the order of first use. Never
// reused, so take it modulo the number of shards. Thread-safe.
inline uint32_t ThreadIndex() {
  const uint32_t index = thread_index_internal::index_plus_one;
  return (index != 0 ? index : thread_index_internal::Assign()) - 1;
}

}  // namespace mmu

#endif  // MMU_CORE_SYNC_THREAD_INDEX_H_
