// A small hypervisor that itself runs in a guest. It gives one L2 guest memory
// on demand, through EPT or NPT that it keeps in L1's memory and edits with
// ordinary stores, so an MMU that shadows these tables sees the same as with a
// real L1.
//
// It invalidates translations only where the architecture requires it (SDM vol.
// 3, 29.4.3.4; APM vol. 2, 15.16): nothing when an entry appears or grants
// more; one INVEPT or flush of the ASID before L2 runs again when entries lost
// something, however many.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_HYPERVISOR_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_HYPERVISOR_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/hypervisor/nested_tables.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/physical_memory.h"

namespace mmu {

struct L1HypervisorOptions {
  GuestTables tables = GuestTables::kEpt;  // or kNpt
  Level root_level = Level::k512G;         // or k256T
  bool ad_bits = false;                    // kEpt; NPT always has them
  bool exec_only = false;                  // kEpt: kExec below is allowed
  // kEpt: the scope of INVEPT.
  enum class Invept : uint8_t { kSingleContext, kGlobal };
  Invept invept = Invept::kSingleContext;
  // L2's memory is mapped in pages up to this size where possible.
  Level max_page = Level::k4K;  // up to k1G
};

struct L1HypervisorStats {
  uint64_t exits = 0;         // violations and nested page faults
  uint64_t demand_pages = 0;  // of any size
  uint64_t large_pages = 0;
  uint64_t splits = 0;
  uint64_t merges = 0;
  uint64_t invalidations = 0;  // INVEPTs or flushes of the ASID
};

// Thread-compatible: runs on the one vCPU that `cpu` is. Functions fail with
// RESOURCE_EXHAUSTED if L1's memory is used up, PERMISSION_DENIED if L2 does
// something that L1 does not allow, INVALID_ARGUMENT for an impossible address
// or size, FAILED_PRECONDITION if the mapping is not as the function requires,
// and with the processor's own errors.
class L1Hypervisor {
 public:
  // L2's rights to a page. kExec alone only with exec_only.
  enum class Rights : uint8_t { kAll, kReadExec, kRead, kExec };

  // `memory` is the part of L1's memory that the hypervisor may use. `cpu` is
  // in L1, and outlives this object.
  L1Hypervisor(L1Cpu& cpu, const GpaSpace& memory,
               const L1HypervisorOptions& options);

  // Makes the root. Called once, before everything else.
  absl::Status Boot();

  // Makes one access of L2 to the aligned 8-byte word at `nested`, with the
  // work that L1 does until the access succeeds.
  absl::Status Access(Gpa nested, AccessKind kind, uint64_t* word);

  // The following functions run in L1, while L2 does not run. Ranges are whole
  // 4 KiB pages; a large page that lies only partly in the range is split.

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

  // L1's own dirty log: the 4 KiB pages that L2 may have written since the
  // previous call, ascending; a large page counts as a whole. Uses Dirty bits
  // if the tables have them, otherwise write protection.
  absl::StatusOr<std::vector<Gfn>> TakeDirty();

  // The frame of L1 that `nested` is mapped to. NOT_FOUND if it is unmapped.
  absl::StatusOr<Gfn> FrameOf(Gpa nested);
  const L1HypervisorStats& stats() const { return stats_; }
  const FrameAllocator& frames() const { return frames_; }
  Gpa root() const { return tables_.root(); }

 private:
  // The limit of exits per access: more than mapping the access needs.
  static constexpr int kMaxExits = 64;

  class Memory final : public PhysicalMemory {
   public:
    explicit Memory(L1Cpu& cpu) : cpu_(cpu) {}

   private:
    absl::Status Access(Gpa gpa, int size_bytes, AccessKind kind,
                        uint64_t* word) override;
    L1Cpu& cpu_;
  };

  void Enter();
  void Leave();
  absl::Status HandleExit(const NestedExit& exit, AccessKind kind);
  absl::Status MapFresh(Gpa nested);
  bool MapLarge(Gpa nested, Level level);
  // The leaf at `nested` if it ends by `end`; a larger leaf is split first. Or
  // a non-present entry.
  absl::StatusOr<NestedPte> FindWithin(Gpa nested, Gpa end);
  // Calls fn for each leaf of the range.
  absl::Status ForEachWithin(Gpa nested, uint64_t bytes,
                             absl::FunctionRef<void(const NestedPte&)> fn);
  bool Split(const NestedPte& pte);
  absl::Status Exhausted() const;
  absl::Status CheckRange(Gpa nested, uint64_t bytes) const;
  uint64_t BitsOf(Rights rights) const;
  bool HasDirtyBits() const;

  L1Cpu& cpu_;
  const L1HypervisorOptions options_;
  const NestedEntryFormat format_;
  Memory memory_;
  FrameAllocator frames_;
  NestedTables tables_;
  bool in_l2_ = false;
  bool must_invalidate_ = false;  // before L2 runs again
  L1HypervisorStats stats_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_HYPERVISOR_H_
