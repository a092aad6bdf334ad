// The tag of a translation: a vCPU uses a cached translation only while its own
// tag equals the translation's.

#ifndef MMU_CORE_TLB_TLB_TAG_H_
#define MMU_CORE_TLB_TLB_TAG_H_

#include <cstdint>

#include "mmu_core/paging/shadow_page.h"

namespace mmu {

// A value.
class TlbTag {
 public:
  // The EP4TA, for guest-physical translations: the address of the top table
  // (SDM vol. 3, 29.4.1). A table that is freed and used again as a root has
  // the same tag, so a vCPU that loads a root flushes (TLB-04).
  static TlbTag OfRoot(const PageTable& table) {
    return TlbTag(reinterpret_cast<uint64_t>(&table));
  }
  // The VMID, for stage-2 translations of arm64 (DDI0487, D8.16).
  static TlbTag OfVmid(uint16_t vmid) {
    return TlbTag(kVmid | uint64_t{vmid} << 1);
  }
  // The PCID, for translations of a guest's linear addresses (SDM vol. 3,
  // 4.10.1). Each vCPU has a TLB of its own, so a VPID is not part of the tag.
  // `pcid`: 0..4095; 0 if the guest has no PCIDs.
  static TlbTag OfPcid(uint16_t pcid) {
    return TlbTag(kLinear | uint64_t{pcid} << kPcidShift);
  }

  // Made by OfPcid.
  bool IsLinear() const { return (value_ & kLinear) == kLinear; }

  friend bool operator==(const TlbTag&, const TlbTag&) = default;

 private:
  // No table is at an odd address.
  static constexpr uint64_t kLinear = uint64_t{1} << 63 | 1;
  static constexpr uint64_t kVmid = uint64_t{1} << 62 | 1;
  static constexpr uint64_t kPcidShift = 1;

  explicit TlbTag(uint64_t value) : value_(value) {}

  uint64_t value_;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_TLB_TAG_H_
