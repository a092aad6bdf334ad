// The dirty log of a VM: its owner, and the sealed, in-flight and acknowledged
// pages.
//
// A sender seals (closes the open epoch of all slots and opens the next), reads
// the sealed pages, clears them (which write-protects the pages again and puts
// them in flight), copies them, and acknowledges once the copies have arrived.
// Only an acknowledgement makes a page delivered. If an owner dies on the way,
// the next owner gets all of its pages: a takeover seals the in-flight pages
// again.
//
// The life of a page, and why no move between sets loses it: slot_log.h,
// INV-10. The owner, the only caller that may move pages: log_owner.h. The
// protocol in all interleavings of two owners that die, retry and take over:
// models/dirty_log_protocol.pml.
//
// Rules for other processes, on which the guarantee depends too:
//   - a page is copied after the clear that names it has been answered. A clear
//     whose answer was lost is repeated before anything else is done;
//   - an epoch is acknowledged once the copies of all pages that were cleared
//     in it, or before, have arrived at the destination;
//   - a destination refuses the copies of a former owner before the new owner
//     acquires the log. A copy that arrives late would overwrite a newer one,
//     and this process cannot detect that.
//
// This class does not deal with SPTEs or memslots; vm/logging/log_clear.h
// write-protects the pages.

#ifndef MMU_CORE_DIRTY_DIRTY_LOG_H_
#define MMU_CORE_DIRTY_DIRTY_LOG_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/dirty/slot_log.h"

namespace mmu {

// FAILED_PRECONDITION DIRTY_LOG_OFF for a VM without a log that is on; the
// message says what to do.
absl::Status DirtyLogOff();
// The same of a slot that the log does not have; the field is "slot".
absl::Status SlotNotInLog(uint32_t slot);

// Thread-safe. Errors carry an ErrorDetail (base/error.h). After an error
// nothing has changed, except that an owner's call has renewed its lease.
//
// Every call that takes a LogCall first checks its caller and its log:
//   FAILED_PRECONDITION DIRTY_LOG_OFF  before Open, or after Close
//   ABORTED             LOG_CHANGED    the call names another log
//   FAILED_PRECONDITION LOG_FENCED     the caller is a former owner
//   FAILED_PRECONDITION LOG_OWNED      any other caller but the owner
class DirtyLog {
  struct Entry {
    std::shared_ptr<SlotLog> log;
    SlotLogState told = {};
  };

 public:
  using Slots = std::map<uint32_t, std::shared_ptr<SlotLog>>;

  // A log is on from Open to Close. Before Open, the memory of its slots is not
  // fully write-protected yet. After Close, writes are no longer tracked: they
  // enter no set. So seal, read, clear and acknowledge are refused outside of
  // that time:
  //   1. close: from here on, refused     2. writes are not marked any more
  // A seal that was admitted before 1 contains all writes before it.
  // Undelivered pages are counted after 2.
  enum class Begin : uint8_t { kOpen, kClosed };
  // The first epoch is `first_epoch`, at least 1. No other thread accesses
  // `slots` yet.
  DirtyLog(LogId id, uint64_t first_epoch, const LogClaim& claim, Slots slots,
           MonotonicTime now, Begin begin = Begin::kOpen);

  // Each is called once. Open renews the owner's lease at `now`, since starting
  // the log may have taken long and the owner could make no call until then.
  void Open(MonotonicTime now) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  void Close() ABSL_LOCKS_EXCLUDED(mu_);
  // Does not wait for a seal.
  bool is_on() const { return on_.load(std::memory_order_acquire); }

  LogId id() const { return id_; }
  // ABORTED LOG_CHANGED if `log_id` is given and is not this log's.
  absl::Status CheckId(const absl::optional<LogId>& log_id) const;

  // --- Slots. Called under slots_lock. ---

  // Null if `slot` is not logged. Does not wait for a seal.
  std::shared_ptr<SlotLog> Find(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // All slots in the order of their ids.
  std::vector<std::shared_ptr<SlotLog>> AllSlots() const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // A slot that is about to join, with the memory that joining needs.
  class JoiningSlot {
   public:
    explicit JoiningSlot(std::shared_ptr<SlotLog> log);

   private:
    friend class DirtyLog;
    std::map<uint32_t, Entry> node_;
  };
  // Logs the slot, whose id is new here, from the open epoch on. Allocates
  // nothing.
  void Join(JoiningSlot slot) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // Stops logging the slot: discards the pages of its sets and returns their
  // counts, which are zero if it was not logged. Allocates nothing.
  UndeliveredCounts Leave(uint32_t slot) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The slot has moved. Its pages keep their offsets. Its in-flight pages are
  // sealed again, since they were copied from another address. Its pages cannot
  // be cleared in epochs that were sealed before the move.
  void Moved(uint32_t slot) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // --- The owner ---

  // Returns the error with which `call` would be refused, or OK.
  absl::Status Admit(const LogCall& call) ABSL_LOCKS_EXCLUDED(mu_);
  // Hands the log to `claim`: LogOwner::Acquire. A takeover seals all in-flight
  // pages again; acquiring again with the same key only renews the lease.
  // ABORTED LOG_CHANGED if `log_id` is given and is not this log's. `state`, if
  // not null, receives the result of State right after the call; filling it
  // cannot fail once the log was handed over. If memory runs out
  // (std::bad_alloc), nothing is changed.
  absl::StatusOr<LogOwner::Acquired> Acquire(const LogClaim& claim,
                                             absl::optional<LogId> log_id,
                                             LogOwner::Force force,
                                             MonotonicTime now,
                                             DirtyLogState* state = nullptr)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // --- The protocol. For LogCall, see above. ---

  // Acknowledges the epochs up to `acknowledged_epoch` (0: none) like
  // Acknowledge, then closes the open epoch of all slots and opens the next.
  // The new sealed epoch has every mark that returned before the call. Pages
  // that were sealed and not cleared are merged into it. NOT_FOUND
  // EPOCH_UNKNOWN if the epoch to acknowledge was never sealed.
  absl::StatusOr<SealOutcome> Seal(const LogCall& call,
                                   uint64_t acknowledged_epoch)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // Copies one bit per page, from page `first_page` of the slot (a multiple of
  // 64) on, into `words`. `epoch` 0 peeks: all undelivered pages. Otherwise the
  // pages that are sealed and not cleared in that epoch, which must be the last
  // sealed one:
  //   NOT_FOUND    EPOCH_UNKNOWN     the epoch was never sealed in this log
  //   ABORTED      EPOCH_SUPERSEDED  a later one was sealed, or the slot moved
  //   ABORTED      LOG_CHANGED       `log_id` is given and is not this log's
  //   OUT_OF_RANGE INVALID_RANGE     past the slot's end
  //   FAILED_PRECONDITION DIRTY_LOG_OFF  the slot is not logged
  // Changes nothing and renews no lease.
  absl::Status Read(absl::optional<LogId> log_id, uint32_t slot, uint64_t epoch,
                    uint64_t first_page, absl::Span<uint64_t> words) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // The same for the pages that are in flight in `epoch`: cleared in it, and
  // since then not acknowledged, cleared again or sealed again. Errors as
  // above, except that `epoch` may be any epoch that was sealed.
  absl::Status ReadInFlight(absl::optional<LogId> log_id, uint32_t slot,
                            uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // The checks of log and epoch in Read (kSealed) and ReadInFlight, without a
  // slot; also for a log without slots.
  absl::Status CheckEpoch(absl::optional<LogId> log_id, uint64_t epoch,
                          LogPages pages) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // The set operation of a clear: puts those pages of `mask` that are sealed in
  // flight (bit 0 is `first_page`, a multiple of 64; within the slot).
  // Afterwards the caller write-protects the pages of `moved`, flushes, and
  // only then answers. It flushes even if no page moved but some were already
  // in flight, since another clear may not have flushed yet. Idempotent.
  //   ABORTED            EPOCH_MISMATCH  `epoch` is not the last sealed one, or
  //                                      was sealed before the slot joined or
  //                                      moved
  //   RESOURCE_EXHAUSTED LIMIT_EXCEEDED  pages of kMaxEpochsInFlight other
  //                                      epochs are in flight, whether or not a
  //                                      page would move
  //   FAILED_PRECONDITION DIRTY_LOG_OFF  the slot is not logged
  struct Flight {
    std::vector<BitmapWord> moved;
    uint64_t moved_page_count = 0;
    uint64_t already_in_flight_page_count = 0;  // in this epoch
    uint64_t already_clean_page_count = 0;  // neither moved nor in flight in it
    uint64_t still_sealed_page_count = 0;   // of the slot, after the call
  };
  absl::StatusOr<Flight> TakeIntoFlight(const LogCall& call, uint32_t slot,
                                        uint64_t epoch, uint64_t first_page,
                                        absl::Span<const uint64_t> mask)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // Makes all in-flight pages that were cleared in epochs up to `epoch`
  // delivered. Idempotent: pages that were delivered already or never cleared
  // do not count. NOT_FOUND EPOCH_UNKNOWN if `epoch` was never sealed in this
  // log.
  absl::StatusOr<AcknowledgeResult> Acknowledge(const LogCall& call,
                                                uint64_t epoch)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The same for the pages of `mask` (as in TakeIntoFlight) of one slot. Also
  // FAILED_PRECONDITION DIRTY_LOG_OFF.
  absl::StatusOr<AcknowledgeResult> AcknowledgePages(
      const LogCall& call, uint64_t epoch, uint32_t slot, uint64_t first_page,
      absl::Span<const uint64_t> mask) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // --- Queries ---

  // The state after the last completed change; waits for no running call.
  DirtyLogState State() const ABSL_LOCKS_EXCLUDED(look_mu_);
  // The same without the slots; its cost does not depend on their number.
  DirtyLogState Summary() const ABSL_LOCKS_EXCLUDED(look_mu_);
  // The same for one slot; nullopt if it is not logged.
  absl::optional<SlotLogState> FindSlotState(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // From the same state. Allocates nothing.
  MonotonicTime last_owner_call() const ABSL_LOCKS_EXCLUDED(look_mu_);
  // The number of pages in each set, of all slots or of one. These wait for a
  // seal.
  UndeliveredCounts CountUndelivered() const ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  UndeliveredCounts CountUndelivered(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The counts of each slot, in the order of their ids.
  std::vector<SlotUndelivered> CountUndeliveredBySlot() const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // Whether the slot is logged and the page is in one of its sets; for the
  // auditor.
  bool IsUndelivered(uint32_t slot, uint64_t page) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // Whether the page is open or sealed, so that it will be cleared before it is
  // copied. Such a page may be writable; a page that is only in flight may not
  // (INV-10).
  bool IsToBeCleared(uint32_t slot, uint64_t page) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // For the auditor: call `fault` with a text for each rule that is broken.
  //   AuditSets    INV-10 of vm/inspect/audit.h: the log's counts are those of
  //                its slots, and the slots' counts those of their sets.
  //   AuditEpochs  INV-17: the epochs of flights and slots fit the open epoch,
  //                the owner is a possible one, and State() tells the truth.
  void AuditSets(absl::FunctionRef<void(const std::string&)> fault) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  void AuditEpochs(absl::FunctionRef<void(const std::string&)> fault) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The number of the open epoch. Waits for a seal.
  uint64_t open_epoch() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // An epoch with pages in flight, or a free place for one, which has no pages.
  struct FlightEpoch {
    uint64_t epoch = 0;
    uint64_t page_count = 0;
    // The oldest seal of its undelivered pages. An entry whose pages were all
    // cleared again in later epochs is free, but keeps this time for those
    // pages until the epoch is acknowledged. Otherwise InfiniteFuture.
    MonotonicTime since = MonotonicTime::InfiniteFuture();
  };
  static void TellSlot(const SlotLog& log, SlotLogState& told);

  // 0 if no epoch was sealed yet.
  uint64_t SealedEpoch() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return open_epoch_ == first_epoch_ ? 0 : open_epoch_ - 1;
  }
  absl::Status CheckOn() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status AdmitLocked(const LogCall& call)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The slot's log. FAILED_PRECONDITION DIRTY_LOG_OFF if the slot is not
  // logged.
  absl::StatusOr<std::shared_ptr<SlotLog>> LogOf(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // NOT_FOUND EPOCH_UNKNOWN unless `epoch` was sealed; `field` names it in the
  // error.
  absl::Status CheckSealed(uint64_t epoch, const char* field) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The same, plus EPOCH_SUPERSEDED as documented at Read and ReadInFlight.
  absl::Status CheckReadable(uint64_t epoch, LogPages pages) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckClearable(const SlotLog& log, uint64_t epoch) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The number of the in-flight set for pages cleared in `epoch`.
  absl::StatusOr<size_t> FlightOf(uint64_t epoch) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t AcknowledgeLocked(uint64_t epoch,
                             const std::vector<std::shared_ptr<SlotLog>>& slots)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Seals the in-flight pages of `log` again.
  void ReturnLocked(SlotLog& log) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t InFlightLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static UndeliveredCounts CountOf(const SlotLog& log);
  // Forgets the kept times (FlightEpoch::since) of pages that were cleared
  // again, for the epochs before `epoch`.
  void ForgetClearedAgain(uint64_t epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Removes from the epoch `count` pages that were not cleared again.
  static void TakeOut(FlightEpoch& flight, uint64_t count);
  // Resets sealed_since_, or an entry's `since`, once no page of that kind is
  // left.
  void NoteWhatWaits() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The time of the oldest seal with pages still undelivered, sealed or in
  // flight; otherwise InfiniteFuture.
  MonotonicTime UndeliveredSince() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Updates the result of State: for the log, and for one slot or all slots.
  void Tell(const SlotLog& log) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_)
      ABSL_LOCKS_EXCLUDED(look_mu_);
  void TellAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_)
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // The same without the owner's name, which needs memory.
  void TellLog() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_, look_mu_);
  // A state with room for what StateInto copies, given this owner name.
  DirtyLogState RoomForState(const std::string& owner) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // Allocates nothing if `state` has room.
  void StateInto(DirtyLogState& state) const ABSL_LOCKS_EXCLUDED(look_mu_);

  const LogId id_;
  const uint64_t first_epoch_;

  // Above look_mu_. Held for every move of pages except a mark, and for all of
  // a seal.
  mutable Mutex mu_;
  LogOwner owner_ ABSL_GUARDED_BY(mu_);
  // Changed under mu_; every decision based on it is made under mu_.
  std::atomic<bool> on_;
  uint64_t open_epoch_ ABSL_GUARDED_BY(mu_);
  std::array<FlightEpoch, kMaxEpochsInFlight> flights_ ABSL_GUARDED_BY(mu_);
  uint64_t sealed_pages_ ABSL_GUARDED_BY(mu_) = 0;  // of all slots
  // Since when there have been sealed pages without interruption; otherwise
  // InfiniteFuture. Pages merged into a later seal keep the older time; pages
  // have no times of their own.
  MonotonicTime sealed_since_ ABSL_GUARDED_BY(mu_) =
      MonotonicTime::InfiniteFuture();

  // Leaf, held only for queries. mu_ guards the sets of the slots.
  mutable Mutex look_mu_ ABSL_ACQUIRED_AFTER(mu_);
  std::map<uint32_t, Entry> slots_ ABSL_GUARDED_BY(look_mu_);
  DirtyLogState told_ ABSL_GUARDED_BY(look_mu_);  // without its slots
};

// FAILED_PRECONDITION UNDELIVERED_PAGES: `what` ("slot 3", "the VM") is about
// to end and `counts` is not zero. The metadata has the three counts. The field
// is "undelivered".
absl::Status UndeliveredPages(const UndeliveredCounts& counts,
                              const std::string& what);

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_H_
