// The part of a vCPU that runs on shadow pages: a TLB, roots, the way of paging
// in which they were made, and the loop that turns an access into a
// translation.
//
// The life of one access by a guest's virtual address, or by an address of L2:
//
//   1. As in vm/vcpu/vcpu.h: an access section, the TLB, else ShadowWalk over
//   the
//      shadow tables. If they allow it: done.
//   2. Otherwise the vCPU exits. HandleShadowFault (vm/vcpu/shadow_fault.h)
//   first
//      walks the guest's own tables. What these do not allow is the guest's
//      business: the access comes back as kGuestFault, for its kernel, or L1.
//   3. What they do allow, the shadow MMU maps: memslot, frame, mmu_lock for
//      write, ShadowFaults (shadow/shadow_faults.h). Then from 1 again.
//   4. A write to a table of the guest that stays write-protected is carried
//      out here, by way of emulation, and the shadow MMU told (SHD-40).
//
// A vCPU has one if its VM has a shadow MMU. Like it, it belongs to the vCPU's
// thread.

#ifndef MMU_CORE_VM_VCPU_SHADOW_VCPU_H_
#define MMU_CORE_VM_VCPU_SHADOW_VCPU_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/guest_paging/permission_table.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {

class Vcpu;
struct VmCore;

// How a vCPU pages, in all that the shadow MMU has to know. A value.
struct ShadowPaging {
  GuestTables tables = GuestTables::kLegacy;
  CpuRole role;        // guest_level 0: there are no guest tables
  PageRole root_role;  // of the roots that belong to it
  // What the processor itself enforces on the shadow tables.
  PermissionTable hardware;

  // A guest that pages by itself, or not at all; CR4.PKE does not count, since
  // shadow tables have no keys.
  static ShadowPaging OfGuest(const GuestPagingState& state);
  // L2 on L1's tables.
  static ShadowPaging OfEpt(const EptOptions& options);
  static ShadowPaging OfNpt(const GuestPagingState& l1, Level tdp_level);
  // A second stage made of direct shadow pages, of the VM's own format.
  static ShadowPaging OfTdp(const VmCore& vm);
};

enum class ShadowOutcome : uint8_t {
  kDone,
  kEmulated,       // no memory there, or a read-only slot was written
  kGuestFault,     // the guest's own tables do not allow it
  kDirtyRingFull,  // as AccessOutcome; the same access again goes on
  kError,          // status() tells why
};

// Externally synchronised: belongs to the vCPU's thread, outside of accesses.
class ShadowVcpu {
 public:
  ShadowVcpu(VmCore& vm, Vcpu& vcpu);
  ~ShadowVcpu();
  ShadowVcpu(const ShadowVcpu&) = delete;
  ShadowVcpu& operator=(const ShadowVcpu&) = delete;

  // --- What the guest does to its registers. ---

  // The way of paging is this from now on. If it changed, roots and TLB go
  // (ROLE-02).
  void SetPaging(const ShadowPaging& paging);
  enum class Flush : uint8_t { kNo, kYes };
  // CR3, EPTP or nCR3 was loaded. The TLB of the model has no tags, so it is
  // emptied if the root is another one; kYes empties it in any case, and brings
  // the shadow tables in step (SHD-54).
  void SetRoot(const GuestRoot& root, Flush flush);
  // INVLPG, INVLPGA (SHD-45).
  void InvalidatePage(uint64_t address);
  // All translations of all roots: INVEPT, INVPCID, a flush of the ASID.
  void InvalidateAll();

  // --- Accesses. ---

  // One access to the `size_bytes` (4 or 8) at the aligned `address`: a write
  // stores the low bytes of `*word`, others put what is there into it. On
  // kGuestFault nothing happened, and `*fault` is what the guest is told.
  ShadowOutcome Access(uint64_t address, int size_bytes,
                       const GuestPageAccess& access, uint64_t* word,
                       GuestFault* fault);
  const absl::Status& status() const { return status_; }

  // --- For those who handle its faults and requests. ---

  GuestContext& guest() { return *guest_; }
  ShadowRoots& roots() { return roots_; }
  const ShadowRoots& roots() const { return roots_; }
  // Whose tables are walked.
  const GuestRoot& where() const { return where_; }
  const ShadowPaging& paging() const { return paging_; }
  GuestMemoryAccess& memory() { return memory_; }
  // MAXPHYADDR of the guest's processor.
  int max_phys_bits() const;
  VcpuTlb& tlb() { return tlb_; }
  const VcpuTlb& tlb() const { return tlb_; }
  // Lets go of roots that are out of use (kFreeObsoleteRoots), or of all, and
  // of all translations.
  void FreeObsoleteRoots();
  void ReleaseRoots();

 private:
  absl::Status LoadRoot();
  bool CanUse(const TlbEntry& entry, const GuestPageAccess& access) const {
    return !paging_.hardware.Denies(access, entry.rights) &&
           (access.kind != AccessKind::kWrite || entry.dirty_set);
  }
  static void Perform(const TlbEntry& entry, uint64_t address, int size_bytes,
                      AccessKind kind, uint64_t* word);

  VmCore& vm_;
  Vcpu& vcpu_;
  VcpuTlb tlb_;
  GuestMemoryAccess memory_;
  ShadowCaches caches_;
  ShadowPaging paging_;
  GuestWalker walker_;
  // Refers to the above; made anew with the way of paging.
  std::optional<GuestContext> guest_;
  ShadowRoots roots_;
  GuestRoot where_;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_SHADOW_VCPU_H_
