#include "mmu_core/memory/guest_memory_access.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/base/optimization.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// Acquire: a walk that finds a link sees everything that the guest wrote before
// it linked the table, as the processor's own walk would.
template <typename Word>
uint64_t LoadWord(std::byte* byte) {
  return std::atomic_ref<Word>(*reinterpret_cast<Word*>(byte))
      .load(std::memory_order_acquire);
}

template <typename Word>
bool ExchangeWord(std::byte* byte, uint64_t expected, uint64_t desired) {
  Word old = static_cast<Word>(expected);
  return std::atomic_ref<Word>(*reinterpret_cast<Word*>(byte))
      .compare_exchange_strong(old, static_cast<Word>(desired),
                               std::memory_order_acq_rel,
                               std::memory_order_relaxed);
}

// Loads a word of borrowed memory. Its frame may be taken away before the load.
// Returns false if the frame is missing.
template <typename Word>
bool LoadBorrowed(const Backing& backing, Hva hva, uint64_t* value) {
  std::array<std::byte, sizeof(Word)> bytes;
  if (backing.ReadBorrowed(hva, absl::MakeSpan(bytes)) != bytes.size()) {
    return false;
  }
  Word word;
  std::memcpy(&word, bytes.data(), sizeof(word));
  *value = word;
  return true;
}

}  // namespace

GuestWordResult GuestMemoryAccess::Find(Gpa gpa, const Memslot** slot,
                                        Hva* hva) {
  const Gfn gfn = ToGfn(gpa);
  *slot = hint_.Find(slots_.Active(as_id_), gfn);
  if (*slot == nullptr || (*slot)->invalid()) return GuestWordResult::kNoSlot;
  const Backing* backing = (*slot)->backing.get();
  if (backing == nullptr || !backing->has_contents()) {
    return GuestWordResult::kNoContents;
  }
  *hva = (*slot)->HvaOf(gfn) + (gpa.value() & kPageMask);
  return GuestWordResult::kDone;
}

GuestWordResult GuestMemoryAccess::Read(Gpa gpa, WordSize size,
                                        uint64_t* value) {
  MMU_DCHECK(gpa.value() % static_cast<uint64_t>(size) == 0);
  RcuReadGuard rcu;
  const Memslot* slot;
  Hva hva;
  const GuestWordResult found = Find(gpa, &slot, &hva);
  if (found != GuestWordResult::kDone) return found;
  const Backing& backing = *slot->backing;
  if (ABSL_PREDICT_FALSE(backing.is_borrowed())) {
    const bool read = size == WordSize::k8
                          ? LoadBorrowed<uint64_t>(backing, hva, value)
                          : LoadBorrowed<uint32_t>(backing, hva, value);
    return read ? GuestWordResult::kDone : GuestWordResult::kFrameMissing;
  }
  std::byte* const byte = backing.PointerTo(hva);
  *value = size == WordSize::k8 ? LoadWord<uint64_t>(byte)
                                : LoadWord<uint32_t>(byte);
  return GuestWordResult::kDone;
}

// Order against a clear of the log (RACE-26):
//
//   1. here: writes the word
//   2. seal, clear: the page is clean, or is taken and protected; its copy has
//      the word
//   3. here: marks the page, so it is reported once more than needed
//
// With 3 before 1, the mark could be taken and the page copied in between, and
// no copy would have the word. The vCPU does not need the page to be writable
// in any table for this, so no fault would mark it again.
GuestWordResult GuestMemoryAccess::CompareExchange(Gpa gpa, WordSize size,
                                                   uint64_t expected,
                                                   uint64_t desired) {
  MMU_DCHECK(gpa.value() % static_cast<uint64_t>(size) == 0);
  RcuReadGuard rcu;
  const Memslot* slot;
  Hva hva;
  const GuestWordResult found = Find(gpa, &slot, &hva);
  if (found != GuestWordResult::kDone) return found;
  if (slot->readonly()) return GuestWordResult::kReadonly;
  switch (slot->StateOf(ToGfn(gpa))) {
    case FrameState::kMissing:
      return GuestWordResult::kFrameMissing;
    case FrameState::kReadOnly:
      return GuestWordResult::kHostReadonly;
    case FrameState::kReadWrite:
      // If the frame is taken away before the exchange, the word is lost with
      // the rest of the page. A later exchange does no harm
      // (BorrowedSpec::address).
      break;
  }
  std::byte* const byte = slot->backing->PointerTo(hva);
  // Checked before the word is written, since a written page must be marked.
  // Only this thread fills the ring, so there is still room afterwards.
  if (ring_ != nullptr && slot->dirty_log_enabled() && ring_->SoftFull()) {
    return GuestWordResult::kRingFull;
  }
  const bool exchanged = size == WordSize::k8
                             ? ExchangeWord<uint64_t>(byte, expected, desired)
                             : ExchangeWord<uint32_t>(byte, expected, desired);
  if (!exchanged) return GuestWordResult::kChanged;
  AtHook(HookPoint::kGuestWordToMark);
  MarkPageDirty(*slot, ToGfn(gpa), ring_);
  return GuestWordResult::kDone;
}

}  // namespace mmu
