// The combined mappings of one logical processor (SDM vol. 3, 29.4.1): what it
// has cached of the translation of an L2 guest that pages by itself. A mapping
// stays until an instruction or a fault drops it, so an invalidation that L1 or
// L2 forgets has an effect.
//
// A processor's mapping leads from a linear page to memory. Here it is in two
// halves:
//
//   linear page --[here]--> nested gpa --[guest-physical mapping]--> memory
//
// The guest-physical mappings are those of the processor's TLB, with the tag
// EP4TA. The halves together show L1 and L2 what a processor may show:
//   - What invalidates guest-physical mappings of an EP4TA for L1 is INVEPT,
//     which drops both halves (29.4.3.1).
//   - INVVPID, and all that L2 executes, drop the first half. The second half
//     does not depend on L2's tables, so it may stay.
//   - An EPT violation drops the first half of the linear address that was
//     translated, and the second half of its nested gpa. So does a nested page
//     fault, which is an assumption (l1_cpu.h).
//   - The second half alone may go, because of the host or of a violation at
//     another linear address. Then the processor translates the nested gpa
//     anew, as a processor may at any time.
//
// Entries above the leafs of L2's tables are not cached.

#ifndef MMU_CORE_GUEST_HYPERVISOR_COMBINED_MAPPINGS_H_
#define MMU_CORE_GUEST_HYPERVISOR_COMBINED_MAPPINGS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>

#include "absl/hash/hash.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/tlb/tlb_options.h"

namespace mmu {

// A linear address of L2, in the address space of a PCID. A value.
struct LinearAddress {
  Pcid pcid = 0;
  Gva gva = {};
};

// What L2's tables translate a page to. A value.
struct CombinedMapping {
  Gfn nested = {};  // the frame of the page's first 4 KiB
  Level level = Level::k4K;
  AccessRights rights = {};  // granted by all of L2's entries together
  bool dirty = false;        // the leaf's Dirty bit is known to be set

  friend bool operator==(const CombinedMapping&,
                         const CombinedMapping&) = default;
};

// What INVVPID invalidates (SDM vol. 3, 29.4.3.1). L2 has no global pages, so
// there is no type that retains them.
enum class Invvpid : uint8_t {
  kAddress,        // one linear address of one VPID, with each PCID
  kSingleContext,  // one VPID
  kAllContexts,    // everything
};

// Has no bound: its owner drops mappings, or chance does (TlbOptions). And each
// invalidation but Drop looks at all mappings. Both suit the small kernels of
// tests. L2Cpu alone adds mappings, and it is for tests only, so those of any
// other program's processor stay empty.
//
// A VPID may be an ASID; then the EP4TA is always 0. Externally synchronised by
// the processor.
class CombinedMappings {
 public:
  // `options.flushes` does not matter.
  explicit CombinedMappings(const TlbOptions& options = {})
      : evictions_(options.evictions), random_(options.seed) {}

  // VM entry: VPID and EP4TA are these now. Invalidates nothing.
  void Enter(uint32_t vpid, Gpa ep4ta) {
    vpid_ = vpid;
    ep4ta_ = ep4ta;
  }

  // --- In L2. The VPID is that of the last entry. ---

  // The mapping of `at` with the current EP4TA, the smallest page first.
  std::optional<CombinedMapping> Find(LinearAddress at);
  // Replaces a mapping of the same page size.
  void Insert(LinearAddress at, const CombinedMapping& mapping);
  // Drops the mappings of `at` with the current EP4TA: an EPT violation at the
  // nested gpa that `at` translates to (SDM vol. 3, 29.4.3.1), or a nested page
  // fault there.
  void Drop(LinearAddress at);
  // Drops the mappings of `at` with all EP4TAs: INVLPG, or a page fault of L2
  // (SDM vol. 3, 4.10.4.1 and 29.4.3.1). L2 has no global pages, which would go
  // with each PCID.
  void Invlpg(LinearAddress at) { InvalidatePcid(Invpcid::kAddress, at); }
  // Also a load of CR3 that flushes, which is kSingleContext. With all EP4TAs.
  void InvalidatePcid(Invpcid what, LinearAddress at);

  // --- In L1. ---

  // INVEPT of one context, and of all.
  void Invept(Gpa ep4ta);
  void InveptGlobal() { mappings_.clear(); }
  // `vpid` and `gva` count only for the types that name them.
  void InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva);

  size_t size() const { return mappings_.size(); }

 private:
  struct Key {
    uint32_t vpid = 0;
    Gpa ep4ta;
    Pcid pcid = 0;
    PageNumber first;  // aligned to `level`
    Level level = Level::k4K;

    // Whether the page has the address.
    bool Has(Gva gva) const {
      return RoundDown(PageNumberOf(gva.value()), level) == first;
    }
    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.vpid, key.ep4ta, key.pcid, key.first,
                        key.level);
    }
  };

  Key KeyOf(LinearAddress at, Level level) const {
    return {vpid_, ep4ta_, at.pcid,
            RoundDown(PageNumberOf(at.gva.value()), level), level};
  }
  template <typename Fn>
  void DropIf(Fn fn) {
    std::erase_if(mappings_,
                  [&fn](const auto& mapping) { return fn(mapping.first); });
  }

  const TlbOptions::Evictions evictions_;
  std::mt19937_64 random_;
  uint32_t vpid_ = 0;
  Gpa ep4ta_;
  std::unordered_map<Key, CombinedMapping, absl::Hash<Key>> mappings_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_COMBINED_MAPPINGS_H_
