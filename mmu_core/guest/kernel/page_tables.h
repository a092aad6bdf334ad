// The page tables of one guest process, in guest memory: finding, setting and
// splitting entries with loads and stores, as a kernel does.

#ifndef MMU_CORE_GUEST_KERNEL_PAGE_TABLES_H_
#define MMU_CORE_GUEST_KERNEL_PAGE_TABLES_H_

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest/kernel/physical_memory.h"

namespace mmu {

// An entry and its address.
struct GuestPte {
  Gpa where;
  int level = 0;
  uint64_t value = 0;

  bool present() const { return (value & gpte::kPresent) != 0; }
  bool leaf() const { return level == 1 || (value & gpte::kPageSize) != 0; }
  Gfn gfn() const { return ToGfn(Gpa(value & gpte::kAddress)); }
};

// Tables are added as needed. The caller invalidates what processors have
// cached of changed entries, before it frees a table or a page. It also reloads
// CR3 on each processor that uses these tables when a PDPTE of PAE paging
// appears, since the processor reads PDPTEs only then: see pdpte_changes.
// Thread-compatible.
class GuestPageTables {
 public:
  GuestPageTables(const PagingGeometry& geometry, PhysicalMemory& memory,
                  FrameAllocator& frames)
      : geometry_(geometry), memory_(memory), frames_(frames) {}

  // Makes an empty root. False: no memory.
  bool Create();
  bool created() const { return root_.has_value(); }
  // The value for CR3. REQUIRES: created.
  Gpa root() const { return ToGpa(*root_); }

  // The entry at which the walk for `gva` ends: a leaf or the first non-present
  // entry.
  GuestPte Find(Gva gva) { return FindAt(gva, 1); }
  // The entry of `level` for `gva`, or the one above it at which the walk ends.
  GuestPte FindAt(Gva gva, int level);
  // Sets the entry of `level` for `gva` to `value`. False if there was no
  // memory for a table above it, or if memory accesses have failed. REQUIRES:
  // no large page maps `gva` above `level`.
  bool Set(Gva gva, int level, uint64_t value);
  void Store(const GuestPte& pte, uint64_t value);
  // Replaces the large page at `pte` by a table of small pages with the same
  // translations. False: no memory.
  bool SplitLarge(const GuestPte& pte);

  // Shares the top-level entries of `other` from the entry for `from` on: the
  // kernel's part, which all processes share.
  void ShareFrom(const GuestPageTables& other, Gva from);

  // Calls fn(gva, pte) for each present leaf below `end`, in order.
  void ForEachLeaf(Gva end, absl::FunctionRef<void(Gva, const GuestPte&)> fn);
  // Frees the root and the tables below `end`. The caller frees the pages that
  // the leafs map.
  void Destroy(Gva end);

  // How often a PDPTE of PAE paging was set. A processor that loaded CR3 when
  // the number was another has old PDPTEs.
  uint64_t pdpte_changes() const { return pdpte_changes_; }

 private:
  GuestPte Read(Gfn table, int level, int index);
  void Visit(Gfn table, int level, Gva start, Gva end,
             absl::FunctionRef<void(Gva, const GuestPte&)> leaf,
             absl::FunctionRef<void(const GuestPte&)> table_after);
  std::optional<Gfn> NewTable();

  const PagingGeometry geometry_;
  PhysicalMemory& memory_;
  FrameAllocator& frames_;
  std::optional<Gfn> root_;
  uint64_t pdpte_changes_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_PAGE_TABLES_H_
