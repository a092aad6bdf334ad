// Bringing unsync pages in step with the guest's tables (SHD-32..37).

#ifndef MMU_CORE_SHADOW_SHADOW_SYNC_H_
#define MMU_CORE_SHADOW_SHADOW_SYNC_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// One per VM. Thread-safe with the witnesses named.
class ShadowSync {
 public:
  ShadowSync(const ShadowParts& parts, ShadowPages& pages, ShadowLeafs& leafs)
      : parts_(parts), pages_(pages), leafs_(leafs) {}
  ShadowSync(const ShadowSync&) = delete;
  ShadowSync& operator=(const ShadowSync&) = delete;

  // Reads the guest's entry behind each SPTE of `page`, and drops, changes or
  // keeps the SPTE (SHD-33). It stays unsync if it is; the caller zaps it on
  // kFailed and flushes on kNeedsFlush. REQUIRES: level 1, with guest PTEs.
  PageSync SyncPage(const MmuWriteLocked& lock, GuestContext& guest,
                    ShadowPageState& page, MmuCost* cost);
  // The same for entry `index` alone, for INVLPG (SHD-45).
  PageSync SyncEntry(const MmuWriteLocked& lock, GuestContext& guest,
                     ShadowPageState& page, int index, MmuCost* cost);

  enum class MayYield : uint8_t { kNo, kYes };
  // Brings all below `top` in step, flushing as needed (SHD-34). kYes: lets
  // others have the lock between batches, and then `top` may have become
  // invalid. False, with kNo: others wait, and it is not done; ask again.
  [[nodiscard]] bool SyncChildren(MmuWriteLocked& lock, GuestContext& guest,
                                  ShadowPageState& top, MayYield may_yield,
                                  MmuCost* cost);

 private:
  const ShadowParts parts_;
  ShadowPages& pages_;
  ShadowLeafs& leafs_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_SYNC_H_
