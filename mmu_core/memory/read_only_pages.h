// The pages of a backing that the host allows only to be read.

#ifndef MMU_CORE_MEMORY_READ_ONLY_PAGES_H_
#define MMU_CORE_MEMORY_READ_ONLY_PAGES_H_

#include <atomic>
#include <cstdint>
#include <map>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// A set of pages, identified by their host frame: hva >> 12. Thread-safe.
class ReadOnlyPages {
 public:
  ReadOnlyPages() = default;
  ReadOnlyPages(const ReadOnlyPages&) = delete;
  ReadOnlyPages& operator=(const ReadOnlyPages&) = delete;

  // Lock-free: called on every fault. A thread that must not miss an added page
  // learns of it from the invalidation around the change.
  bool empty() const { return empty_.load(std::memory_order_relaxed); }

  // Add adds the pages [first, end) to the set; Remove takes them out.
  void Add(uint64_t first, uint64_t end);
  void Remove(uint64_t first, uint64_t end);

  bool Contains(uint64_t page) const;
  // The largest level, at most `max`, whose naturally aligned block around
  // `page` is wholly in the set or wholly outside of it.
  Level UniformLevel(uint64_t page, Level max) const;

 private:
  // Takes [first, end) out of the set; the rest of each run stays.
  void RemoveLocked(uint64_t first, uint64_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;  // innermost: nothing is acquired under it
  // Maps the first page of each run to its end. Runs do not overlap or touch.
  std::map<uint64_t, uint64_t> runs_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> empty_{true};  // relaxed: written under mu_
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_READ_ONLY_PAGES_H_
