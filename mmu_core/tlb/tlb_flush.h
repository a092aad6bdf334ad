// What one TLB flush covers: the MMU, the gfns, and the kind of entries.

#ifndef MMU_CORE_TLB_TLB_FLUSH_H_
#define MMU_CORE_TLB_TLB_FLUSH_H_

#include <cstdint>
#include <optional>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

// The level hint of a flush. Cached leafs of the gfns always go, of any size:
// a split owes no flush (TDP-60), so a leaf that is larger than those in the
// tables may still be cached.
enum class FlushDepth : uint8_t {
  kLeafs,   // only leafs were changed
  kTables,  // a table was unlinked: cached pointers to tables go as well
};

// No gfn has more than 40 bits (52 of the address).
inline constexpr GfnRange kAllGfns = {Gfn(0), Gfn(uint64_t{1} << 40)};

// A value.
struct TlbFlush {
  std::optional<MmuKind> mmu;  // nullopt: translations of all MMUs of the VM
  GfnRange gfns = kAllGfns;
  FlushDepth depth = FlushDepth::kTables;
  // Not 0: only leafs of this many gfns each were changed, so cached leafs of
  // another size may stay. (TLBI by IPA, with a TTL hint if no table was
  // unlinked, tlb/tlbi.h.)
  uint64_t entry_pages = 0;

  bool Covers(MmuKind kind) const { return !mmu.has_value() || *mmu == kind; }
  bool CoversAllGfns() const { return gfns == kAllGfns; }
  // A flush of all gfns drops everything.
  bool CoversTables() const {
    return depth == FlushDepth::kTables || CoversAllGfns();
  }
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_TLB_FLUSH_H_
