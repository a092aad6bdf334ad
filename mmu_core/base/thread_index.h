// A small number for each thread, for data that each thread has a part of.

#ifndef MMU_CORE_BASE_THREAD_INDEX_H_
#define MMU_CORE_BASE_THREAD_INDEX_H_

#include <cstdint>

namespace mmu {

// What a thread gets that is ending and has given its number back.
inline constexpr uint32_t kNoThreadIndex = UINT32_MAX;

namespace thread_index_internal {
// 0 = this thread has no number yet. constinit: no guard on the fast path.
extern constinit thread_local uint32_t index_plus_one;
uint32_t Assign();
}  // namespace thread_index_internal

// The calling thread's number: the lowest that no other living thread has. Two
// threads that have it one after the other are ordered: what the first did
// before it ended happened before everything the second does with it, so data
// that belongs to a number needs no atomic read-modify-write. kNoThreadIndex
// late in a thread's end. Thread-safe.
inline uint32_t ThreadIndex() {
  const uint32_t index = thread_index_internal::index_plus_one;
  return (index != 0 ? index : thread_index_internal::Assign()) - 1;
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_THREAD_INDEX_H_
