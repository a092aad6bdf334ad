// What a VM is made of. Plain data that a caller fills in; Vm::Create and
// Vm::SetMemslot check it.

#ifndef MMU_CORE_VM_CORE_VM_CONFIG_H_
#define MMU_CORE_VM_CORE_VM_CONFIG_H_

#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/host_memory.h"

namespace mmu {

// Layout of the second-stage tables (SDM vol. 3, 29.3; APM vol. 2, 15.25).
enum class EntryFormat : uint8_t { kEpt, kNpt };

// One memslot to create or change. `slot` and `address_space` name it; the
// other fields are what it shall become (SLOT-11).
struct MemslotConfig {
  uint32_t slot = 0;        // 0..32763
  int address_space = 0;    // 0 normal, 1 SMM (TRM-07)
  Gpa gpa;                  // multiple of 4096
  uint64_t size_bytes = 0;  // multiple of 4096; 0 deletes
  BackingKind backing = BackingKind::kAnonymous;
  Level host_page_level = Level::k4K;  // k4K, k2M or k1G (SLOT-44)
  enum class Mode : uint8_t { kReadWrite, kReadOnly } mode = Mode::kReadWrite;
};

// What the tables of a guest that makes its own are like: those of a guest
// without second-stage translation, or those that L1 makes for L2.
struct GuestPagingConfig {
  // A guest's own tables (SDM vol. 3, 4.1.1). L1's have four levels, or five.
  enum class Mode : uint8_t { k32Bit, kPae, k4Level, k5Level };
  Mode mode = Mode::k4Level;
  // Memory of programs, or of L2, comes in large pages where it can.
  enum class LargePages : uint8_t { kNo, kYes } large_pages = LargePages::kNo;
  // Programs that a vCPU runs, in turn; of L2 guests there is one per vCPU.
  int processes = 1;  // 1..64
  // Whether L1's EPT has Accessed and Dirty bits; NPT and others always have.
  enum class AdBits : uint8_t { kOff, kOn } ad_bits = AdBits::kOn;

  friend bool operator==(const GuestPagingConfig&,
                         const GuestPagingConfig&) = default;
};

// Which tables the vCPUs of a VM run on.
enum class MmuMode : uint8_t {
  // Second-stage tables of the TDP MMU.
  kTdp,
  // The same made of direct shadow pages, as KVM with tdp_mmu=N (PF-43).
  kTdpShadow,
  // No second stage: the guest's own tables are shadowed, as KVM with ept=N or
  // npt=N. `format` must be kNpt, whose layout ordinary tables have.
  kShadow,
  // The TDP MMU for the guest, L1, and shadow pages for the EPT or NPT tables
  // (as `format`) that L1 makes for a guest of its own, L2 (SHD-60).
  kNested,
};

struct VmConfig {
  EntryFormat format = EntryFormat::kEpt;
  MmuMode mmu = MmuMode::kTdp;
  // With kShadow and kNested: what the guest that a workload runs in does.
  GuestPagingConfig guest_paging;
  // Shadow pages that there may be, at least 64. 0: one for each 50 pages of
  // memory, but not less than that (SLOT-30).
  uint64_t shadow_page_limit = 0;
  // Whether the hardware sets Accessed and Dirty. NPT always does; EPT on older
  // processors does not (SPTE-04).
  enum class AdBits : uint8_t { kOff, kOn } ad_bits = AdBits::kOn;
  // Whether the processor logs writes by itself, page-modification logging:
  // dirty logging then clears Dirty bits, and small pages stay writable. Needs
  // EPT with A/D bits (DL-32).
  enum class Pml : uint8_t { kNo, kYes } pml = Pml::kNo;
  int root_levels = 4;                // 4 or 5
  Level max_page_level = Level::k1G;  // largest leaf the hardware has (TRM-03)
  int vcpu_count = 1;                 // 1..kMaxVcpus
  // Physical address bits of the host, 36 to 52: no slot reaches above them
  // (TRM-06), and MMIO SPTEs keep clear of them (SPTE-40, SPTE-42, SPTE-45).
  // 0: 46 with four levels, 52 with five.
  int host_address_bits = 0;
  // Whether accesses outside of all slots leave MMIO SPTEs behind (SPTE-45).
  enum class MmioCaching : uint8_t {
    kNo,
    kYes
  } mmio_caching = MmioCaching::kYes;
  // What goes when a slot is deleted or moved: every mapping of the VM, as with
  // KVM's quirk SLOT_ZAP_ALL, or the leafs of the slot alone (SLOT-28).
  enum class SlotZap : uint8_t { kSlot, kAll } slot_zap = SlotZap::kAll;
  // Entries of each vCPU's dirty ring, a power of two of 256 to 65536 (from
  // 1024 on with PML, whose log is drained into them at once); slots
  // then log into the rings. 0: no rings, slots have bitmaps. Set once, with
  // the VM and so before its vCPUs (DL-40).
  uint32_t dirty_ring_entries = 0;
  // Beside the rings, slots have bitmaps for writes that no running vCPU makes.
  // Needs rings, and no slot can be older than the choice (DL-46).
  enum class CompanionBitmap : uint8_t {
    kNo,
    kYes
  } companion_bitmap = CompanionBitmap::kNo;
  // Whether the NX huge page mitigation holds for this VM as the parameters say
  // (vm/core/nx_parameters.h), or never. Whoever lets a guest opt out trusts it
  // not to use the erratum, so that is for the privileged (TST-11).
  enum class NxHugePages : uint8_t {
    kAsParameters,
    kOptOut
  } nx_huge_pages = NxHugePages::kAsParameters;
  std::vector<MemslotConfig> memslots;
};

inline constexpr int kMaxVcpus = 256;

constexpr int HostAddressBits(const VmConfig& config) {
  if (config.host_address_bits != 0) return config.host_address_bits;
  return config.root_levels == 5 ? 52 : 46;
}

// The level of a root of the second stage: 4 or 5 levels of tables.
constexpr Level RootLevel(const VmConfig& config) {
  return config.root_levels == 5 ? Level::k256T : Level::k512G;
}

// A memslot as it is.
struct MemslotInfo {
  MemslotConfig config;
  uint64_t generation = 0;  // of the slot set that holds it (SLOT-21)
  bool dirty_log_enabled = false;
  bool has_contents = true;  // false: metadata-only backing
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_VM_CONFIG_H_
