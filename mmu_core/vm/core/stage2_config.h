// The configuration of a VM whose guest runs on arm64 stage-2 tables.

#ifndef MMU_CORE_VM_CORE_STAGE2_CONFIG_H_
#define MMU_CORE_VM_CORE_STAGE2_CONFIG_H_

#include <cstdint>
#include <optional>

namespace mmu {

// Plain data that a caller fills in; CheckStage2Config checks it.
struct Stage2Config {
  // The translation granule: the size of a page and of a table. 4096, 16384 or
  // 65536 (VTCR_EL2.TG0).
  uint32_t granule_bytes = 4096;
  // The bits of an intermediate physical address, 32 to 48 (VTCR_EL2.T0SZ).
  int ipa_bits = 40;
  // The level at which walks start, as the Arm ARM numbers it: 0 to 2
  // (VTCR_EL2.SL0). nullopt: the one that KVM chooses, the nearest to the
  // leafs that is possible with up to 16 concatenated tables.
  std::optional<int> start_level;
  // What the processor allows at a change of size of a translation (FEAT_BBM):
  // 0, break before make always; 2, no break.
  int bbm_level = 0;
  // The size of the pieces in which blocks are split ahead of the guest's
  // writes (KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE): 0, never; or the size of a
  // page or block of the granule.
  uint64_t eager_split_chunk_bytes = 0;
  // Whether the processor sets AF itself (FEAT_HAFDBS). Otherwise the first
  // access after an ageing faults.
  enum class AccessFlag : uint8_t {
    kByFault,
    kByHardware
  } access_flag = AccessFlag::kByFault;
  // Whether the processor notes the first write to a page of a logging slot in
  // its descriptor (FEAT_HAFDBS, dirty state), or the write faults. By
  // hardware: only with kByHardware of the Access flag, and without dirty
  // rings, to which such a write adds no entry.
  enum class DirtyState : uint8_t {
    kByFault,
    kByHardware
  } dirty_state = DirtyState::kByFault;
  // Whether the processor invalidates by range (FEAT_TLBIRANGE).
  enum class TlbiRange : uint8_t { kNo, kYes } tlbi_range = TlbiRange::kNo;

  friend bool operator==(const Stage2Config&, const Stage2Config&) = default;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_STAGE2_CONFIG_H_
