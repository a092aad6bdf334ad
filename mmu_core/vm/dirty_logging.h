// Dirty logging of a VM's slots: switching it on and off, re-protecting what
// was taken from a log (section 8 of the behaviour reference), and keeping
// each slot's epochs.
//
// Order on the way in (DL-02): split, protect, flush. Order on the way out of
// a clear (DL-10, DL-12): take bits, protect, flush, return; the copy comes
// after. What the bits do between seal and clear: dirty/epoch_log.h.

#ifndef MMU_CORE_VM_DIRTY_LOGGING_H_
#define MMU_CORE_VM_DIRTY_LOGGING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/epoch_log.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mutex.h"

namespace mmu {

struct VmState;

// The logs by slot, of address space 0. Thread-safe; Add and Remove are called
// under slots_lock.
class EpochLogs {
 public:
  // Null if `slot` does not log.
  std::shared_ptr<EpochLog> Find(uint32_t slot) const;
  // In the order of their slots.
  std::vector<std::shared_ptr<EpochLog>> All() const;
  bool empty() const;
  // An epoch's number is used once in the life of a VM: a client that sealed an
  // epoch of a log that is gone must not clear pages of the next log. Takes the
  // nodes of `logs`, whose slots have none yet, and so needs no memory.
  using Map = std::map<uint32_t, std::shared_ptr<EpochLog>>;
  void Add(Map logs);
  void Remove(uint32_t slot);

 private:
  mutable Mutex mu_;  // leaf; never held during work on a log
  uint64_t next_epoch_ ABSL_GUARDED_BY(mu_) = 1;
  Map logs_ ABSL_GUARDED_BY(mu_);
};

// NOT_FOUND MEMSLOT_NOT_FOUND and FAILED_PRECONDITION DIRTY_LOG_OFF, with what
// to do about it.
absl::Status NoSuchSlot(uint32_t slot);
absl::Status DirtyLogOff(uint32_t slot);

// Takes into the open epochs what rings and CPUs' logs have noted so far. Not
// under mmu_lock. `cost` may be null.
void TakeInNotedPages(VmState& vm, MmuCost* cost);

// FAILED_PRECONDITION UNACKED_EPOCH if `log` has dirty pages that nobody has
// cleared, in the open epoch or in a sealed one: what is about to end it would
// lose them. `field` of the caller's request named the slot.
absl::Status CheckNoUnacked(const EpochLog& log, const char* field);

// Keeps all vCPUs out of the guest while it exists, so that no page gets dirty.
// Not to be made under slots_lock, nor in an RCU read section.
class HeldVcpus {
 public:
  explicit HeldVcpus(VmState& vm);
  ~HeldVcpus() { LetGo(); }
  HeldVcpus(const HeldVcpus&) = delete;
  HeldVcpus& operator=(const HeldVcpus&) = delete;

  // They may go on now.
  void LetGo();

 private:
  VmState* vm_;  // null: let go
};

// Has all vCPUs empty their CPUs' logs: when it returns, every page written
// before the call is marked (DL-31). Nothing to do without PML. Not under
// mmu_lock. `cost` may be null.
void SyncCpuDirtyLogs(VmState& vm, MmuCost* cost);

// The functions below are the bodies of the Vm functions of the same names.

absl::Status StartDirtyLog(VmState& vm, const DirtyLogConfig& config,
                           MmuCost* cost);
enum class DiscardUnacked : uint8_t { kNo, kYes };
enum class RecoverOnStop : uint8_t { kNo, kYes };
absl::StatusOr<StopResult> StopDirtyLog(VmState& vm,
                                        const std::vector<uint32_t>& slots,
                                        RecoverOnStop recover,
                                        DiscardUnacked discard, MmuCost* cost);
absl::StatusOr<ClearResult> ClearDirtyLog(VmState& vm, uint32_t slot,
                                          uint64_t epoch, uint64_t first_page,
                                          uint64_t page_count,
                                          absl::Span<const uint64_t> mask,
                                          MmuCost* cost);

// --- KVM's own calls, for those who drive a slot's bitmap without epochs ---

// Manual protection (DL-14): bit 0 switches it on, bit 1 makes bitmaps start
// all dirty and needs bit 0. Replaces the value before, for slots whose log is
// switched on later. `flags` is 0. INVALID_ARGUMENT INVALID_DIRTY_LOG_MODE
// (EINVAL) for anything else. StartDirtyLog has its own say for its slots.
inline constexpr uint64_t kManualProtectEnable = 1;
inline constexpr uint64_t kManualProtectInitiallySet = 2;
absl::Status EnableManualProtect(VmState& vm, uint64_t bits, uint32_t flags);

// Legacy GET (DL-10..12): takes the bitmap, re-protects what was in it, flushes
// if that was anything, returns it. NOT_FOUND ENOENT without a log.
// Not for a slot whose epochs are in use: it would take their open pages. These
// three: FAILED_PRECONDITION ENXIO if the VM logs into rings only (DL-25).
absl::StatusOr<std::vector<uint64_t>> GetAndClearDirtyLog(VmState& vm,
                                                          uint32_t slot,
                                                          MmuCost* cost);
// Manual-protect GET (DL-13): copies, changes nothing.
absl::StatusOr<std::vector<uint64_t>> CopyDirtyLog(VmState& vm, uint32_t slot);
// CLEAR (DL-20..26): of the pages asked for, those set are cleared in the
// bitmap and re-protected. `npages` is the slot's; see ClearDirtyLog.
absl::StatusOr<ClearResult> ClearBitmap(VmState& vm, uint32_t slot,
                                        uint64_t first_page,
                                        uint64_t page_count,
                                        absl::Span<const uint64_t> mask,
                                        MmuCost* cost);

// The rules of a clear's range (DL-20..23). `slot_pages` 0: no such slot, of
// which DL-20 comes first.
absl::Status CheckClearRange(uint64_t slot_pages, uint64_t first_page,
                             uint64_t page_count, size_t mask_words);

}  // namespace mmu

#endif  // MMU_CORE_VM_DIRTY_LOGGING_H_
