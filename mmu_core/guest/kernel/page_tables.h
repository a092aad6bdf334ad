// The page tables of one guest process, in guest memory: finding, setting and
// taking apart entries, as a kernel does it with loads and stores.

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

// An entry and where it stands.
struct GuestPte {
  Gpa where;
  int level = 0;
  uint64_t value = 0;

  bool present() const { return (value & gpte::kPresent) != 0; }
  bool leaf() const { return level == 1 || (value & gpte::kPageSize) != 0; }
  Gfn gfn() const { return ToGfn(Gpa(value & gpte::kAddress)); }
};

// Tables are made as they are needed, and freed only as a whole. What a TLB may
// have of an entry that is changed is the caller's business; a PDPTE of PAE
// paging that appears is, too (it counts from the next load of CR3): see
// TakePdpteChanged. Thread-compatible.
class GuestPageTables {
 public:
  GuestPageTables(const PagingGeometry& geometry, PhysicalMemory& memory,
                  FrameAllocator& frames)
      : geometry_(geometry), memory_(memory), frames_(frames) {}

  // Makes an empty root. False: no memory.
  bool Create();
  bool created() const { return root_.has_value(); }
  // What goes into CR3. REQUIRES: created.
  Gpa root() const { return ToGpa(*root_); }

  // The entry that `gva` ends at: a leaf, or the first that is not present.
  GuestPte Find(Gva gva);
  // Puts `value` at the entry of `level` for `gva`; false if there was no
  // memory for a table on the way, or if memory cannot be accessed any more.
  // REQUIRES: no large page is in the way.
  bool Set(Gva gva, int level, uint64_t value);
  void Store(const GuestPte& pte, uint64_t value);
  // Replaces the large page at `pte` by a table of small ones that translate
  // alike. False: no memory.
  bool SplitLarge(const GuestPte& pte);

  // Uses the top-level entries of `other` from the one for `from` on: the
  // kernel's part, which all processes share.
  void ShareFrom(const GuestPageTables& other, Gva from);

  // Calls fn(gva, pte) for each present leaf below `end`, in order.
  void ForEachLeaf(Gva end, absl::FunctionRef<void(Gva, const GuestPte&)> fn);
  // Frees the tables of what is below `end`, and the root. What the leafs map
  // is the caller's.
  void Destroy(Gva end);

  // Whether a PDPTE of PAE paging was set since the last call.
  bool TakePdpteChanged() {
    const bool changed = pdpte_changed_;
    pdpte_changed_ = false;
    return changed;
  }

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
  bool pdpte_changed_ = false;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_PAGE_TABLES_H_
