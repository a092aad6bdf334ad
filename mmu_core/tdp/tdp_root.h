// Roots of the TDP MMU: the top tables that vCPUs run on, and their references.
//
// States of a root:
//   valid      may be given to vCPUs. Has at least the MMU's own reference
//              (TDP-03), so it outlives its last vCPU and is found again.
//   invalid    never given out again (TDP-05); `zap_scheduled` until
//              ZapInvalidatedRoots emptied it and dropped the MMU's reference.
//   dead       reference count 0: off the list, freed after a grace period.
// Transitions: valid -> invalid under mmu_lock write; invalid -> dead by the
// thread that puts the last reference (TDP-04).

#ifndef MMU_CORE_TDP_TDP_ROOT_H_
#define MMU_CORE_TDP_TDP_ROOT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

class RootList;

// Thread-safe as described at each member.
class TdpRoot {
 public:
  TdpRoot() = default;

  PageTable* table() const { return page_->table; }
  PageRole role() const { return page_->role; }
  Level level() const { return page_->role.level(); }
  int as_id() const { return page_->role.as_id(); }
  // Never reused within a VM.
  uint64_t id() const { return id_; }

  // Changes only under mmu_lock write (LCK-03). May be read under any lock, or
  // as a hint without one.
  bool IsInvalid() const { return invalid_.load(std::memory_order_acquire); }
  // Invalid, and not zapped yet: the MMU has its reference still. Changes like
  // IsInvalid, and when a thread takes the root to zap it.
  bool IsZapScheduled() const {
    return zap_scheduled_.load(std::memory_order_relaxed);
  }

  // The number of references; meaningful only while none is taken or dropped.
  int references() const { return refs_.load(std::memory_order_relaxed); }

 private:
  friend class RootList;
  friend class RootRef;

  ShadowPage* page_ = nullptr;  // constant once the root is in a list
  uint64_t id_ = 0;             // constant likewise
  std::atomic<int> refs_{2};    // one for the creator, one for the MMU (TDP-03)
  std::atomic<bool> invalid_{false};
  std::atomic<bool> zap_scheduled_{false};
  std::atomic<TdpRoot*> next_{nullptr};  // written under RootList::mu_
  RootList* list_ = nullptr;
  RcuHook rcu_;
};

// Owns one reference to a root, or none. Externally synchronised.
class RootRef {
 public:
  RootRef() = default;
  RootRef(RootRef&& other) noexcept
      : root_(std::exchange(other.root_, nullptr)) {}
  RootRef& operator=(RootRef&& other) noexcept {
    if (this != &other) {
      reset();
      root_ = std::exchange(other.root_, nullptr);
    }
    return *this;
  }
  ~RootRef() { reset(); }

  explicit operator bool() const { return root_ != nullptr; }
  TdpRoot* operator->() const { return root_; }
  TdpRoot& operator*() const { return *root_; }
  TdpRoot* get() const { return root_; }
  // Drops the reference; the last one frees the root.
  void reset();

 private:
  friend class RootList;
  explicit RootRef(TdpRoot* root) : root_(root) {}
  TdpRoot* root_ = nullptr;
};

// Which roots an operation visits (TDP-09).
enum class RootFilter : uint8_t { kValid, kAll };

// The roots of one VM (TDP-01). Readable under RCU; changed under its own
// mutex, which is a leaf below mmu_lock. Thread-safe.
class RootList {
 public:
  static constexpr int kAnyAsId = -1;

  RootList() = default;
  ~RootList() { MMU_CHECK(head_.load() == nullptr); }
  RootList(const RootList&) = delete;
  RootList& operator=(const RootList&) = delete;

  // The valid root with this role if there is one. Otherwise a new root on
  // `page`, which is then set to null (TDP-02). The caller fills `page` with
  // initial entries, without a role; `spare` is empty memory for the root, so
  // that nothing is allocated here. REQUIRES: mmu_lock held in any mode.
  RootRef FindOrCreate(PageRole role, ShadowPage*& page,
                       std::unique_ptr<TdpRoot>& spare);

  // For a loop that may drop the lock between steps: takes a reference to the
  // next root before it drops that of the previous one (TDP-08).
  //   for (RootRef r = l.First(..); r; r = l.Next(std::move(r), ..))
  RootRef First(RootFilter filter, int as_id);
  RootRef Next(RootRef previous, RootFilter filter, int as_id);
  // The same without references, for walks that stay inside the caller's RCU
  // section. Null at the end.
  TdpRoot* FirstRcu(RootFilter filter, int as_id) const;
  TdpRoot* NextRcu(const TdpRoot* previous, RootFilter filter, int as_id) const;

  // Marks every valid root invalid and scheduled for zapping (TDP-05).
  // REQUIRES: mmu_lock held for write.
  void InvalidateAll();
  // A referenced root that was scheduled for zapping, with its mark cleared;
  // empty if there is none (TDP-06).
  RootRef TakeScheduled();
  // Drops the MMU's reference. REQUIRES: invalid and zapped.
  void PutMmuReference(TdpRoot& root);

 private:
  friend class RootRef;

  static bool Matches(const TdpRoot& root, RootFilter filter, int as_id);
  static bool TryGet(TdpRoot& root);
  // The first root, and the one after `root`; null at the end. REQUIRES: an RCU
  // read section, or mu_.
  TdpRoot* Head() const;
  TdpRoot* After(const TdpRoot& root) const;
  // A reference to the valid root with this role; empty if there is none.
  RootRef Find(PageRole role);
  // `root`, or the first root behind it that matches; null at the end.
  TdpRoot* MatchFrom(TdpRoot* root, RootFilter filter, int as_id) const;
  // The same with a reference. REQUIRES: `root` matches, or is null.
  RootRef GetFrom(TdpRoot* root, RootFilter filter, int as_id);
  void Put(TdpRoot* root);

  Mutex mu_;  // tdp_mmu_pages_lock of LOCKING.md
  std::atomic<TdpRoot*> head_{nullptr};
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
};

inline void RootRef::reset() {
  if (root_ != nullptr) root_->list_->Put(std::exchange(root_, nullptr));
}

}  // namespace mmu

#endif  // MMU_CORE_TDP_TDP_ROOT_H_
