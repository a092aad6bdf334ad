// Lets allocations of a thread fail, one after the other, and counts them.
//
// A program only needs to link this library: it replaces operator new and
// delete, and it intercepts the C library's mmap and memfd_create. So it covers
// every allocation of mmu_core, including those of future code: objects and
// containers (operator new), tables, descriptors, bitmaps, rmaps and guest
// memory (mmap, memfd_create). Allocations by the C library and others through
// malloc and calloc are counted, but do not fail: those callers could not
// handle it. (Not counted under a sanitizer, which owns those functions.)
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
  // True if the allocation was reached, and failed. An operation that can do
  // without the memory may be OK nevertheless.
  bool failed = false;
};

// Runs `operation` and makes the `nth` allocation (from 1) that this thread
// makes in it fail: operator new throws, or its nothrow form returns null; mmap
// and memfd_create fail with ENOMEM. Only that allocation fails. Not within
// another such call.
Attempt FailOneAllocation(uint64_t nth,
                          absl::FunctionRef<absl::Status()> operation);

// The allocations of this thread since it began, of all these kinds, each
// counted once. mmap takes whole pages.
struct AllocationCount {
  uint64_t calls = 0;
  uint64_t bytes = 0;
};
AllocationCount AllocationsOfThread();

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_FAILING_ALLOCATIONS_H_
