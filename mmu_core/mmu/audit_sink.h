// The interface through which a VM's MMUs report to the auditor.
//
// An MMU has only its own tables. The frame that a leaf may map, whether the
// next write through the leaf would be logged, and which vCPUs use a root
// depend on the VM's memslots, logs and vCPUs. So each MMU checks its own
// invariants and passes what it finds to the sink, which checks the VM's
// invariants.

#ifndef MMU_CORE_MMU_AUDIT_SINK_H_
#define MMU_CORE_MMU_AUDIT_SINK_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"

namespace mmu {

// A leaf of any MMU. A value.
struct AuditedLeaf {
  int as_id = 0;
  Gfn gfn;         // the first gfn that it maps
  uint64_t pages;  // the number of gfns that it maps
  Level level{1};
  Pfn pfn;  // of `gfn`
  bool writable = false;
  // A write fault may make it writable without another look at the slot.
  bool mmu_writable = false;
  bool host_writable = false;
  bool executable = false;
  // The next write through it is recorded in a CPU's own log, if there is one
  // (DL-33): it lacks D, and it maps a gfn of L1.
  bool cpu_logs_next_write = false;
  // The processor has noted in the leaf that it was written, and the MMU will
  // report that (Mmu::CollectDirty).
  bool write_noted = false;
  // The largest level, at most the one given, at which the slot may map the gfn
  // by the rules of this MMU.
  Level (*max_level)(const Memslot&, Gfn, Level) = nullptr;

  // A leaf of x86 tables.
  static AuditedLeaf Of(int as_id, Gfn gfn, Level level, Spte spte,
                        const SpteFormat& format) {
    return {.as_id = as_id,
            .gfn = gfn,
            .pages = PagesPer(level),
            .level = level,
            .pfn = spte.pfn(),
            .writable = spte.IsWritable(),
            .mmu_writable = format.IsMmuWritable(spte),
            .host_writable = format.IsHostWritable(spte),
            .executable = format.IsExecutable(spte),
            .max_level = [](const Memslot& slot, Gfn of, Level max) {
              return slot.MaxMappingLevel(of, max);
            }};
  }
};

// An entry that is not present, but not empty either. A value.
struct AuditedNonPresent {
  int as_id = 0;
  // The gfn that the entry's place stands for; nullopt if a guest's table
  // decides.
  absl::optional<Gfn> gfn;
  Level level = Level::k4K;
  Spte spte;
};

// A table of a guest, which has a shadow page. A value.
struct AuditedGuestTable {
  int as_id = 0;
  Gfn gfn;                   // of the guest's table
  Level level = Level::k4K;  // of the shadow page
  bool unsync = false;       // the guest may write the table
};

// Externally synchronised: belongs to the auditor's thread.
class AuditSink {
 public:
  virtual ~AuditSink() = default;

  // Invariant INV-`invariant` is broken (vm/inspect/audit.h).
  template <typename... Args>
  void Violation(int invariant, const absl::FormatSpec<Args...>& format,
                 const Args&... args) {
    Report(invariant, Format(format, args...));
  }
  virtual void Report(int invariant, std::string what) = 0;

  virtual void CheckLeaf(const AuditedLeaf& leaf) = 0;
  virtual void CheckNonPresent(const AuditedNonPresent& entry) = 0;
  virtual void CheckGuestTable(const AuditedGuestTable& table) = 0;
  // A table in use, which must have no other use.
  virtual void CheckTable(const ShadowPage& page) = 0;

  // The number of references that vCPUs have to the root with this table;
  // nullopt if that is not known. To be called once for each root.
  virtual absl::optional<int> RootReferences(const PageTable& table) = 0;

  // Calls `fn` for each memslot of all address spaces.
  virtual void ForEachSlot(absl::FunctionRef<void(const Memslot&)> fn) = 0;

  // Count the audited tables and pages.
  virtual void CountTables(uint64_t tables) = 0;
  virtual void CountShadowPages(uint64_t pages) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_AUDIT_SINK_H_
