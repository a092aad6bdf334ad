// The interface between an L1 hypervisor and its processor: L1's own memory
// accesses, entering L2 and the reasons for L2's exits, and the instructions
// that invalidate translations.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_CPU_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_CPU_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/hypervisor/combined_mappings.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"

namespace mmu {

// L1's VMCS or VMCB fields for the tables of an L2 guest. A value.
struct NestedPaging {
  GuestTables tables = GuestTables::kEpt;  // kEpt or kNpt
  // The VPID or ASID of the guest, not 0: it tags the processor's translations.
  uint32_t asid = 1;
  Gpa root;             // the top table: of the EPTP, or nCR3
  EptOptions ept;       // kEpt
  GuestPagingState l1;  // kNpt: the format is that of L1's own paging

  // The tag of combined mappings beside the VPID; the ASID needs none.
  Gpa ep4ta() const { return tables == GuestTables::kEpt ? root : Gpa(0); }
};

// One access of L2. A value.
struct NestedAccess {
  Gpa nested_gpa;      // aligned to the size
  int size_bytes = 8;  // or 4
  AccessKind kind = AccessKind::kRead;
  // kGuestTable: the processor accesses an entry of L2's own tables during a
  // walk (SDM vol. 3, 29.3.3.2; APM vol. 2, 15.25.5).
  NestedTarget target = NestedTarget::kPage;
};

// The reason for an exit of L2. A value.
struct NestedExit {
  Gpa nested_gpa;  // the address that L2 accessed
  AccessKind kind = AccessKind::kRead;
  GuestFault fault;
};

// One logical processor. Starts in L1. Thread-compatible: one thread runs L1
// and its guests on it.
class L1Cpu {
 public:
  enum class Outcome : uint8_t { kDone, kExit, kError };

  virtual ~L1Cpu() = default;

  // --- In L1. ---

  // PAUSE, in a loop of L1 that waits for another processor. The host may park
  // the processor here, and returns when the processor may go on. It also
  // returns if the guest is to stop: the other processor ends what it does
  // before it stops.
  virtual void Pause() = 0;

  // Makes one access of L1 to the `size_bytes` (4 or 8, aligned) at its own
  // guest-physical address `gpa`. A write stores the low bytes of `*word`; a
  // read loads into `*word`. False: the host could not perform the access, see
  // status().
  virtual bool Access(Gpa gpa, int size_bytes, AccessKind kind,
                      uint64_t* word) = 0;

  // INVEPT of one EPTP, and of all EPTPs: drops guest-physical and combined
  // mappings (SDM vol. 3, 29.4.3.1). `root` as in NestedPaging.
  virtual void InveptSingleContext(Gpa root) = 0;
  virtual void InveptGlobal() = 0;
  // INVVPID: drops combined mappings (SDM vol. 3, 29.4.3.1). `vpid` and `gva`
  // count only for the types that name them. EPT only.
  virtual void InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva) = 0;
  // VMRUN with a TLB_CONTROL that flushes the TLB entries of the guest's ASID
  // (APM vol. 2, 15.16.1): takes effect at the next EnterL2, for its ASID. NPT
  // only.
  virtual void FlushAsid() = 0;

  // VM entry or VMRUN: the processor is in L2 afterwards. Invalidates nothing
  // by itself, since each guest has its own VPID or ASID.
  virtual void EnterL2(const NestedPaging& paging) = 0;

  // --- In L2. ---

  // Makes one access of L2, like Access. kExit: the access did not happen,
  // `*exit` says why, and the processor is in L1. An EPT violation has
  // invalidated the processor's translations of the nested gpa (SDM vol. 3,
  // 29.4.3.1). That a nested page fault does so too, as a page fault does, is
  // an assumption. KVM shares it: it flushes nothing when an entry of an NPT
  // gains a right. kError: the host could not perform the access, see status().
  virtual Outcome L2Access(const NestedAccess& access, uint64_t* word,
                           NestedExit* exit) = 0;
  // What the processor has cached of the translations of L2's own tables, for
  // the VPID or ASID of the last entry. L2Access, whose address they have
  // translated already, does not look at them.
  virtual CombinedMappings& combined() = 0;
  // An exit for another reason, such as an interrupt: the processor is in L1
  // afterwards.
  virtual void LeaveL2() = 0;

  virtual absl::Status status() const = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_CPU_H_
