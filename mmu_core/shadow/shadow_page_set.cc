#include "mmu_core/shadow/shadow_page_set.h"

#include <atomic>
#include <bit>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"

namespace mmu {

void ShadowPageList::Add(ShadowPageState& page) {
  MMU_DCHECK(page.newer == nullptr && page.older == nullptr);
  page.older = newest_;
  (newest_ == nullptr ? oldest_ : newest_->newer) = &page;
  newest_ = &page;
}

void ShadowPageList::Remove(ShadowPageState& page) {
  (page.newer == nullptr ? newest_ : page.newer->older) = page.older;
  (page.older == nullptr ? oldest_ : page.older->newer) = page.newer;
  page.newer = nullptr;
  page.older = nullptr;
}

ShadowPageSet::~ShadowPageSet() {
  for (const ShadowPageState* chain : chains_) MMU_CHECK(chain == nullptr);
}

int ShadowPageSet::ChainOf(Gfn gfn) {
  // Multiplied by 2^64 over the golden ratio, the upper bits spread well.
  constexpr int kBits = std::countr_zero(static_cast<unsigned>(kChains));
  return static_cast<int>((gfn.value() * 0x9e37'79b9'7f4a'7c15) >>
                          (64 - kBits));
}

void ShadowPageSet::StartGeneration(const MmuWriteLocked& lock) {
  MMU_DCHECK(lock.held());
  MMU_CHECK(active_.empty() || active_.oldest()->generation == generation_);
  generation_ ^= 1;
}

void ShadowPageSet::Insert(const MmuWriteLocked& lock, ShadowPageState& page) {
  MMU_DCHECK(lock.held());
  page.generation = generation_;
  ShadowPageState*& chain = chains_[ChainOf(page.gfn())];
  page.hash_next = chain;
  chain = &page;
  active_.Add(page);
}

void ShadowPageSet::Deactivate(const MmuWriteLocked& lock,
                               ShadowPageState& page) {
  MMU_DCHECK(lock.held() && !page.IsInvalid());
  active_.Remove(page);
  page.invalid.store(true, std::memory_order_release);
}

void ShadowPageSet::Remove(const MmuWriteLocked& lock, ShadowPageState& page) {
  MMU_DCHECK(lock.held() && page.IsInvalid());
  ShadowPageState** link = &chains_[ChainOf(page.gfn())];
  while (*link != &page) link = &(*link)->hash_next;
  *link = page.hash_next;
  page.hash_next = nullptr;
}

}  // namespace mmu
