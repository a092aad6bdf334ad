// The layout of a second-stage entry, as data: EPT, NPT, and EPT on processors
// without Accessed and Dirty bits.
//
//   purpose               EPT        NPT
//   read / present        0 R        0 P
//   write                 1 W        1 W
//   user                  -          2 U
//   execute               2 X, 10 XU 63 NX (set: no)
//   memory type           5:3, 6 IPAT -
//   accessed              8          5
//   dirty                 9          6
//   page size             7          7
//   MMU-present (sw)      11         11
//   address               51:12      51:12
//   host-writable (sw)    53         9
//   MMU-writable (sw)     55         10
//   suppress #VE          63         -
//   A/D type (sw)         61:60      -, always 0
//   saved R, X, XU (sw)   52, 54, 62 -
//
// Without A/D bits (type 1), bit 8 is a software bit and bit 9 is unused:
// writes are detected by clearing W. Accesses are detected by *access
// tracking*: ageing a leaf clears R, W and X and keeps R and X in the saved
// bits; the fault that follows restores them. Only a write restores W (SPTE-30,
// 31).
//
// With A/D bits a leaf may still be of type 2, write-protect only: A is used,
// but writes are detected by clearing W. The leafs of a nested guest are of
// type 2 while the processor logs dirty pages itself (PML), since it would log
// the nested guest's addresses (SPTE-04).
//
// The software bits and why they exist:
//   MMU-present    the entry is in use, even if its hardware bits grant no
//                  access (SPTE-02).
//   host-writable  the host allows writes to the page; fixed while present.
//   MMU-writable   the MMU allows writes: if W is clear nevertheless, W was
//                  cleared to log the first write, and the fast page fault may
//                  set it again (SPTE-35). A stale TLB entry may still allow
//                  writes as long as this bit is set (TLB-08).
//
// The only legal (host-writable, MMU-writable, W) triples (SPTE-15):
//   1 1 1  writable            1 1 0  logged or access-tracked
//   1 0 0  holds a guest page table    0 0 0  read-only
//
// (SDM vol. 3, 29.3.2; APM vol. 2, 15.25.5; software bits are KVM's choice.)

#ifndef MMU_CORE_PAGING_SPTE_FORMAT_H_
#define MMU_CORE_PAGING_SPTE_FORMAT_H_

#include <cstdint>
#include <string_view>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/spte.h"

namespace mmu {

enum class HostWritable : uint8_t { kNo, kYes };
enum class Executable : uint8_t { kNo, kYes };
enum class Prefetched : uint8_t { kNo, kYes };
// How writes to a leaf are detected: as the format does it, or always by
// clearing W.
enum class DirtyTracking : uint8_t { kOfFormat, kWriteProtect };

// The properties of a new leaf (SPTE-10).
struct LeafSettings {
  Level level = Level::k4K;
  Pfn pfn;             // aligned to `level`
  bool write = false;  // the fault or the mapping wants write access
  Executable executable = Executable::kYes;
  // The rights that the guest's entries grant: R and X of EPT (with XU), U and
  // NX of the other formats. `write` alone decides W.
  AccessRights access = kAllRights;
  HostWritable host_writable = HostWritable::kYes;
  Prefetched prefetched = Prefetched::kNo;
  DirtyTracking dirty_tracking = DirtyTracking::kOfFormat;
};

// The three bits of SPTE-15, for tests of that rule.
struct WriteTriple {
  bool host_writable;
  bool mmu_writable;
  bool writable;
  friend constexpr bool operator==(WriteTriple, WriteTriple) = default;
};

// Immutable; three functions return the three formats. Thread-safe.
class SpteFormat {
 public:
  static const SpteFormat& Ept();
  static const SpteFormat& Npt();
  // EPT with A/D type 1 (SPTE-04).
  static const SpteFormat& EptWithoutAd();

  std::string_view name() const { return name_; }
  // The hardware sets the Accessed and Dirty bits.
  bool has_ad() const { return ad_type_ == 0; }

  // --- Builders. Pure functions. ---

  // A leaf. Accessed unless prefetched (SPTE-11); W, MMU-writable and Dirty
  // together if write access is wanted and the host allows it (SPTE-12..14).
  Spte MakeLeaf(const LeafSettings& settings) const;
  // A non-leaf entry that points at the table at `table_address` (page-aligned,
  // 51:12): all permissions, Accessed, never Dirty (SPTE-25).
  Spte MakeTable(uint64_t table_address) const;
  // Child `index` of the huge leaf `huge` of level `huge_level`: translates
  // like the parent and keeps every other bit (SPTE-26).
  Spte MakeSplitChild(Spte huge, Level huge_level, int index) const;
  // Fills all 512 children at once into plain memory that no other thread can
  // see yet. Same values as MakeSplitChild.
  void FillSplitChildren(Spte huge, Level huge_level, uint64_t* entries) const;
  // The huge leaf of `level` that covers the present leaf `child` (SPTE-27).
  Spte MakeCollapsed(Spte child, Level level) const;

  // --- Questions. ---

  bool IsAccessed(Spte spte) const { return (spte.bits() & accessed_) != 0; }
  bool IsDirty(Spte spte) const { return (spte.bits() & dirty_) != 0; }
  bool IsHostWritable(Spte spte) const {
    return (spte.bits() & host_writable_) != 0;
  }
  bool IsMmuWritable(Spte spte) const {
    return (spte.bits() & mmu_writable_) != 0;
  }
  bool IsExecutable(Spte spte) const {
    return execute_is_nx_ ? (spte.bits() & execute_) == 0
                          : (spte.bits() & execute_) != 0;
  }
  // Writes are detected by clearing W, not by D: the leaf has no D bit, or is
  // of type 2. REQUIRES: a present leaf.
  bool NeedsWriteProtect(Spte leaf) const {
    return (leaf.bits() & (ad_type_ | write_protect_only_)) != 0;
  }
  // The leaf was aged without A/D bits: present for the MMU, not for the
  // hardware (SPTE-02). REQUIRES: a present leaf.
  bool IsAccessTracked(Spte leaf) const {
    return !has_ad() && (leaf.bits() & (present_ | execute_)) == 0;
  }
  // The hardware grants `kind` (A and D are not considered).
  bool Allows(Spte spte, AccessKind kind) const;
  // The rights that the hardware grants by this entry alone; those of several
  // entries combine by `&` (SHD-46). REQUIRES: present.
  AccessRights RightsOf(Spte spte) const;
  WriteTriple TripleOf(Spte spte) const;

  // --- The same entry with something changed. ---

  Spte WithWrite(Spte spte) const {
    return Spte(spte.bits() | spte_bits::kWrite);
  }
  // Clears W and MMU-writable: the fast page fault will not restore W (SPTE-35,
  // TDP-56). Dirty logging clears W alone: MMU-writable stays (SPTE-35).
  Spte WithoutMmuWrite(Spte spte) const {
    return spte.Without(spte_bits::kWrite | mmu_writable_);
  }
  Spte WithAccessed(Spte spte) const { return Spte(spte.bits() | accessed_); }
  // The aged leaf (SPTE-30): without A/D bits it becomes access-tracked. Ageing
  // twice has no further effect (SPTE-32). REQUIRES: a present leaf.
  Spte WithoutAccessed(Spte leaf) const {
    return has_ad() ? leaf.Without(accessed_) : AccessTracked(leaf);
  }
  // The leaf that a fault makes of an access-tracked one: R and X restored,
  // Accessed, no W (SPTE-31).
  Spte WithAccessRestored(Spte leaf) const;
  // Grants or removes execute for the NX huge page mitigation (SPTE-17,
  // SPTE-26, SPTE-27); in an access-tracked leaf it changes the saved
  // permission. `access`, the rights that the guest's entries grant, decides
  // for which mode the leaf becomes executable. REQUIRES: a present leaf.
  Spte WithExecute(Spte leaf, AccessRights access = kAllRights) const;
  Spte WithoutExecute(Spte leaf) const;
  Spte WithDirty(Spte spte) const { return Spte(spte.bits() | dirty_); }

  uint64_t accessed_mask() const { return accessed_; }
  uint64_t dirty_mask() const { return dirty_; }

  // --- Rules. ---

  // The hardware or another CPU's fast path may change the leaf at any moment,
  // so an update must be an atomic exchange (SPTE-33; A/D type 0). REQUIRES: a
  // present leaf.
  bool IsVolatile(Spte leaf) const {
    return !has_ad() || (!leaf.IsWritable() && IsMmuWritable(leaf)) ||
           (leaf.IsWritable() && !IsDirty(leaf));
  }
  // Changing `from` into `to` (both present leafs of one page) needs a TLB
  // flush: MMU-writable is cleared (SPTE-34, TLB-08).
  bool ChangeNeedsFlush(Spte from, Spte to) const {
    return IsMmuWritable(from) && !IsMmuWritable(to);
  }
  // The reason why `spte` may not be in a table at `level`; empty if it may
  // (SPTE-15, SPTE-20). REQUIRES: present.
  std::string_view WhyIllegal(Spte spte, Level level) const;

 private:
  struct Layout;
  Spte AccessTracked(Spte leaf) const;
  uint64_t BitsOf(AccessRights rights, Executable executable) const;
  explicit constexpr SpteFormat(const Layout& layout);

  std::string_view name_;
  uint64_t present_;
  uint64_t user_;
  uint64_t execute_;
  uint64_t user_execute_;  // the part of execute_ that is for user mode alone
  bool execute_is_nx_;
  uint64_t memory_type_;  // of a RAM leaf (SPTE-19)
  uint64_t accessed_;
  uint64_t dirty_;
  uint64_t host_writable_;
  uint64_t mmu_writable_;
  uint64_t ad_type_;             // of every present entry (SPTE-04)
  uint64_t write_protect_only_;  // type 2, which a leaf may have instead of 0
  uint64_t initial_in_present_;  // bits of Initial() that present entries keep
  uint64_t reserved_;            // must be clear in every present entry
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_SPTE_FORMAT_H_
