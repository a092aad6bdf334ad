#include "mmu_core/tdp/tdp_root.h"

#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

bool RootList::Matches(const TdpRoot& root, RootFilter filter, int as_id) {
  return (filter == RootFilter::kAll || !root.IsInvalid()) &&
         (as_id == kAnyAsId || root.as_id() == as_id);
}

// A root whose count reached 0 is being freed and cannot be revived (TDP-04).
bool RootList::TryGet(TdpRoot& root) {
  AtHook(HookPoint::kRootFoundToGet);
  int refs = root.refs_.load(std::memory_order_relaxed);
  while (refs != 0) {
    if (root.refs_.compare_exchange_weak(refs, refs + 1,
                                         std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

TdpRoot* RootList::Head() const {
  MMU_DCHECK(InRcuReadSection() || mu_.IsHeld());
  return head_.load(std::memory_order_acquire);
}

TdpRoot* RootList::After(const TdpRoot& root) const {
  MMU_DCHECK(InRcuReadSection() || mu_.IsHeld());
  return root.next_.load(std::memory_order_acquire);
}

RootRef RootList::Find(PageRole role) {
  for (TdpRoot* root = Head(); root != nullptr; root = After(*root)) {
    if (root->role() == role && !root->IsInvalid() && TryGet(*root)) {
      return RootRef(root);
    }
  }
  return RootRef();
}

RootRef RootList::FindOrCreate(PageRole role, ShadowPage*& page,
                               std::unique_ptr<TdpRoot>& spare) {
  // Look without the mutex first. If a root must be created, look again with
  // the mutex, since another vCPU may have been faster (TDP-02).
  {
    RcuReadGuard rcu;
    if (RootRef found = Find(role)) return found;
  }
  AtHook(HookPoint::kNoRootToLock);
  MutexLock lock(mu_);
  if (RootRef found = Find(role)) return found;
  page->role = role;
  page->gfn = Gfn(0);
  page->parent = nullptr;
  TdpRoot* const root = spare.release();
  root->page_ = std::exchange(page, nullptr);
  root->id_ = next_id_++;
  root->list_ = this;
  root->next_.store(Head(), std::memory_order_relaxed);
  head_.store(root, std::memory_order_release);
  return RootRef(root);
}

TdpRoot* RootList::MatchFrom(TdpRoot* root, RootFilter filter,
                             int as_id) const {
  while (root != nullptr && !Matches(*root, filter, as_id)) {
    root = After(*root);
  }
  return root;
}

TdpRoot* RootList::FirstRcu(RootFilter filter, int as_id) const {
  return MatchFrom(Head(), filter, as_id);
}

TdpRoot* RootList::NextRcu(const TdpRoot* previous, RootFilter filter,
                           int as_id) const {
  return MatchFrom(After(*previous), filter, as_id);
}

RootRef RootList::GetFrom(TdpRoot* root, RootFilter filter, int as_id) {
  while (root != nullptr && !TryGet(*root)) {
    root = NextRcu(root, filter, as_id);
  }
  return root == nullptr ? RootRef() : RootRef(root);
}

RootRef RootList::First(RootFilter filter, int as_id) {
  RcuReadGuard rcu;
  return GetFrom(FirstRcu(filter, as_id), filter, as_id);
}

RootRef RootList::Next(RootRef previous, RootFilter filter, int as_id) {
  RcuReadGuard rcu;
  return GetFrom(NextRcu(previous.get(), filter, as_id), filter, as_id);
}

void RootList::InvalidateAll() {
  RcuReadGuard rcu;
  for (TdpRoot* root = FirstRcu(RootFilter::kValid, kAnyAsId); root != nullptr;
       root = NextRcu(root, RootFilter::kValid, kAnyAsId)) {
    root->zap_scheduled_.store(true, std::memory_order_relaxed);
    root->invalid_.store(true, std::memory_order_release);
  }
}

RootRef RootList::TakeScheduled() {
  RootRef root = First(RootFilter::kAll, kAnyAsId);
  while (root) {
    if (root->zap_scheduled_.exchange(false, std::memory_order_relaxed)) {
      return root;
    }
    root = Next(std::move(root), RootFilter::kAll, kAnyAsId);
  }
  return root;
}

void RootList::PutMmuReference(TdpRoot& root) { Put(&root); }

void RootList::Put(TdpRoot* root) {
  // acq_rel: all other threads' uses of the root happened before it is freed.
  if (root->refs_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  MMU_CHECK(root->IsInvalid());
  RcuReadGuard rcu;
  TablePool::BeginGracePeriod(*root->page_);
  {
    MutexLock lock(mu_);
    std::atomic<TdpRoot*>* link = &head_;
    while (link->load(std::memory_order_relaxed) != root) {
      link = &link->load(std::memory_order_relaxed)->next_;
    }
    link->store(root->next_.load(std::memory_order_relaxed),
                std::memory_order_release);
  }
  TablePool::HandToRcu(*root->page_);
  RcuDefer(
      &root->rcu_, [](void* arg) { delete static_cast<TdpRoot*>(arg); }, root);
}

}  // namespace mmu
