#include "mmu_core/tlb/vcpu_tlb.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/with_memory.h"

namespace mmu {
namespace {

bool Maps(const TlbEntry& entry, GfnRange gfns) {
  return gfns.Overlaps(GfnRange::Of(entry.gfn, PagesPer(entry.level)));
}

}  // namespace

VcpuTlb::VcpuTlb(const TlbOptions& options)
    : slots_(std::make_unique<Slot[]>(kSlots)),
      precise_(options.flushes == TlbOptions::Flushes::kPrecise
                   ? std::make_unique<Precise>(options)
                   : nullptr) {
  static_assert(sizeof(Slot) == 64);
  // A vCPU that loads a root allocates nothing for its TLB.
  contexts_.reserve(kMaxContexts);
}

const VcpuTlb::Context* VcpuTlb::Find(TlbTag tag) const {
  const auto found =
      std::find_if(contexts_.begin(), contexts_.end(),
                   [tag](const Context& c) { return c.tag == tag; });
  return found == contexts_.end() ? nullptr : &*found;
}

uint64_t VcpuTlb::NewNumber() {
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

void VcpuTlb::SetNumber(uint64_t number) {
  number_ = number;
  if (precise_ != nullptr) precise_->tables.SelectContext(number);
}

void VcpuTlb::Select(TlbTag tag) {
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

void VcpuTlb::SelectNone() {
  tag_.reset();
  SetNumber(kNoContext);
}

const TlbEntry* VcpuTlb::LookupEvicted(PageNumber page) const {
  for (const Level level : kLeafLevels) {
    const auto found = precise_->evicted.find({TagOf(page, level), level});
    if (found != precise_->evicted.end()) return &found->second;
  }
  return nullptr;
}

void VcpuTlb::Insert(const TlbEntry& entry) {
  MMU_DCHECK(tag_.has_value());
  MMU_DCHECK(entry.level <= kMaxLeafLevel);
  MMU_DCHECK(IsAligned(entry.base_page, entry.level));
  MMU_DCHECK(entry.base_page.value() >> kPageNumberBits == 0);
  Slot& slot = slots_[IndexOfSlot(entry.base_page, entry.level)];
  if (precise_ != nullptr) MakeRoomIn(slot, entry);
  slot.tag = TagOf(entry.base_page, entry.level);
  slot.entry = entry;
}

void VcpuTlb::MakeRoomIn(const Slot& slot, const TlbEntry& next) {
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

void VcpuTlb::FlushAll() {
  contexts_.clear();
  if (precise_ != nullptr) {
    precise_->evicted.clear();
    precise_->tables.DropAllContexts();
  }
  if (tag_.has_value()) Select(*tag_);
}

void VcpuTlb::FlushContext(TlbTag tag) {
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

void VcpuTlb::FlushPageOf(uint64_t number, PageNumber page) {
  for (const Level level : kLeafLevels) {
    const uint64_t tag = TagFor(number, page, level);
    Slot& slot = slots_[IndexOfSlot(page, level)];
    if (slot.tag == tag) slot.tag = 0;
    if (precise_ != nullptr) precise_->evicted.erase({tag, level});
  }
}

void VcpuTlb::FlushPage(PageNumber page) {
  FlushPageOf(number_, page);
  if (precise_ != nullptr) precise_->tables.DropPage(number_, page);
}

void VcpuTlb::InvalidatePage(TlbTag tag, PageNumber page) {
  const Context* const context = Find(tag);
  if (context == nullptr) return;
  FlushPageOf(context->number, page);
  if (precise_ != nullptr) precise_->tables.DropPage(context->number, page);
}

void VcpuTlb::Invlpg(TlbTag tag, PageNumber page) {
  const Context* const context = Find(tag);
  if (context == nullptr) return;
  FlushPageOf(context->number, page);
  if (precise_ != nullptr) precise_->tables.DropContext(context->number);
}

void VcpuTlb::Flush(const TlbFlush& flush, TlbPages pages) {
  if (flush.CoversAllGfns()) {
    FlushAll();
    return;
  }
  for (int i = 0; i < kSlots; ++i) {
    if (slots_[i].tag != 0 && Maps(slots_[i].entry, flush.gfns)) {
      slots_[i].tag = 0;
    }
  }
  if (precise_ == nullptr) return;
  std::erase_if(precise_->evicted, [&flush](const auto& entry) {
    return Maps(entry.second, flush.gfns);
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

void VcpuTlb::DropRandom(uint64_t random) { slots_[random % kSlots].tag = 0; }

}  // namespace mmu
