// The dirty log of a VM: owned, sealed, in flight, acknowledged.
//
// A sender seals (closes the open epoch of all slots and opens the next), reads
// what is sealed, clears it (which protects the pages again and takes them into
// flight), copies, and acknowledges once the copies have arrived. Only an
// acknowledgement makes a page delivered. Whoever dies on the way leaves all of
// its pages to the next owner: a takeover seals again what was in flight.
//
// What becomes of a page, and why no move loses it: slot_log.h, INV-10. Who may
// move pages: log_owner.h. The protocol in all interleavings of two owners that
// die, retry and take over: models/dirty_log_protocol.pml.
//
// Rules for those outside of this process, on which the promise rests too:
//   - a page is copied after the clear that names it has been answered. A clear
//     whose answer was lost is repeated before anything else is done;
//   - an epoch is acknowledged once the copies of all pages that were cleared
//     in it, or before, have arrived at the destination;
//   - a destination refuses the copies of a former owner before the new owner
//     acquires the log. A copy that arrives late would overwrite a newer one,
//     and nothing here can tell.
//
// This class knows no SPTE and no memslot: vm/logging/log_clear.h protects.

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

// FAILED_PRECONDITION DIRTY_LOG_OFF of a VM that has no log that is on, with
// what to do about it.
absl::Status DirtyLogOff();

// Thread-safe. Errors carry an ErrorDetail (base/error.h); after one, nothing
// has changed, but that a call of the owner has renewed its lease.
//
// Every call that takes a LogCall first checks who makes it, and when:
//   FAILED_PRECONDITION DIRTY_LOG_OFF  before Open, or after Close
//   ABORTED             LOG_CHANGED    it names another log
//   FAILED_PRECONDITION LOG_FENCED     by a former owner
//   FAILED_PRECONDITION LOG_OWNED      by anybody else who is not the owner
class DirtyLog {
  struct Entry {
    std::shared_ptr<SlotLog> log;
    SlotLogState told = {};
  };

 public:
  using Slots = std::map<uint32_t, std::shared_ptr<SlotLog>>;

  // A log is on from Open to Close. Before, the memory of its slots is not all
  // protected yet; after, it is not watched any more: what a guest writes then
  // is in no set. So nobody may seal, read, clear or acknowledge:
  //   1. close: from here on, refused     2. writes are not marked any more
  // and a seal that was admitted before 1 has all writes before it. Whoever
  // counts what is lost does so after 2.
  enum class Begin : uint8_t { kOpen, kClosed };
  // The first epoch is `first_epoch`, at least 1. Nobody else knows `slots`
  // yet.
  DirtyLog(LogId id, uint64_t first_epoch, const LogClaim& claim, Slots slots,
           MonotonicTime now, Begin begin = Begin::kOpen);

  // Once each. The owner's lease begins anew at `now`, when it can make its
  // first call: until then the start itself may have taken long.
  void Open(MonotonicTime now) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  void Close() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for no seal.
  bool is_on() const { return on_.load(std::memory_order_acquire); }

  LogId id() const { return id_; }
  // ABORTED LOG_CHANGED if `log_id` is given and another log's.
  absl::Status CheckId(const absl::optional<LogId>& log_id) const;

  // --- Slots. Called under slots_lock. ---

  // Null if `slot` is not logged. Waits for no seal.
  std::shared_ptr<SlotLog> Find(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // In the order of their ids.
  std::vector<std::shared_ptr<SlotLog>> AllSlots() const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // A slot that is about to join: has the memory that this takes.
  class JoiningSlot {
   public:
    explicit JoiningSlot(std::shared_ptr<SlotLog> log);

   private:
    friend class DirtyLog;
    std::map<uint32_t, Entry> node_;
  };
  // The slot, whose id is new here, is logged from the open epoch on. Needs no
  // memory.
  void Join(JoiningSlot slot) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The slot is no longer logged: what its sets have is discarded, and counted.
  // Nothing if it was not logged. Needs no memory.
  UndeliveredCounts Leave(uint32_t slot) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The slot has moved: its pages keep their places in it, what was in flight
  // is sealed again, since it was copied from another address, and no epoch
  // that was sealed before can be cleared of it.
  void Moved(uint32_t slot) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // --- The owner ---

  // Whether such a call would be admitted.
  absl::Status Admit(const LogCall& call) ABSL_LOCKS_EXCLUDED(mu_);
  // Hands the log to `claim`: LogOwner::Acquire. A takeover seals again all
  // that is in flight; the same key again changes nothing but its lease.
  // ABORTED LOG_CHANGED if `log_id` is given and is not this log's. `state`, if
  // not null, becomes what State tells right after that; it is no reason to
  // fail once the log was handed over. Nothing is changed if memory runs out
  // (std::bad_alloc).
  absl::StatusOr<LogOwner::Acquired> Acquire(const LogClaim& claim,
                                             absl::optional<LogId> log_id,
                                             LogOwner::Force force,
                                             MonotonicTime now,
                                             DirtyLogState* state = nullptr)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // --- The protocol. LogCall: see above. ---

  // Acknowledges the epochs up to `acknowledged_epoch` (0: none), as
  // Acknowledge, then closes the open epoch of all slots and opens the next.
  // Every mark that returned before is in. What was sealed and not cleared is
  // merged into the new sealed epoch. NOT_FOUND EPOCH_UNKNOWN if the epoch to
  // acknowledge was never sealed.
  absl::StatusOr<SealOutcome> Seal(const LogCall& call,
                                   uint64_t acknowledged_epoch)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // Copies one bit per page from page `first_page` of the slot on, a multiple
  // of 64, into `words`. `epoch` 0 peeks: all that is undelivered. Otherwise
  // what is sealed and not cleared in that epoch, which is the last sealed one:
  //   NOT_FOUND    EPOCH_UNKNOWN     it was never sealed in this log
  //   ABORTED      EPOCH_SUPERSEDED  a later one was sealed, or the slot moved
  //   ABORTED      LOG_CHANGED       `log_id` is given and another log's
  //   OUT_OF_RANGE INVALID_RANGE     past the slot's end
  //   FAILED_PRECONDITION DIRTY_LOG_OFF  the slot is not logged
  // Changes nothing and renews no lease.
  absl::Status Read(absl::optional<LogId> log_id, uint32_t slot, uint64_t epoch,
                    uint64_t first_page, absl::Span<uint64_t> words) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // The same of the pages that are in flight in `epoch`: cleared in it, and
  // since then not acknowledged, cleared again or sealed again. Errors as
  // above, but that any epoch that was sealed will do.
  absl::Status ReadInFlight(absl::optional<LogId> log_id, uint32_t slot,
                            uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // What Read (kSealed) and ReadInFlight say of the log and the epoch, whatever
  // the slot: also of a log that has none.
  absl::Status CheckEpoch(absl::optional<LogId> log_id, uint64_t epoch,
                          LogPages pages) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // The set side of a clear: takes the pages of `mask` (bit 0 is `first_page`,
  // a multiple of 64; within the slot) that are sealed into flight. The caller
  // then protects those of `moved` and flushes, and only then answers; also if
  // none moved but some were in flight already, since another clear may be
  // about to flush. Idempotent.
  //   ABORTED            EPOCH_MISMATCH  `epoch` is not the last sealed one, or
  //                                      was sealed before the slot joined or
  //                                      moved
  //   RESOURCE_EXHAUSTED LIMIT_EXCEEDED  pages of kMaxEpochsInFlight others are
  //                                      in flight, whether any would move or
  //                                      not
  //   FAILED_PRECONDITION DIRTY_LOG_OFF  the slot is not logged
  struct Flight {
    std::vector<BitmapWord> moved;
    uint64_t moved_page_count = 0;
    uint64_t already_in_flight_page_count = 0;  // in this epoch
    uint64_t already_clean_page_count = 0;      // of those asked for, neither
    uint64_t still_sealed_page_count = 0;       // of the slot, after the call
  };
  absl::StatusOr<Flight> TakeIntoFlight(const LogCall& call, uint32_t slot,
                                        uint64_t epoch, uint64_t first_page,
                                        absl::Span<const uint64_t> mask)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // Everything in flight that was cleared in epochs up to `epoch` is delivered.
  // Idempotent: what is delivered already, or was never cleared, counts for
  // nothing. NOT_FOUND EPOCH_UNKNOWN if `epoch` was never sealed in this log.
  absl::StatusOr<AcknowledgeResult> Acknowledge(const LogCall& call,
                                                uint64_t epoch)
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The same of the pages of `mask` (as TakeIntoFlight) of one slot. Also
  // FAILED_PRECONDITION DIRTY_LOG_OFF.
  absl::StatusOr<AcknowledgeResult> AcknowledgePages(
      const LogCall& call, uint64_t epoch, uint32_t slot, uint64_t first_page,
      absl::Span<const uint64_t> mask) ABSL_LOCKS_EXCLUDED(mu_, look_mu_);

  // --- Looking ---

  // As of the last call that changed something and ended: waits for none.
  DirtyLogState State() const ABSL_LOCKS_EXCLUDED(look_mu_);
  // The same without the slots, so that many of them cost nothing.
  DirtyLogState Summary() const ABSL_LOCKS_EXCLUDED(look_mu_);
  // The same of one slot; nothing if it is not logged.
  absl::optional<SlotLogState> FindSlotState(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // Of the same. Needs no memory.
  MonotonicTime last_owner_call() const ABSL_LOCKS_EXCLUDED(look_mu_);
  // The pages of all slots, or of one, in each set. These wait for a seal.
  UndeliveredCounts CountUndelivered() const ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  UndeliveredCounts CountUndelivered(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // Of each slot, in the order of their ids.
  std::vector<SlotUndelivered> CountUndeliveredBySlot() const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // Whether the page is in a set of its slot, which is logged; for the auditor.
  bool IsUndelivered(uint32_t slot, uint64_t page) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // Whether it is open or sealed: whoever is to have it will clear it first. So
  // it may be writable; a page that is in flight only may not (INV-10).
  bool IsToBeCleared(uint32_t slot, uint64_t page) const
      ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // Whether the counts of the log are those of its slots, and theirs those of
  // their sets; for the auditor.
  bool CountsAgree() const ABSL_LOCKS_EXCLUDED(mu_, look_mu_);
  // The number of the open epoch. Waits for a seal.
  uint64_t open_epoch() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // An epoch with pages in flight. A free one has no pages.
  struct FlightEpoch {
    uint64_t epoch = 0;
    uint64_t page_count = 0;
    // Since when its pages, or some of them, wait: their oldest seal. One whose
    // pages were all cleared again in later epochs is free, and they wait since
    // this time nevertheless, until it is acknowledged. Else InfiniteFuture.
    MonotonicTime since = MonotonicTime::InfiniteFuture();
  };
  static void TellSlot(const SlotLog& log, SlotLogState& told);

  // 0 if none was sealed yet.
  uint64_t SealedEpoch() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return open_epoch_ == first_epoch_ ? 0 : open_epoch_ - 1;
  }
  absl::Status CheckOn() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status AdmitLocked(const LogCall& call)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The slot's log. FAILED_PRECONDITION DIRTY_LOG_OFF if there is none.
  absl::StatusOr<std::shared_ptr<SlotLog>> LogOf(uint32_t slot) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // NOT_FOUND EPOCH_UNKNOWN unless `epoch`, of the request's field, was sealed.
  absl::Status CheckSealed(uint64_t epoch, const char* field) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The same, and EPOCH_SUPERSEDED, as Read and ReadInFlight say it.
  absl::Status CheckReadable(uint64_t epoch, LogPages pages) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckClearable(const SlotLog& log, uint64_t epoch) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The number of the set for pages cleared in `epoch`.
  absl::StatusOr<size_t> FlightOf(uint64_t epoch) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t AcknowledgeLocked(uint64_t epoch,
                             const std::vector<std::shared_ptr<SlotLog>>& slots)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Seals again what is in flight of `log`.
  void ReturnLocked(SlotLog& log) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t InFlightLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static UndeliveredCounts CountOf(const SlotLog& log);
  // What was cleared again of earlier epochs than `epoch` waits since then
  // only.
  void ForgetClearedAgain(uint64_t epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes `count` pages out of the epoch, which were not cleared again.
  static void TakeOut(FlightEpoch& flight, uint64_t count);
  // Once nothing is sealed, or in flight, nothing of that kind waits.
  void NoteWhatWaits() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Of the oldest seal of which something waits, sealed or in flight; else
  // InfiniteFuture.
  MonotonicTime UndeliveredSince() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Has State tell what is true now: of the log, and of one slot, or of all.
  void Tell(const SlotLog& log) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_)
      ABSL_LOCKS_EXCLUDED(look_mu_);
  void TellAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_)
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // All but the owner's name, which takes memory.
  void TellLog() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_, look_mu_);
  // Has room for what StateInto tells of an owner of this name.
  DirtyLogState RoomForState(const std::string& owner) const
      ABSL_LOCKS_EXCLUDED(look_mu_);
  // Needs no memory if `state` has room.
  void StateInto(DirtyLogState& state) const ABSL_LOCKS_EXCLUDED(look_mu_);

  const LogId id_;
  const uint64_t first_epoch_;

  // Above look_mu_. Every move of pages but a mark; held for all of a seal.
  mutable Mutex mu_;
  LogOwner owner_ ABSL_GUARDED_BY(mu_);
  // Changed under mu_, under which it is looked at wherever it decides.
  std::atomic<bool> on_;
  uint64_t open_epoch_ ABSL_GUARDED_BY(mu_);
  std::array<FlightEpoch, kMaxEpochsInFlight> flights_ ABSL_GUARDED_BY(mu_);
  uint64_t sealed_pages_ ABSL_GUARDED_BY(mu_) = 0;  // of all slots
  // Since when something has been sealed without a break; else InfiniteFuture.
  // A page that is merged into a later seal keeps its time, and no page has one
  // of its own.
  MonotonicTime sealed_since_ ABSL_GUARDED_BY(mu_) =
      MonotonicTime::InfiniteFuture();

  // Leaf, held for a look only. The sets of the slots belong to mu_.
  mutable Mutex look_mu_ ABSL_ACQUIRED_AFTER(mu_);
  std::map<uint32_t, Entry> slots_ ABSL_GUARDED_BY(look_mu_);
  DirtyLogState told_ ABSL_GUARDED_BY(look_mu_);  // without its slots
};

// FAILED_PRECONDITION UNDELIVERED_PAGES: `counts` is not nothing, and `what`
// ("slot 3", "the VM") is about to end. The metadata has the three counts.
// `field` is what a request sets to end it nevertheless.
absl::Status UndeliveredPages(const UndeliveredCounts& counts,
                              const std::string& what,
                              const char* field = "discard_undelivered");

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_H_
