// The sets of one memslot's pages in a dirty log, and the moves between them.
//
//   open       written since the last seal; vCPUs mark pages here, lock-free
//   sealed     to be sent: closed by a seal, not cleared since
//   in flight  cleared: write-protected again, and being copied by the log's
//              owner. Up to four sets, one per epoch in which pages were
//              cleared
//
//       mark          seal            clear               acknowledge
//   ... ------> open ------> sealed --------> in flight ---------------> ...
//                              ^                  |
//                              +----- return -----+
//                           (takeover, move of the slot)
//
// "..." is no set: the page was never written, or is delivered.
//
// A page that was written again may be open in addition to another set. It is
// in flight in one epoch at most: if cleared again, it belongs to the later
// epoch.
//
// INV-10: for each write at a time t the page is open or sealed or in flight,
//   or a copy of it that began after t was acknowledged. Every move puts the
//   page into its new set before removing it from the old one, so this holds
//   between any two instructions, even if the process ends there and its sets
//   survive it. A reader of such sets reports a page at most once too often.
//
// Why each move preserves it:
//
//   mark         as SLOT-53: before the vCPU's write is over. RACE-1, RACE-2.
//   seal         concurrent with marks: DirtyBitmap::TakeAll; with the other
//                moves: the log's lock.
//   clear        the log's lock. The page is not write-protected yet. A write
//                before the protection is in no set but this one, and is in
//                the copy, which comes after the protection (RACE-1, RACE-12).
//                A write after the protection marks.
//   acknowledge  the log's lock. The copy began after the clear; every write
//                since then is open, or sealed after the clear.
//   return       the log's lock. Nothing was delivered; writable or protected,
//                the page must be cleared again.
//
// Sets that survived a process do not show whether a clear had got as far as
// the protection. So their in-flight pages are returned before any clear, and
// their summaries are rebuilt from their words.

#ifndef MMU_CORE_DIRTY_SLOT_LOG_H_
#define MMU_CORE_DIRTY_SLOT_LOG_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "mmu_core/dirty/dirty_bitmap.h"

namespace mmu {

// The number of epochs of a log that can be in flight at a time. The epochs'
// sets are numbered; the log decides which epoch has which number.
inline constexpr size_t kMaxEpochsInFlight = 4;

// Marking the open set is thread-safe. Everything else is externally
// synchronised by the lock of the log (DirtyLog::mu_).
class SlotLog {
 public:
  // `open` is the slot's bitmap, which vCPUs mark; or a bitmap of the log's own
  // if the vCPUs have rings. Null if `open` is null, or if the host has no
  // memory for the other sets. A set of a page or more is only address space
  // until pages enter it (base/zeroed_memory.h), so a clear needs no memory and
  // cannot fail.
  static std::shared_ptr<SlotLog> TryCreate(uint32_t slot,
                                            std::shared_ptr<DirtyBitmap> open);

  uint32_t slot() const { return slot_; }
  uint64_t npages() const { return open_->npages(); }
  uint64_t word_count() const { return open_->word_count(); }

  // Marks page `page`, or the pages of `bits` in word `i`, as open, for pages
  // that were recorded elsewhere (a dirty ring). Thread-safe.
  void MarkOpen(uint64_t page) { open_->Mark(page); }
  void MarkOpenWord(uint64_t i, uint64_t bits) { open_->MarkWord(i, bits); }

  // The first epoch in which pages of this slot can be cleared; earlier epochs
  // are from before the slot joined the log or was moved.
  uint64_t first_epoch() const { return first_epoch_; }
  void set_first_epoch(uint64_t epoch) { first_epoch_ = epoch; }

  // The bits of word `i` that are pages of the slot.
  uint64_t PagesOfWord(uint64_t i) const;

  uint64_t sealed_count() const { return sealed_count_; }
  uint64_t in_flight_count(size_t flight) const { return counts_[flight]; }
  // The in-flight pages of all epochs.
  uint64_t in_flight_count() const;
  // Scans the set: takes time in proportion to the open pages.
  uint64_t CountOpen() const { return open_->CountDirty(); }

  // Seals the open pages. Returns how many of them were not sealed before.
  uint64_t Seal();

  struct Cleared {
    // The pages that were sealed and are now in flight.
    std::vector<BitmapWord> moved;
    uint64_t moved_page_count = 0;
    // Requested pages that were already in flight in this epoch: the clear was
    // repeated.
    uint64_t already_in_flight_page_count = 0;
    // Requested pages that were neither sealed nor in flight in this epoch.
    uint64_t already_clean_page_count = 0;
    // Of the moved pages, those taken from each earlier epoch's set.
    std::array<uint64_t, kMaxEpochsInFlight> moved_from = {};
  };
  // Puts the sealed pages of `mask` in flight (bit 0 is page 64 * first_word).
  // REQUIRES: the words are within word_count().
  Cleared Clear(size_t flight, uint64_t first_word,
                absl::Span<const uint64_t> mask);

  // Makes the pages in flight in this set, or those of `mask` in it, delivered.
  // Returns their number.
  uint64_t Acknowledge(size_t flight);
  uint64_t Acknowledge(size_t flight, uint64_t first_word,
                       absl::Span<const uint64_t> mask);

  // The number of pages of `mask` that are in flight in this set.
  uint64_t CountInFlight(size_t flight, uint64_t first_word,
                         absl::Span<const uint64_t> mask) const;

  // Seals all in-flight pages again. Returns their number.
  uint64_t Return();

  // Ors the words from `first_word` on into `out`.
  void OrSealedInto(uint64_t first_word, absl::Span<uint64_t> out) const {
    sealed_->OrInto(first_word, out);
  }
  void OrOpenInto(uint64_t first_word, absl::Span<uint64_t> out) const {
    open_->OrInto(first_word, out);
  }
  // The same for the in-flight sets: of all epochs, or one set.
  void OrInFlightInto(uint64_t first_word, absl::Span<uint64_t> out) const;
  void OrInFlightInto(size_t flight, uint64_t first_word,
                      absl::Span<uint64_t> out) const;

  // Whether the page is in any set.
  bool IsUndelivered(uint64_t page) const;
  // Whether the page is in flight, in the set with this number.
  bool IsInFlight(size_t flight, uint64_t page) const {
    return in_flight_[flight]->Test(page);
  }
  // For the auditor: calls `fault` with a text for each way in which the counts
  // do not match the sets, or a page is in flight twice. Takes time in
  // proportion to the pages in the sets.
  void AuditSets(absl::FunctionRef<void(const std::string&)> fault) const;
  // The set that vCPUs mark in, for the auditor.
  const DirtyBitmap* open() const { return open_.get(); }
  bool IsOpen(uint64_t page) const { return open_->Test(page); }
  bool IsSealed(uint64_t page) const { return sealed_->Test(page); }

 private:
  using Sets = std::array<std::shared_ptr<DirtyBitmap>, kMaxEpochsInFlight>;

  SlotLog(uint32_t slot, std::shared_ptr<DirtyBitmap> open,
          std::shared_ptr<DirtyBitmap> sealed, Sets in_flight);

  const uint32_t slot_;
  const std::shared_ptr<DirtyBitmap> open_;
  const std::shared_ptr<DirtyBitmap> sealed_;
  const Sets in_flight_;

  uint64_t first_epoch_ = 1;
  uint64_t sealed_count_ = 0;
  std::array<uint64_t, kMaxEpochsInFlight> counts_ = {};  // in flight
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_SLOT_LOG_H_
