#include "mmu_core/shadow/shadow_leaf.h"

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

ShadowLeaf ShadowLeafs::Make(const MmuWriteLocked& lock,
                             const ShadowPageState& page, const Memslot& slot,
                             const ShadowLeafRequest& request) {
  const SpteFormat& format = parts_.FormatOf(page);
  const Level level = page.level();
  const auto [gfn, access] = request.translation;
  ShadowLeaf leaf;

  bool write =
      access.Has(kMayWrite) && request.map_writable == HostWritable::kYes;
  // If the SPTE was writable, all pages that shadow a table at the gfn are
  // already unsync.
  if (write &&
      !(request.old_spte.IsPresent() && request.old_spte.IsWritable())) {
    write = request.synchronizing
                ? gate_.MayMapWritableInSync(lock, slot, gfn)
                : gate_.MayMapWritable(lock, slot, gfn, request.prefetched);
    leaf.write_protected = !write;
  }

  const bool nx = level > Level::k4K && options_.nx_huge_pages != nullptr &&
                  options_.nx_huge_pages->mitigated();
  leaf.spte = format.MakeLeaf({
      .level = level,
      .pfn = request.pfn,
      .write = write,
      .executable = nx ? Executable::kNo : Executable::kYes,
      .access = access,
      .host_writable = request.map_writable,
      .prefetched =
          request.synchronizing ? Prefetched::kNo : request.prefetched,
      .dirty_tracking = page.page->role.guest_mode()
                            ? options_.nested_dirty_tracking
                            : DirtyTracking::kOfFormat,
  });
  MMU_DCHECK(format.WhyIllegal(leaf.spte, level).empty());
  // Access tracking has cleared W in a tracked leaf: its first write will
  // fault.
  if (leaf.spte.IsWritable() && slot.dirty_log_enabled()) {
    MMU_CHECK(level == Level::k4K);
    leaf.marked_dirty = MarkPageDirty(slot, gfn, request.ring);
  }
  return leaf;
}

}  // namespace mmu
