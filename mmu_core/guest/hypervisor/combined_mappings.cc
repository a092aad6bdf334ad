#include "mmu_core/guest/hypervisor/combined_mappings.h"

namespace mmu {
std::optional<CombinedMapping> CombinedMappings::Find(LinearAddress at) {
  for (const Level level : kLeafLevels) {
    const auto found = mappings_.find(KeyOf(at, level));
    if (found == mappings_.end()) continue;
    if (evictions_ == TlbOptions::Evictions::kRandom && random_() % 16 == 0) {
      mappings_.erase(found);
      continue;
    }
    return found->second;
  }
  return std::nullopt;
}

void CombinedMappings::Insert(LinearAddress at,
                              const CombinedMapping& mapping) {
  mappings_[KeyOf(at, mapping.level)] = mapping;
}

void CombinedMappings::Drop(LinearAddress at) {
  for (const Level level : kLeafLevels) mappings_.erase(KeyOf(at, level));
}

void CombinedMappings::InvalidatePcid(Invpcid what, LinearAddress at) {
  DropIf([&](const Key& key) {
    if (key.vpid != vpid_) return false;
    switch (what) {
      case Invpcid::kAddress:
        return key.pcid == at.pcid && key.Has(at.gva);
      case Invpcid::kSingleContext:
        return key.pcid == at.pcid;
      case Invpcid::kAllContexts:
        return true;
    }
    return true;
  });
}

void CombinedMappings::Invept(Gpa ep4ta) {
  DropIf([&](const Key& key) { return key.ep4ta == ep4ta; });
}

void CombinedMappings::InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva) {
  DropIf([&](const Key& key) {
    switch (what) {
      case Invvpid::kAddress:
        return key.vpid == vpid && key.Has(gva);
      case Invvpid::kSingleContext:
        return key.vpid == vpid;
      case Invvpid::kAllContexts:
        return true;
    }
    return true;
  });
}

}  // namespace mmu
