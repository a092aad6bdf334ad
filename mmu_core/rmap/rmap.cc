#include "mmu_core/rmap/rmap.h"

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/sync/spin.h"

namespace mmu {
namespace {

uintptr_t WordOf(const SpteSlot& sptep) {
  return reinterpret_cast<uintptr_t>(&sptep);
}
uintptr_t WordOf(const PteListDesc* desc) {
  return reinterpret_cast<uintptr_t>(desc) | RmapHead::kMany;
}

uint64_t CountOf(const PteListDesc& head) {
  return uint64_t{head.count} + head.tail_count;
}

// The list entry that holds `sptep`.
SpteSlot*& Find(PteListDesc* head, const SpteSlot& sptep) {
  for (PteListDesc* desc = head; desc != nullptr; desc = desc->next) {
    for (uint32_t i = 0; i < desc->count; ++i) {
      if (desc->sptes[i] == &sptep) return desc->sptes[i];
    }
  }
  MMU_CHECK(!"the SPTE is in its rmap");
  __builtin_unreachable();
}

}  // namespace

RmapIterator::RmapIterator(uintptr_t word) {
  if ((word & RmapHead::kMany) != 0) {
    desc_ = RmapHead::ListOf(word);
    sptep_ = desc_->sptes[0];
  } else {
    sptep_ = reinterpret_cast<SpteSlot*>(word);
  }
}

void RmapHead::CheckHeld(const MmuWriteLocked& lock) {
  MMU_DCHECK(lock.held());
}

uintptr_t RmapHead::Lock(MmuCounters& counters) {
  uintptr_t word = word_.load(std::memory_order_relaxed);
  Backoff backoff;
  bool contended = false;
  while (word != 0) {
    if ((word & kLocked) != 0) {
      if (!contended) {
        contended = true;
        counters.rmap_lock_contended.fetch_add(1, std::memory_order_relaxed);
        AtHook(HookPoint::kRmapContended);
      }
      backoff.Pause();
      // Reload the word: the rmap may have become empty (RACE-28, step 6).
      word = word_.load(std::memory_order_relaxed);
    } else if (word_.compare_exchange_weak(word, word | kLocked,
                                           std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
      break;
    }
  }
  return word;
}

void RmapHead::Unlock(uintptr_t word) {
  MMU_DCHECK((word & kLocked) == 0);
  word_.store(word, std::memory_order_release);
}

uint64_t RmapHead::Add(const MmuWriteLocked& lock, SpteSlot& sptep,
                       PteListCache& cache, MmuCounters& counters) {
  CheckHeld(lock);
  const uintptr_t old = Lock(counters);
  if (old == 0) {
    // No other thread changes an empty rmap meanwhile, and no reader locks it.
    Unlock(WordOf(sptep));
    return 0;
  }
  AtHook(HookPoint::kRmapLockToChange);
  PteListDesc* head = nullptr;
  uint64_t before = 1;
  if ((old & kMany) == 0) {
    head = cache.Take();
    head->next = nullptr;
    head->tail_count = 0;
    head->count = 1;
    head->sptes[0] = reinterpret_cast<SpteSlot*>(old);
  } else {
    head = ListOf(old);
    before = CountOf(*head);
    if (head->count == kPteListEntries) {
      PteListDesc* const full = head;
      head = cache.Take();
      head->next = full;
      head->tail_count = full->tail_count + full->count;
      head->count = 0;
    }
  }
  head->sptes[head->count++] = &sptep;
  Unlock(WordOf(head));
  return before;
}

void RmapHead::Remove(const MmuWriteLocked& lock, SpteSlot& sptep,
                      MmuCounters& counters) {
  CheckHeld(lock);
  const uintptr_t old = Lock(counters);
  MMU_CHECK(old != 0);
  AtHook(HookPoint::kRmapLockToChange);
  if ((old & kMany) == 0) {
    MMU_CHECK(old == WordOf(sptep));
    Unlock(0);
    return;
  }
  PteListDesc* const head = ListOf(old);
  Find(head, sptep) = head->sptes[head->count - 1];
  if (--head->count != 0) {
    Unlock(old);
    return;
  }
  Unlock(head->next == nullptr ? 0 : WordOf(head->next));
  // No reader can still reach it: an earlier reader has released the lock, and
  // a later one finds another head.
  head->next = nullptr;
  PteListPool::Return(head);
}

bool RmapHead::ZapAll(const MmuWriteLocked& lock,
                      absl::FunctionRef<void(SpteSlot&)> drop,
                      MmuCounters& counters) {
  CheckHeld(lock);
  const uintptr_t old = Lock(counters);
  if (old == 0) return false;
  AtHook(HookPoint::kRmapLockToChange);
  for (RmapIterator it(old); it.Valid(); it.Next()) drop(it.sptep());
  Unlock(0);
  if ((old & kMany) != 0) PteListPool::Return(ListOf(old));
  return true;
}

uint64_t RmapHead::Count(const MmuWriteLocked& lock) const {
  CheckHeld(lock);
  const uintptr_t word = word_.load(std::memory_order_relaxed) & ~kLocked;
  if ((word & kMany) == 0) return word == 0 ? 0 : 1;
  return CountOf(*ListOf(word));
}

RmapIterator RmapHead::Entries(const MmuWriteLocked& lock) const {
  CheckHeld(lock);
  return RmapIterator(word_.load(std::memory_order_relaxed) & ~kLocked);
}

RmapIterator RmapHead::Entries(const MmuReadLocked& lock) const {
  MMU_DCHECK(lock.held());
  return RmapIterator(word_.load(std::memory_order_relaxed) & ~kLocked);
}

std::string RmapHead::WhyMalformed(const MmuWriteLocked& lock) const {
  CheckHeld(lock);
  const uintptr_t word = word_.load(std::memory_order_relaxed) & ~kLocked;
  if ((word & kMany) == 0) return "";
  const PteListDesc* const head = ListOf(word);
  uint64_t left = CountOf(*head);
  for (const PteListDesc* desc = head; desc != nullptr; desc = desc->next) {
    if (desc->count == 0 || desc->count > kPteListEntries ||
        (desc != head && desc->count != kPteListEntries)) {
      return Format("a %s descriptor has %d SPTEs",
                    std::string(desc == head ? "head" : "later"), desc->count);
    }
    if (left != CountOf(*desc)) {
      return Format(
          "a descriptor counts %d SPTEs from itself on, the one "
          "before says %d",
          CountOf(*desc), left);
    }
    left -= desc->count;
    if (desc->next == nullptr && left != 0) {
      return Format("the last descriptor counts %d SPTEs behind it", left);
    }
    if (desc->next != nullptr && left == 0) {
      return "there is a descriptor behind the last SPTE";
    }
  }
  return "";
}

RmapReadLocked::RmapReadLocked(RmapHead& head, MmuCounters& counters)
    : head_(head), word_(head.Lock(counters)) {
  if (word_ != 0) AtHook(HookPoint::kRmapLockToWalk);
}

}  // namespace mmu
