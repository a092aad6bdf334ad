// The part of a vCPU that runs on shadow pages: its TLB, its roots, the paging
// mode that the roots were built for, and the loop that turns an access into a
// translation.
//
// access_loop.h describes an access by a guest's virtual address or by an
// address of L2. The walk is ShadowWalk over the shadow tables.
// HandleShadowFault (shadow_fault.h) handles a fault. It first walks the
// guest's own tables:
//   - If they forbid the access, the access returns kGuestFault, and the
//     guest's kernel or L1 handles it.
//   - If they allow it, the shadow MMU maps the page: memslot, frame, mmu_lock
//     for write, ShadowFaults (shadow/shadow_faults.h).
//   - A write to a page table of the guest that stays write-protected is
//     emulated, and the shadow MMU is notified (SHD-40).
//
// A vCPU has a ShadowVcpu if its VM has a shadow MMU. Like the vCPU, it belongs
// to the vCPU's thread.

#ifndef MMU_CORE_VM_VCPU_SHADOW_VCPU_H_
#define MMU_CORE_VM_VCPU_SHADOW_VCPU_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/guest_paging/permission_table.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/tlb/flush_queue.h"
#include "mmu_core/tlb/tlb_tag.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/vcpu/access_outcome.h"
#include "mmu_core/vm/vcpu/audited_tlb.h"

namespace mmu {

class Vcpu;
struct VmConfig;
struct VmCore;

// The paging mode of a vCPU, with everything that the shadow MMU has to know of
// it. A value.
struct ShadowPaging {
  GuestTables tables = GuestTables::kLegacy;
  CpuRole role;        // guest_level 0: there are no guest tables
  PageRole root_role;  // of the roots for this mode
  // The permissions that the processor itself enforces on the shadow tables.
  PermissionTable hardware;

  // Whether accesses are by a guest's linear address, not by a guest-physical
  // one.
  bool IsLinear() const;
  // The number of address bits that are translated. A guest's own paging
  // ignores the higher bits, which only repeat one of the translated ones.
  // Higher bits that L1's tables do not cover are a violation.
  int AddressBits() const;
  // The part of an address that is translated and that the TLB uses as its key.
  uint64_t Translated(uint64_t address) const;

  // A guest with paging of its own, or with paging off. CR4.PKE is ignored,
  // since shadow tables have no protection keys.
  static ShadowPaging OfGuest(const GuestPagingState& state);
  // L2 on L1's tables.
  static ShadowPaging OfEpt(const EptOptions& options);
  static ShadowPaging OfNpt(const GuestPagingState& l1, Level tdp_level);
  // A second stage made of direct shadow pages, in the VM's own SPTE format.
  static ShadowPaging OfTdp(const VmConfig& config);
};

// Externally synchronised: belongs to the vCPU's thread, outside of accesses.
class ShadowVcpu {
 public:
  ShadowVcpu(VmCore& vm, Vcpu& vcpu);
  ~ShadowVcpu();
  ShadowVcpu(const ShadowVcpu&) = delete;
  ShadowVcpu& operator=(const ShadowVcpu&) = delete;

  // --- The guest's changes to its registers. ---

  // Changes the paging mode. If it differs from the old one, the roots and the
  // TLB entries are dropped (ROLE-02).
  void SetPaging(const ShadowPaging& paging);
  enum class Flush : uint8_t { kNo, kYes };
  // CR3, EPTP or nCR3 was loaded. Translations of other PCIDs or roots stay.
  // Flush::kYes drops those of the root's PCID, or of the root, and
  // synchronises the shadow tables (SHD-54).
  void SetRoot(const GuestRoot& root, Flush flush);
  // INVLPG, INVLPGA (SHD-45).
  void InvalidatePage(uint64_t address);
  // INVPCID of one address in one PCID, and of one PCID (SDM vol. 3, 4.10.4.1).
  void InvalidatePageOf(uint16_t pcid, uint64_t address);
  void InvalidatePcid(uint16_t pcid);
  // INVEPT of the EPTP with this top table (SHD-61).
  void InvalidateRoot(Gfn table);
  // Drops all translations of all roots: INVEPT or INVPCID of all contexts, a
  // flush of the ASID.
  void InvalidateAll();

  // --- Accesses. ---

  // One access to the `size_bytes` (4 or 8) at the aligned `address`. A write
  // stores the low bytes of `*word`; a read or fetch loads the bytes into it.
  // On kGuestFault no byte was read or written, and `*fault` describes the
  // fault for the guest.
  AccessOutcome Access(uint64_t address, int size_bytes,
                       const GuestPageAccess& access, uint64_t* word,
                       GuestFault* fault);
  // The same for an access that is counted already.
  AccessOutcome ContinueAccess(uint64_t address, int size_bytes,
                               const GuestPageAccess& access, uint64_t* word,
                               GuestFault* fault);
  const absl::Status& status() const { return status_; }

  // --- For the handlers of its faults and requests. ---

  GuestContext& guest() { return *guest_; }
  ShadowRoots& roots() { return roots_; }
  const ShadowRoots& roots() const { return roots_; }
  // The guest root whose tables are walked.
  const GuestRoot& where() const { return where_; }
  const ShadowPaging& paging() const { return paging_; }
  GuestMemoryAccess& memory() { return memory_; }
  // MAXPHYADDR of the guest's processor.
  int max_phys_bits() const;
  VcpuTlb& tlb() { return tlb_; }
  const VcpuTlb& tlb() const { return tlb_; }
  // The format of the SPTEs for the current paging mode.
  const SpteFormat& format() const { return *format_; }
  TlbPages pages() const {
    return guest_->has_guest_tables() ? TlbPages::kOther
                                      : TlbPages::kGuestPhysical;
  }
  // Adds the contexts of the current and the kept roots. `pending`: the flushes
  // that the vCPU has not carried out. `frees_obsolete`: before its next access
  // it will let go of obsolete roots.
  void AddAuditedTlbs(const PendingFlushes& pending, bool frees_obsolete,
                      std::vector<AuditedTlb>& tlbs) const;
  // Drops the obsolete roots (kFreeObsoleteRoots), or all roots. Their
  // translations are not used any more: a root that is loaded is flushed.
  void FreeObsoleteRoots();
  void ReleaseRoots();

 private:
  class ShadowAccess;  // the AccessEngine (access_loop.h)

  absl::Status LoadRoot();
  // The tag of translations of a root. A root for linear addresses is not
  // part of its tag.
  TlbTag TagOf(const PageTable& table, uint16_t pcid) const {
    return paging_.IsLinear() ? TlbTag::OfPcid(pcid) : TlbTag::OfRoot(table);
  }
  // The tag of the context that the guest's instructions name when they name
  // none: the PCID, under which other roots than the current one may have
  // translations, or the current root if there is one.
  std::optional<TlbTag> NamedTag() const;
  // Selects the context of the current root, or none if there is no root.
  void SelectContext();
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
  const SpteFormat* format_ = nullptr;
  GuestWalker walker_;
  // Refers to the members above; rebuilt when the paging mode changes.
  std::optional<GuestContext> guest_;
  ShadowRoots roots_;
  GuestRoot where_;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_SHADOW_VCPU_H_
