// Lets allocations of a thread fail, one after the other, and counts them.
//
// Linking this library is all that a program needs: it replaces operator new
// and delete, and it stands before the C library's mmap and memfd_create. So
// every allocation that mmu_core makes is reached, also those of code that is
// yet to be written: objects and containers (operator new), tables,
// descriptors, bitmaps, rmaps and guest memory (mmap, memfd_create). What the C
// library and others take by malloc and calloc is counted, but does not fail:
// they would not stand it. (Not counted under a sanitizer, whose functions
// those are.)
//
// A test that a change is all or nothing, whichever allocation fails:
//
//   for (uint64_t n = 1;; ++n) {
//     Subject subject;                     // fresh each time
//     const Attempt attempt =
//         FailOneAllocation(n, [&] { return subject.Change(); });
//     if (!attempt.failed) break;          // it makes fewer than n
//     ...                                  // it failed: nothing is changed
//   }

#ifndef MMU_CORE_TESTING_FAILING_ALLOCATIONS_H_
#define MMU_CORE_TESTING_FAILING_ALLOCATIONS_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace mmu::testing {

struct Attempt {
  absl::Status status;  // of the operation
  // The allocation was reached, and failed. An operation that can do without
  // may be OK all the same.
  bool failed = false;
};

// Runs `operation`, and has the `nth` allocation (from 1) that this thread
// makes in it fail: operator new throws, or returns null if asked to, mmap and
// memfd_create fail with ENOMEM. Only that one. Not within another such call.
Attempt FailOneAllocation(uint64_t nth,
                          absl::FunctionRef<absl::Status()> operation);

// What this thread allocated since it began, in all of these ways, each once;
// mmap takes whole pages.
struct AllocationCount {
  uint64_t calls = 0;
  uint64_t bytes = 0;
};
AllocationCount AllocationsOfThread();

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_FAILING_ALLOCATIONS_H_
