// The epochs of one slot's dirty log: what was sealed and not yet acknowledged.
//
// Pages are marked in the slot's bitmap; that is the open epoch. Sealing moves
// them to a second bitmap and opens the next epoch; nothing is protected and
// nothing is forgotten. Acknowledging takes pages out of the second bitmap; the
// caller then re-protects them, flushes, and only then may anybody copy them.
//
// Invariant: a page written at time t is marked in the open bitmap or in the
// sealed one until an acknowledgement after t takes it out. So whoever
// acknowledges first and copies afterwards never misses a write, and a client
// that dies in between leaves everything for the next one.

#ifndef MMU_CORE_DIRTY_EPOCH_LOG_H_
#define MMU_CORE_DIRTY_EPOCH_LOG_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/sync/mutex.h"

namespace mmu {

// A word of a bitmap: bit i is page 64 * index + i of the slot.
struct BitmapWord {
  uint64_t index;
  uint64_t bits;
};

// Thread-safe.
class EpochLog {
 public:
  // `open` is the slot's bitmap, into which vCPUs mark; or one of the log's own
  // if they have rings. Null if it is null, or the host has no memory for the
  // bitmap of the sealed epoch.
  static std::shared_ptr<EpochLog> TryCreate(uint32_t slot,
                                             std::shared_ptr<DirtyBitmap> open,
                                             const SlotLogConfig& config);
  EpochLog(uint32_t slot, std::shared_ptr<DirtyBitmap> open,
           std::shared_ptr<DirtyBitmap> sealed, const SlotLogConfig& config);

  // The first epoch gets the number `epoch`, at least 1, instead of 1.
  // REQUIRES: nobody else knows this log yet.
  void NumberFrom(uint64_t epoch);

  uint32_t slot() const { return slot_; }
  const SlotLogConfig& config() const { return config_; }
  uint64_t npages() const { return open_->npages(); }

  // Marks page `page`, or the pages of `bits` in word `i`, in the open epoch,
  // if they were noted elsewhere (a dirty ring).
  void MarkOpen(uint64_t page) { open_->Mark(page); }
  void MarkOpenWord(uint64_t i, uint64_t bits) { open_->MarkWord(i, bits); }

  // Moves every marked page into the sealed epoch and opens the next. Every
  // mark that returned before the call is in.
  SealResult Seal(MonotonicTime now);

  // As Vm::ReadDirtyLog.
  absl::Status Read(uint64_t epoch, uint64_t first_page,
                    absl::Span<uint64_t> words) const;

  // Takes the pages of `mask` (bit 0 is page `first_page`, a multiple of 64)
  // that are sealed out of the sealed epoch and returns them. ABORTED
  // EPOCH_MISMATCH unless `epoch` is the last sealed one; then nothing changed.
  absl::StatusOr<std::vector<BitmapWord>> Acknowledge(
      uint64_t epoch, uint64_t first_page, absl::Span<const uint64_t> mask);

  // As of the last seal or acknowledgement that ended: waits for none.
  DirtyLogInfo Info() const ABSL_LOCKS_EXCLUDED(told_mu_);
  // These wait for one that is under way.
  uint64_t open_epoch() const;
  // Sealed and not acknowledged.
  uint64_t unacked_page_count() const;
  // Those, and what is in the open epoch: all that nobody has acknowledged. A
  // page that is in both counts once.
  uint64_t dirty_page_count() const;
  // Of either epoch; for the auditor.
  bool IsDirty(uint64_t page) const {
    MutexLock lock(mu_);  // a seal moves pages from one to the other
    return open_->Test(page) || sealed_->Test(page);
  }

 private:
  // 0 if none was sealed yet.
  uint64_t SealedEpoch() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return open_epoch_ == first_epoch_ ? 0 : open_epoch_ - 1;
  }

  // Has Info tell what is true now.
  void Tell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint32_t slot_;
  const SlotLogConfig config_;
  const std::shared_ptr<DirtyBitmap> open_;

  mutable Mutex mu_;  // above told_mu_
  const std::shared_ptr<DirtyBitmap> sealed_ ABSL_GUARDED_BY(mu_);
  uint64_t first_epoch_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t open_epoch_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t unacked_ ABSL_GUARDED_BY(mu_) = 0;
  MonotonicTime oldest_unacked_ ABSL_GUARDED_BY(mu_) =
      MonotonicTime::InfiniteFuture();

  // A seal of much memory holds mu_ for long; this one nobody does.
  mutable Mutex told_mu_ ABSL_ACQUIRED_AFTER(mu_);  // leaf
  DirtyLogInfo told_ ABSL_GUARDED_BY(told_mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_EPOCH_LOG_H_
