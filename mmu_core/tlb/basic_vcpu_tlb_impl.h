// The implementation of BasicVcpuTlb, for the files that instantiate it.

#ifndef MMU_CORE_TLB_BASIC_VCPU_TLB_IMPL_H_
#define MMU_CORE_TLB_BASIC_VCPU_TLB_IMPL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/tlb/basic_paging_structure_cache_impl.h"
#include "mmu_core/tlb/basic_vcpu_tlb.h"

namespace mmu {

template <PagingTraits Traits>
BasicVcpuTlb<Traits>::BasicVcpuTlb(const TlbOptions& options)
    : slots_(std::make_unique<Slot[]>(kSlots)),
      precise_(options.flushes == TlbOptions::Flushes::kPrecise
                   ? std::make_unique<Precise>(options)
                   : nullptr) {
  static_assert(sizeof(Slot) == 64);
  // A vCPU that loads a root allocates nothing for its TLB.
  contexts_.reserve(kMaxContexts);
}

template <PagingTraits Traits>
auto BasicVcpuTlb<Traits>::Find(TlbTag tag) const -> const Context* {
  const auto found =
      std::find_if(contexts_.begin(), contexts_.end(),
                   [tag](const Context& c) { return c.tag == tag; });
  return found == contexts_.end() ? nullptr : &*found;
}

template <PagingTraits Traits>
uint64_t BasicVcpuTlb<Traits>::NewNumber() {
  if (next_number_ == kNoContext) {
    // The numbers are used up: drop all entries, or those of number 1 would
    // become valid again.
    std::fill_n(slots_.get(), kSlots, Slot());
    contexts_.clear();
    if (precise_ != nullptr) {
      precise_->evicted.clear();
      precise_->tables.DropAllContexts();
    }
    next_number_ = 1;
  }
  return next_number_++;
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::SetNumber(uint64_t number) {
  number_ = number;
  if (precise_ != nullptr) precise_->tables.SelectContext(number);
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::Select(TlbTag tag) {
  tag_ = tag;
  if (const Context* const context = Find(tag); context != nullptr) {
    SetNumber(context->number);
    return;
  }
  if (contexts_.size() == kMaxContexts) {
    FlushAll();  // selects the context anew
    return;
  }
  const uint64_t number = NewNumber();
  contexts_.push_back({tag, number});
  SetNumber(number);
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::SelectNone() {
  tag_.reset();
  SetNumber(kNoContext);
}

template <PagingTraits Traits>
const TlbEntry* BasicVcpuTlb<Traits>::LookupEvicted(PageNumber page) const {
  for (Level level{1}; level <= Geometry::kMaxLeafLevel;
       level = ParentOf(level)) {
    const auto found = precise_->evicted.find({TagOf(page, level), level});
    if (found != precise_->evicted.end()) return &found->second;
  }
  return nullptr;
}

template <PagingTraits Traits>
bool BasicVcpuTlb<Traits>::HasConflict(PageNumber page) const {
  int found = 0;
  for (Level level{1}; level <= Geometry::kMaxLeafLevel;
       level = ParentOf(level)) {
    const uint64_t tag = TagOf(page, level);
    found += SlotOf(page, level).tag == tag ||
             (precise_ != nullptr && precise_->evicted.contains({tag, level}));
  }
  return found > 1;
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::Insert(const TlbEntry& entry) {
  MMU_DCHECK(tag_.has_value());
  MMU_DCHECK(entry.level <= Geometry::kMaxLeafLevel);
  MMU_DCHECK(IsAligned<Geometry>(Gfn(entry.base_page.value()), entry.level));
  MMU_DCHECK(entry.base_page.value() >> kPageNumberBits == 0);
  Slot& slot = slots_[IndexOfSlot(entry.base_page, entry.level)];
  if (precise_ != nullptr) MakeRoomIn(slot, entry);
  slot.tag = TagOf(entry.base_page, entry.level);
  slot.entry = entry;
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::MakeRoomIn(const Slot& slot, const TlbEntry& next) {
  if (precise_->options.evictions == TlbOptions::Evictions::kRandom) {
    if (precise_->random() % 16 == 0) DropRandom(precise_->random());
    return;
  }
  const uint64_t tag = TagOf(next.base_page, next.level);
  precise_->evicted.erase({tag, next.level});
  if (slot.tag != 0 && slot.tag != tag) {
    // Without memory the entry is forgotten.
    static_cast<void>(TryWithMemory([&] {
      precise_->evicted[{slot.tag, slot.entry.level}] = slot.entry;
      return true;
    }));
  }
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::FlushAll() {
  contexts_.clear();
  if (precise_ != nullptr) {
    precise_->evicted.clear();
    precise_->tables.DropAllContexts();
  }
  if (tag_.has_value()) Select(*tag_);
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::FlushContext(TlbTag tag) {
  const Context* const context = Find(tag);
  if (context == nullptr) return;
  const uint64_t number = context->number;
  contexts_.erase(contexts_.begin() + (context - contexts_.data()));
  if (precise_ != nullptr) {
    std::erase_if(precise_->evicted, [number](const auto& entry) {
      return NumberIn(entry.first.tag) == number;
    });
    precise_->tables.DropContext(number);
  }
  if (tag_ == tag) Select(tag);
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::FlushPageOf(uint64_t number, PageNumber page) {
  for (Level level{1}; level <= Geometry::kMaxLeafLevel;
       level = ParentOf(level)) {
    const uint64_t tag = TagFor(number, page, level);
    Slot& slot = slots_[IndexOfSlot(page, level)];
    if (slot.tag == tag) slot.tag = 0;
    if (precise_ != nullptr) precise_->evicted.erase({tag, level});
  }
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::FlushPage(PageNumber page) {
  FlushPageOf(number_, page);
  if (precise_ != nullptr) precise_->tables.DropPage(number_, page);
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::InvalidatePage(TlbTag tag, PageNumber page) {
  const Context* const context = Find(tag);
  if (context == nullptr) return;
  FlushPageOf(context->number, page);
  if (precise_ != nullptr) precise_->tables.DropPage(context->number, page);
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::Invlpg(TlbTag tag, PageNumber page) {
  const Context* const context = Find(tag);
  if (context == nullptr) return;
  FlushPageOf(context->number, page);
  if (precise_ != nullptr) precise_->tables.DropContext(context->number);
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::Flush(const TlbFlush& flush, TlbPages pages) {
  if (flush.CoversAllGfns()) {
    FlushAll();
    return;
  }
  for (int i = 0; i < kSlots; ++i) {
    if (slots_[i].tag != 0 && IsCovered(slots_[i].entry, flush)) {
      slots_[i].tag = 0;
    }
  }
  if (precise_ == nullptr) return;
  std::erase_if(precise_->evicted, [&flush](const auto& entry) {
    return IsCovered(entry.second, flush);
  });
  if (!flush.CoversTables()) return;
  if (pages == TlbPages::kGuestPhysical) {
    precise_->tables.DropRange(PageNumber(flush.gfns.start.value()),
                               PageNumber(flush.gfns.end.value()));
  } else {
    // The gfns below a table of other pages are not known.
    precise_->tables.DropAllContexts();
  }
}

template <PagingTraits Traits>
void BasicVcpuTlb<Traits>::DropRandom(uint64_t random) {
  slots_[random % kSlots].tag = 0;
}

}  // namespace mmu

#endif  // MMU_CORE_TLB_BASIC_VCPU_TLB_IMPL_H_
