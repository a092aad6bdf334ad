// What an L1 hypervisor needs of the processor that it runs on: its own
// accesses to L1's memory, entering L2 and learning why L2 exits, and the
// instructions that forget translations.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_CPU_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_CPU_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"

namespace mmu {

// What L1 puts into the VMCS or VMCB about the tables of an L2 guest. A value.
struct NestedPaging {
  GuestTables tables = GuestTables::kEpt;  // kEpt or kNpt
  Gpa root;             // the top table: of the EPTP, or nCR3
  EptOptions ept;       // kEpt
  GuestPagingState l1;  // kNpt: the format is that of L1's own paging
};

// Why L2 exited. A value.
struct NestedExit {
  Gpa nested_gpa;  // that L2 accessed
  GuestFault fault;
};

// Begins in L1. Thread-compatible: one thread runs L1 and its guest.
class L1Cpu {
 public:
  enum class Outcome : uint8_t { kDone, kExit, kError };

  virtual ~L1Cpu() = default;

  // --- In L1. ---

  // One access of L1 to the `size_bytes` (4 or 8, aligned) at its own
  // guest-physical address `gpa`: a write stores the low bytes of `*word`, a
  // read puts what is there into it. False: the host could not serve it, see
  // status().
  virtual bool Access(Gpa gpa, int size_bytes, AccessKind kind,
                      uint64_t* word) = 0;

  // INVEPT of one EPTP, and of all (SDM vol. 3, 29.4.3.1). `root` as in
  // NestedPaging.
  virtual void InveptSingleContext(Gpa root) = 0;
  virtual void InveptGlobal() = 0;
  // VMRUN with a TLB_CONTROL that flushes the TLB entries of L2's ASID (APM
  // vol. 2, 15.16.1): holds from the next EnterL2 on.
  virtual void FlushAsid() = 0;

  // VM entry, VMRUN: the processor is in L2 now. Forgets nothing by itself: the
  // guest's VPID or ASID is always the same.
  virtual void EnterL2(const NestedPaging& paging) = 0;

  // --- In L2. ---

  // One access of L2, as Access. kExit: nothing happened, `*exit` says why, and
  // the processor is in L1. An EPT violation made it forget what it had of the
  // address (SDM vol. 3, 29.4.3.1), a nested page fault too. kError: the host
  // could not serve it, see status().
  virtual Outcome L2Access(Gpa nested_gpa, int size_bytes, AccessKind kind,
                           uint64_t* word, NestedExit* exit) = 0;
  // An exit for another reason, such as an interrupt: the processor is in L1.
  virtual void LeaveL2() = 0;

  virtual absl::Status status() const = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_CPU_H_
