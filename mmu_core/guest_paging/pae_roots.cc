#include "mmu_core/guest_paging/pae_roots.h"

#include <cstdint>
#include <optional>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/legacy_paging_modes.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/page_role.h"

namespace mmu {

std::optional<RootPage> PaeRootPage(CpuRole role, PageRole root, Gfn table,
                                    const Pdptes& pdptes, int index) {
  MMU_DCHECK(HasPaeRoots(role, root));
  MMU_DCHECK(index >= 0 && index < kPaeRoots);
  PageRole::Fields fields = root.fields();
  fields.level = ToInt(Level::k2M);
  Gfn gfn = table;
  if (role.guest_level() == 0) {
    gfn = Gfn(static_cast<uint64_t>(index) * PagesPer(Level::k1G));
  } else if (root.has_4_byte_gpte()) {
    fields.quadrant = index;
  } else {
    const uint64_t pdpte = pdptes[static_cast<size_t>(index)];
    if (!PaePaging::IsPresentPdpte(pdpte)) return std::nullopt;
    gfn = ToGfn(PaePaging::AddressOfPdpte(pdpte));
  }
  return RootPage{gfn, PageRole::Of(fields)};
}

std::optional<Pdptes> LoadPdptes(GuestWords& memory, uint64_t cr3,
                                 int max_phys_bits) {
  const Gpa base(cr3 & 0xffffffe0);
  Pdptes pdptes = {};
  for (size_t i = 0; i < pdptes.size(); ++i) {
    if (memory.Read(base + 8 * i, WordSize::k8, &pdptes[i]) !=
            GuestWordResult::kDone ||
        PaePaging::HasReservedPdpteBits(pdptes[i], max_phys_bits)) {
      return std::nullopt;
    }
  }
  return pdptes;
}

}  // namespace mmu
