// A small hypervisor that itself runs in a guest. It gives L2 guests memory on
// demand, through EPT or NPT that it keeps in L1's memory and edits with
// ordinary loads and stores, so an MMU that shadows these tables sees the same
// as with a real L1.
//
// It may run on several processors, which share its guests (l1_shared.h). They
// change tables and frames under one lock of L1, while L2 runs on other
// processors. A processor that waits, for the lock or for an invalidation,
// waits in L1Cpu::Pause.
//
// It invalidates translations only where the architecture requires it (SDM vol.
// 3, 29.4.3.4; APM vol. 2, 15.16): nothing when an entry appears or grants
// more; when entries lost something, however many, one INVEPT or flush of the
// ASID on each processor before it runs the guest again. The function that took
// something away returns, and a frame or table is free again, when no processor
// can use the old translations (l1_shootdown.h).
//
// The translations of a virtual processor that moves between processors are
// invalidated, too: by one INVVPID or flush of its ASID, when it arrives
// (l1_shared.h).
//
// A processor may set Accessed or Dirty in an entry between L1's load and its
// store. A lost Accessed bit does no harm. A Dirty bit that may be lost is
// replaced by a software bit, so L1's dirty log has the page in any case.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_HYPERVISOR_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_HYPERVISOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/hypervisor/l1_shared.h"
#include "mmu_core/guest/hypervisor/nested_tables.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/physical_memory.h"
#include "mmu_core/guest_paging/guest_walk.h"

namespace mmu {

// Of one processor.
struct L1HypervisorStats {
  uint64_t exits = 0;         // violations and nested page faults
  uint64_t demand_pages = 0;  // of any size
  uint64_t large_pages = 0;
  uint64_t splits = 0;
  uint64_t merges = 0;
  uint64_t frees = 0;  // of tables that had become empty
  // INVEPTs, or flushes of the ASID, because an entry has lost something.
  uint64_t invalidations = 0;
  uint64_t interrupts = 0;  // exits of L2 to invalidate for others
  // Of virtual processors from elsewhere, each with an INVVPID or a flush.
  uint64_t arrivals = 0;
};

// The hypervisor on one processor. Thread-compatible: belongs to the thread of
// the vCPU that `cpu` is. Functions fail with
// RESOURCE_EXHAUSTED if L1's memory is used up, PERMISSION_DENIED if L2 does
// something that L1 does not allow, INVALID_ARGUMENT for an impossible address
// or size, FAILED_PRECONDITION if the mapping is not as the function requires,
// ABORTED if another processor failed in the middle of a change, and with the
// processor's own errors.
class L1Hypervisor {
 public:
  // L2's rights to a page. kExec alone only with exec_only.
  enum class Rights : uint8_t { kAll, kReadExec, kRead, kExec };

  // A hypervisor with one processor and one guest. `memory` is the part of L1's
  // memory that it may use. `cpu` is in L1, and outlives this object.
  L1Hypervisor(L1Cpu& cpu, const GpaSpace& memory,
               const L1HypervisorOptions& options);
  // Processor `index` of the hypervisor that `shared` describes.
  L1Hypervisor(L1Cpu& cpu, L1Shared& shared, int index);

  // Makes the roots of all guests. Called once, on one processor, before
  // everything else.
  absl::Status Boot();

  // The functions below concern this guest; at first, the first one. REQUIRES:
  // Boot has returned.
  void Select(int guest);
  int selected() const { return guest_; }
  const L1HypervisorOptions& options() const { return options_; }

  // Makes one access of L2 to the aligned 8-byte word at `nested`, with the
  // work that L1 does until the access succeeds.
  absl::Status Access(Gpa nested, AccessKind kind, uint64_t* word);

  // The same, but L1 grants the page all rights again if it refuses the access.
  absl::Status AccessGranting(Gpa nested, AccessKind kind, uint64_t* word);

  // One attempt to execute an instruction of L2, on the processor, which is in
  // L2. Returns what L1Cpu::L2Access returns.
  using Instruction =
      absl::FunctionRef<L1Cpu::Outcome(L1Cpu& cpu, NestedExit* exit)>;
  // Executes an instruction of `vcpu`, and begins it anew after each exit. If
  // L1 refuses an access, it grants the page all rights. Selects the guest of
  // `vcpu`.
  absl::Status Run(L2Vcpu& vcpu, Instruction instruction);

  // Leaves L2, until the next access. A processor that will make no accesses
  // for a while must call it: others may be waiting for its invalidations.
  void Rest() { Leave(); }

  // The following functions run in L1, while L2 runs on other processors only.
  // Ranges are whole 4 KiB pages; a large page that lies only partly in the
  // range is split.

  // Unmaps the pages; the next access finds zeros.
  absl::Status Unmap(Gpa nested, uint64_t bytes);
  // Affects only pages that are mapped now; pages mapped later grant all
  // rights.
  absl::Status Protect(Gpa nested, uint64_t bytes, Rights rights);
  // Moves the page to another frame of L1, with the same contents.
  absl::Status Remap(Gpa nested);
  // Maps the frame of the page `from` at the page `to` as well, where nothing
  // is mapped yet.
  absl::Status Alias(Gpa from, Gpa to);
  // Merges the 512 small pages around `nested` into one of 2 MiB with the same
  // contents; unmapped pages become zeros. FAILED_PRECONDITION if the pages
  // grant different rights, if one is aliased, or if no such run of frames is
  // free.
  absl::Status Promote(Gpa nested);
  // Replaces the large page at `nested` by pages one level smaller.
  absl::Status Demote(Gpa nested);
  // Frees the table of 4 KiB pages around `nested`. FAILED_PRECONDITION if
  // there is none, or if it maps a page.
  absl::Status FreeTable(Gpa nested);

  // L1's own dirty log: the 4 KiB pages that L2 may have written since the
  // previous call, ascending; a large page counts as a whole. Uses Dirty bits
  // if the tables have them, otherwise write protection.
  absl::StatusOr<std::vector<Gfn>> TakeDirty();

  // The frame of L1 that `nested` is mapped to. NOT_FOUND if it is unmapped.
  absl::StatusOr<Gfn> FrameOf(Gpa nested);
  const L1HypervisorStats& stats() const { return stats_; }
  // REQUIRES: no other processor runs.
  const FrameAllocator& frames() const { return shared_.frames; }
  // The top table of the selected guest.
  Gpa root() const { return tables_->root(); }

 private:
  // The limit of exits per instruction: more than mapping its accesses needs,
  // also if other processors undo it meanwhile.
  static constexpr int kMaxExits = 256;

  class Memory final : public PhysicalMemory {
   public:
    explicit Memory(L1Cpu& cpu) : cpu_(cpu) {}

   private:
    absl::Status Access(Gpa gpa, int size_bytes, AccessKind kind,
                        uint64_t* word) override;
    L1Cpu& cpu_;
  };

  L1Hypervisor(L1Cpu& cpu, std::unique_ptr<L1Shared> shared);

  // --- The processor. ---

  // Executes an instruction of L2. `vcpu`: null if the guest has a virtual
  // processor on each processor.
  enum class Refusal : uint8_t { kFails, kGrants };
  absl::Status Execute(L2Vcpu* vcpu, Refusal refusal, Instruction instruction);
  absl::Status Access(Gpa nested, AccessKind kind, uint64_t* word,
                      Refusal refusal);
  // Enters L2, or stays there; invalidates first if it has to.
  void Enter(L2Vcpu* vcpu);
  void Leave();
  NestedPaging Paging() const;
  void Invalidate();
  // INVVPID, or a flush of the ASID.
  void InvalidateVpid();
  // The VPID or ASID of the selected guest. A processor never runs two virtual
  // processors of a guest, so one number for them is enough.
  uint32_t Vpid() const { return static_cast<uint32_t>(guest_) + 1; }
  absl::Status HandleExit(const NestedExit& exit);
  // Calls fn in L1, with L1's lock held.
  absl::Status WithLock(absl::FunctionRef<absl::Status()> fn);

  // --- Under L1's lock. ---

  // Returns when no processor can use translations of the guest that are no
  // longer in its tables.
  absl::Status Shootdown();
  absl::Status MapFresh(Gpa nested);
  bool MapLarge(Gpa nested, Level level);
  // The leaf at `nested` if it ends by `end`; a larger leaf is split first. Or
  // a non-present entry.
  absl::StatusOr<NestedPte> FindWithin(Gpa nested, Gpa end);
  // Calls fn for each leaf of the range.
  absl::Status ForEachWithin(Gpa nested, uint64_t bytes,
                             absl::FunctionRef<void(const NestedPte&)> fn);
  bool Split(const NestedPte& pte);
  // The bits that the pages of a table have in common.
  struct Common {
    uint64_t rights = 0;
    uint64_t past = 0;  // Accessed, Dirty, kWasWritable
  };
  // Nullopt: the pages below `link` cannot be merged.
  std::optional<Common> CommonOf(const NestedPte& link);
  // kWasWritable if a Dirty bit that a processor sets in `value` now is lost.
  uint64_t MayBeDirty(uint64_t value) const;

  absl::Status Exhausted() const;
  absl::Status CheckRange(Gpa nested, uint64_t bytes) const;
  uint64_t BitsOf(Rights rights) const;

  const std::unique_ptr<L1Shared> own_;  // with one processor only
  L1Cpu& cpu_;
  L1Shared& shared_;
  const int index_;
  const L1HypervisorOptions& options_;
  const NestedEntryFormat format_;
  Memory memory_;
  int guest_ = 0;
  std::optional<NestedTables> tables_;  // of the selected guest
  bool in_l2_ = false;
  L1HypervisorStats stats_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_HYPERVISOR_H_
