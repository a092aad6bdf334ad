// The sets of one memslot's pages in a dirty log, and the moves between them.
//
//   open       written since the last seal; vCPUs mark here, without a lock
//   sealed     to be sent: closed by a seal, not cleared since
//   in flight  cleared: protected again, and being copied by the log's owner.
//              Up to four sets, one for each epoch in which pages were cleared
//
//       mark          seal            clear               acknowledge
//   ... ------> open ------> sealed --------> in flight ---------------> ...
//                              ^                  |
//                              +----- return -----+
//                           (takeover, move of the slot)
//
// "..." is no set: the page was never written, or is delivered.
//
// A page may be open besides any of the others: it was written again. It is in
// flight in one epoch at most: cleared again, it belongs to the later one.
//
// INV-10: for each write at a time t the page is open or sealed or in flight,
//   or a copy of it that began after t was acknowledged. Every move puts the
//   page into its new set before it leaves the old one, so that this is true
//   between any two instructions, also of a process that ends there and whose
//   sets survive it. Who finds such sets reports a page once more than needed.
//
// Why each move keeps it:
//
//   mark         as SLOT-53: before the vCPU's write is over. RACE-1, RACE-2.
//   seal         beside marks, DirtyBitmap::TakeAll; beside the other moves,
//                the log's lock.
//   clear        the log's lock. The page is not protected yet: a write until
//                then is in no set but this one, and is in the copy, which
//                comes after the protection (RACE-1, RACE-12). A write after
//                the protection marks.
//   acknowledge  the log's lock. The copy began after the clear, and whatever
//                was written since then is open, or sealed after that.
//   return       the log's lock. Nothing was delivered; writable or protected,
//                the page is to be cleared again.
//
// Sets that survived a process cannot tell whether a clear had got as far as
// the protection. So what is in flight in them is returned before anybody
// clears, and their summaries are made anew from their words.

#ifndef MMU_CORE_DIRTY_SLOT_LOG_H_
#define MMU_CORE_DIRTY_SLOT_LOG_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "mmu_core/dirty/dirty_bitmap.h"

namespace mmu {

// Epochs of a log that can be in flight at a time. The sets of the epochs are
// numbered; which epoch has which number is the log's to say.
inline constexpr size_t kMaxEpochsInFlight = 4;

// Marking the open set is thread-safe. Everything else is externally
// synchronised by the lock of the log (DirtyLog::mu_).
class SlotLog {
 public:
  // `open` is the slot's bitmap, into which vCPUs mark; or one of the log's own
  // if they have rings. Null if it is null, or the host has no memory for the
  // other sets: from a page on that is address space only, until pages come
  // into them (base/zeroed_memory.h), so a clear needs none and cannot fail.
  static std::shared_ptr<SlotLog> TryCreate(uint32_t slot,
                                            std::shared_ptr<DirtyBitmap> open);

  uint32_t slot() const { return slot_; }
  uint64_t npages() const { return open_->npages(); }
  uint64_t word_count() const { return open_->word_count(); }

  // Marks page `page`, or the pages of `bits` in word `i`, as open, if they
  // were noted elsewhere (a dirty ring). Thread-safe.
  void MarkOpen(uint64_t page) { open_->Mark(page); }
  void MarkOpenWord(uint64_t i, uint64_t bits) { open_->MarkWord(i, bits); }

  // The first epoch in which pages of this slot can be cleared: not those from
  // before it joined the log, or was moved.
  uint64_t first_epoch() const { return first_epoch_; }
  void set_first_epoch(uint64_t epoch) { first_epoch_ = epoch; }

  // The bits of word `i` that are pages of the slot.
  uint64_t PagesOfWord(uint64_t i) const;

  uint64_t sealed_count() const { return sealed_count_; }
  uint64_t in_flight_count(size_t flight) const { return counts_[flight]; }
  // Of all epochs.
  uint64_t in_flight_count() const;
  // Looks through the set: as long as much is open.
  uint64_t CountOpen() const { return open_->CountDirty(); }

  // Seals what is open. Returns how many pages were not sealed before.
  uint64_t Seal();

  struct Cleared {
    // The pages that were sealed and are in flight now.
    std::vector<BitmapWord> moved;
    uint64_t moved_page_count = 0;
    // Of those asked for, in flight in this epoch already: the clear was
    // repeated.
    uint64_t already_in_flight_page_count = 0;
    // Of those asked for, neither.
    uint64_t already_clean_page_count = 0;
    // Of those moved, taken from an earlier epoch's set.
    std::array<uint64_t, kMaxEpochsInFlight> moved_from = {};
  };
  // Takes the pages of `mask` (bit 0 is page 64 * first_word) that are sealed
  // into flight. REQUIRES: the words are within word_count().
  Cleared Clear(size_t flight, uint64_t first_word,
                absl::Span<const uint64_t> mask);

  // Delivered: the pages in flight in this set, or those of `mask` in it.
  // Returns how many there were.
  uint64_t Acknowledge(size_t flight);
  uint64_t Acknowledge(size_t flight, uint64_t first_word,
                       absl::Span<const uint64_t> mask);

  // Of the pages of `mask`, those in flight in this set.
  uint64_t CountInFlight(size_t flight, uint64_t first_word,
                         absl::Span<const uint64_t> mask) const;

  // Seals all that is in flight. Returns how many pages were.
  uint64_t Return();

  // Ors the words from `first_word` on into `out`.
  void OrSealedInto(uint64_t first_word, absl::Span<uint64_t> out) const {
    sealed_->OrInto(first_word, out);
  }
  void OrOpenInto(uint64_t first_word, absl::Span<uint64_t> out) const {
    open_->OrInto(first_word, out);
  }
  // Of all epochs, or of one set.
  void OrInFlightInto(uint64_t first_word, absl::Span<uint64_t> out) const;
  void OrInFlightInto(size_t flight, uint64_t first_word,
                      absl::Span<uint64_t> out) const;

  // Whether the page is in any set.
  bool IsUndelivered(uint64_t page) const;
  // Whether the page is in flight, in the set with this number.
  bool IsInFlight(size_t flight, uint64_t page) const {
    return in_flight_[flight]->Test(page);
  }
  // Whether the counts are those of the sets, and no page is in flight twice;
  // for the auditor. Costs as much as is in the sets.
  bool CountsAgree() const;
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
