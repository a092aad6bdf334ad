#include "mmu_core/dirty/slot_log.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"

namespace mmu {

std::shared_ptr<SlotLog> SlotLog::TryCreate(uint32_t slot,
                                            std::shared_ptr<DirtyBitmap> open) {
  if (open == nullptr) return nullptr;
  const auto new_set = [&] {
    return DirtyBitmap::TryCreate(open->npages(), InitiallySet::kNo,
                                  BitmapWriters::kOneAtATime);
  };
  std::shared_ptr<DirtyBitmap> sealed = new_set();
  if (sealed == nullptr) return nullptr;
  Sets in_flight;
  for (std::shared_ptr<DirtyBitmap>& set : in_flight) {
    set = new_set();
    if (set == nullptr) return nullptr;
  }
  return std::shared_ptr<SlotLog>(new SlotLog(
      slot, std::move(open), std::move(sealed), std::move(in_flight)));
}

SlotLog::SlotLog(uint32_t slot, std::shared_ptr<DirtyBitmap> open,
                 std::shared_ptr<DirtyBitmap> sealed, Sets in_flight)
    : slot_(slot),
      open_(std::move(open)),
      sealed_(std::move(sealed)),
      in_flight_(std::move(in_flight)) {}

uint64_t SlotLog::in_flight_count() const {
  uint64_t count = 0;
  for (const uint64_t of_epoch : counts_) count += of_epoch;
  return count;
}

uint64_t SlotLog::PagesOfWord(uint64_t i) const {
  MMU_DCHECK(i < word_count());
  return WordMask(i, 0, npages());
}

uint64_t SlotLog::Seal() {
  uint64_t fresh = 0;
  open_->TakeAll(0, word_count(), [&](uint64_t i, uint64_t bits) {
    fresh += CountBits(sealed_->MarkWord(i, bits));
    AtHook(HookPoint::kJoinToLeave);
  });
  sealed_count_ += fresh;
  return fresh;
}

SlotLog::Cleared SlotLog::Clear(size_t flight, uint64_t first_word,
                                absl::Span<const uint64_t> mask) {
  MMU_CHECK(flight < kMaxEpochsInFlight);
  MMU_CHECK(first_word <= word_count() &&
            mask.size() <= word_count() - first_word);
  Cleared result;
  // Allocates everything before a page moves.
  result.moved.reserve(static_cast<size_t>(std::count_if(
      mask.begin(), mask.end(), [](uint64_t word) { return word != 0; })));
  DirtyBitmap& to = *in_flight_[flight];
  for (size_t n = 0; n < mask.size(); ++n) {
    if (mask[n] == 0) continue;
    const uint64_t i = first_word + n;
    const uint64_t bits = sealed_->Word(i) & mask[n];
    if (bits != mask[n]) {
      const uint64_t others = mask[n] & ~bits & PagesOfWord(i);
      const uint64_t here = to.Word(i) & others;
      result.already_in_flight_page_count += CountBits(here);
      result.already_clean_page_count += CountBits(others & ~here);
    }
    if (bits == 0) continue;
    // A page enters the sealed set again only through a seal, which ends the
    // epoch, or through a return from flight. In both cases it is not in flight
    // in this epoch.
    MMU_DCHECK((to.Word(i) & bits) == 0);
    to.MarkWord(i, bits);
    AtHook(HookPoint::kJoinToLeave);
    for (size_t other = 0; other < kMaxEpochsInFlight; ++other) {
      if (other == flight || counts_[other] == 0) continue;
      const uint64_t left = CountBits(in_flight_[other]->ClearBits(i, bits));
      counts_[other] -= left;
      result.moved_from[other] += left;
    }
    sealed_->ClearBits(i, bits);
    result.moved_page_count += CountBits(bits);
    result.moved.push_back({i, bits});
  }
  sealed_count_ -= result.moved_page_count;
  counts_[flight] += result.moved_page_count;
  return result;
}

uint64_t SlotLog::Acknowledge(size_t flight) {
  if (counts_[flight] == 0) return 0;
  uint64_t delivered = 0;
  in_flight_[flight]->TakeAll(0, word_count(), [&](uint64_t, uint64_t bits) {
    delivered += CountBits(bits);
  });
  MMU_CHECK(delivered == counts_[flight]);
  counts_[flight] = 0;
  return delivered;
}

uint64_t SlotLog::Acknowledge(size_t flight, uint64_t first_word,
                              absl::Span<const uint64_t> mask) {
  if (counts_[flight] == 0) return 0;
  uint64_t delivered = 0;
  for (size_t n = 0; n < mask.size(); ++n) {
    if (mask[n] == 0) continue;
    delivered +=
        CountBits(in_flight_[flight]->ClearBits(first_word + n, mask[n]));
  }
  counts_[flight] -= delivered;
  return delivered;
}

uint64_t SlotLog::CountInFlight(size_t flight, uint64_t first_word,
                                absl::Span<const uint64_t> mask) const {
  if (counts_[flight] == 0) return 0;
  uint64_t count = 0;
  for (size_t n = 0; n < mask.size(); ++n) {
    count += CountBits(in_flight_[flight]->Word(first_word + n) & mask[n]);
  }
  return count;
}

uint64_t SlotLog::Return() {
  uint64_t returned = 0;
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    if (counts_[flight] == 0) continue;
    in_flight_[flight]->TakeAll(
        0, word_count(), [&](uint64_t i, uint64_t bits) {
          sealed_count_ += CountBits(sealed_->MarkWord(i, bits));
          AtHook(HookPoint::kJoinToLeave);
          returned += CountBits(bits);
        });
    counts_[flight] = 0;
  }
  return returned;
}

void SlotLog::OrInFlightInto(uint64_t first_word,
                             absl::Span<uint64_t> out) const {
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    OrInFlightInto(flight, first_word, out);
  }
}

void SlotLog::OrInFlightInto(size_t flight, uint64_t first_word,
                             absl::Span<uint64_t> out) const {
  if (counts_[flight] != 0) in_flight_[flight]->OrInto(first_word, out);
}

bool SlotLog::IsUndelivered(uint64_t page) const {
  if (open_->Test(page) || sealed_->Test(page)) return true;
  for (const std::shared_ptr<DirtyBitmap>& set : in_flight_) {
    if (set->Test(page)) return true;
  }
  return false;
}

void SlotLog::AuditSets(
    absl::FunctionRef<void(const std::string&)> fault) const {
  if (const uint64_t sealed = sealed_->CountDirty(); sealed != sealed_count_) {
    fault(Format("slot %d has %d sealed pages, but counts %d", slot_, sealed,
                 sealed_count_));
  }
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    uint64_t count = 0;
    uint64_t twice = 0;
    in_flight_[flight]->ForEachNonZeroWord(
        0, word_count(), [&](uint64_t i, uint64_t bits) {
          count += CountBits(bits);
          for (size_t other = 0; other < flight; ++other) {
            twice += CountBits(in_flight_[other]->Word(i) & bits);
          }
        });
    if (count != counts_[flight]) {
      fault(Format("slot %d has %d pages in flight in set %d, but counts %d",
                   slot_, count, flight, counts_[flight]));
    }
    if (twice != 0) {
      fault(
          Format("slot %d has %d pages in flight in set %d that are in "
                 "flight in another set, too",
                 slot_, twice, flight));
    }
  }
}

}  // namespace mmu
