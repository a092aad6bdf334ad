// A small number per thread, for data that has one part per thread.

#ifndef MMU_CORE_BASE_THREAD_INDEX_H_
#define MMU_CORE_BASE_THREAD_INDEX_H_

#include <cstdint>

namespace mmu {

// Returned to a thread that is ending and has released its number.
inline constexpr uint32_t kNoThreadIndex = UINT32_MAX;

namespace thread_index_internal {
// 0 = the thread has no number yet. constinit: no guard on the fast path.
extern constinit thread_local uint32_t index_plus_one;
uint32_t Assign();
}  // namespace thread_index_internal

// The calling thread's number: the lowest number that no other living thread
// has. Successive owners of a number are ordered: everything that the first did
// before it ended happens before everything that the second does with the
// number. Data indexed by the number therefore needs no atomic
// read-modify-write. Returns kNoThreadIndex late in a thread's end.
// Thread-safe.
inline uint32_t ThreadIndex() {
  const uint32_t index = thread_index_internal::index_plus_one;
  return (index != 0 ? index : thread_index_internal::Assign()) - 1;
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_THREAD_INDEX_H_
