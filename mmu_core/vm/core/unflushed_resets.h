// The resets of dirty rings that have protected pages and have not flushed yet.

#ifndef MMU_CORE_VM_CORE_UNFLUSHED_RESETS_H_
#define MMU_CORE_VM_CORE_UNFLUSHED_RESETS_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// A reset flushes after it has dropped slots_lock, as KVM does. So slots_lock
// alone does not tell a thread that TLBs agree with the tables. Such a thread
// takes slots_lock, which keeps further resets from beginning, and then calls
// WaitForNone. The wait is short: a thread that flushes takes the list of vCPUs
// as its only lock, and waits only for open access sections. Thread-safe.
class UnflushedResets {
 public:
  struct Ender {
    void operator()(UnflushedResets* resets) const { resets->End(); }
  };
  // One such reset, until it is destroyed. Null: none.
  using Reset = std::unique_ptr<UnflushedResets, Ender>;

  // Called under slots_lock.
  Reset Begin();
  // Called under slots_lock, by a thread that has no Reset itself.
  void WaitForNone();
  // Whether a thread is in WaitForNone and has to wait. For tests.
  bool IsAwaited() const;

 private:
  void End();

  mutable Mutex mu_;  // leaf
  CondVar ended_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_UNFLUSHED_RESETS_H_
