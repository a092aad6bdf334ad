// The configuration of a VM. Plain data that a caller fills in; Vm::Create and
// Vm::SetMemslot check it.

#ifndef MMU_CORE_VM_CORE_VM_CONFIG_H_
#define MMU_CORE_VM_CORE_VM_CONFIG_H_

#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/core/stage2_config.h"

namespace mmu {

// Layout of the second-stage tables (SDM vol. 3, 29.3; APM vol. 2, 15.25).
enum class EntryFormat : uint8_t { kEpt, kNpt };

// One memslot to create or change. `slot` and `address_space` identify it; the
// other fields are its new properties (SLOT-11).
struct MemslotConfig {
  uint32_t slot = 0;        // 0..32763
  int address_space = 0;    // 0 normal, 1 SMM (TRM-07)
  Gpa gpa;                  // multiple of 4096
  uint64_t size_bytes = 0;  // multiple of 4096; 0 deletes
  BackingKind backing = BackingKind::kAnonymous;
  Level host_page_level = Level::k4K;  // k4K, k2M or k1G (SLOT-44)
  enum class Mode : uint8_t { kReadWrite, kReadOnly } mode = Mode::kReadWrite;
};

// The tables of a guest that makes its own: those of a guest without
// second-stage translation, or those that L1 makes for L2.
struct GuestPagingConfig {
  // A guest's own tables (SDM vol. 3, 4.1.1). L1's have four or five levels.
  enum class Mode : uint8_t { k32Bit, kPae, k4Level, k5Level };
  Mode mode = Mode::k4Level;
  // Whether memory of programs, or of L2, is mapped in large pages where
  // possible.
  enum class LargePages : uint8_t { kNo, kYes } large_pages = LargePages::kNo;
  // The number of programs that a vCPU runs in turn; there is one L2 guest per
  // vCPU.
  int processes = 1;  // 1..64
  // Whether L1's EPT has Accessed and Dirty bits; other formats always do.
  enum class AdBits : uint8_t { kOff, kOn } ad_bits = AdBits::kOn;

  friend bool operator==(const GuestPagingConfig&,
                         const GuestPagingConfig&) = default;
};

// The tables that the vCPUs of a VM run on.
enum class MmuMode : uint8_t {
  // Second-stage tables of the TDP MMU.
  kTdp,
  // The same, made of direct shadow pages, as KVM with tdp_mmu=N (PF-43).
  kTdpShadow,
  // No second stage: the guest's own tables are shadowed, as KVM with ept=N or
  // npt=N. `format` must be kNpt, whose entries have the layout of ordinary
  // page tables.
  kShadow,
  // The TDP MMU for the guest, L1, and shadow pages for the EPT or NPT tables
  // (like `format`) that L1 makes for its own guest, L2 (SHD-60).
  kNested,
  // arm64 stage-2 tables (Stage2Config). The options of x86 tables have no
  // meaning then and must be left out.
  kStage2,
};

struct VmConfig {
  EntryFormat format = EntryFormat::kEpt;
  MmuMode mmu = MmuMode::kTdp;
  Stage2Config stage2;  // with kStage2
  // With kShadow and kNested: the guest in which a workload runs.
  GuestPagingConfig guest_paging;
  // The maximum number of shadow pages, at least 64. 0: one per 50 pages of
  // memory, but at least 64 (SLOT-30).
  uint64_t shadow_page_limit = 0;
  // Whether the hardware sets Accessed and Dirty. NPT always does; EPT on older
  // processors does not (SPTE-04).
  enum class AdBits : uint8_t { kOff, kOn } ad_bits = AdBits::kOn;
  // Whether the processor logs dirty pages itself, page-modification logging:
  // dirty logging then clears Dirty bits, and small pages stay writable. Needs
  // EPT with A/D bits (DL-32).
  enum class Pml : uint8_t { kNo, kYes } pml = Pml::kNo;
  int root_levels = 4;                // 4 or 5
  Level max_page_level = Level::k1G;  // largest leaf the hardware has (TRM-03)
  int vcpu_count = 1;                 // 1..kMaxVcpus
  // How the vCPUs' TLBs follow flushes. Each vCPU has a seed of its own, which
  // follows from this one.
  TlbOptions tlb;
  // Physical address bits of the host, 36 to 52. Slots must end below that
  // limit (TRM-06), and MMIO SPTEs depend on it (SPTE-40, SPTE-42, SPTE-45). 0:
  // 46 with four levels, 52 with five.
  int host_address_bits = 0;
  // Whether accesses outside of all slots leave MMIO SPTEs behind (SPTE-45).
  enum class MmioCaching : uint8_t {
    kNo,
    kYes
  } mmio_caching = MmioCaching::kYes;
  // Which mappings are zapped when a slot is deleted or moved: all of the VM,
  // as with KVM's quirk SLOT_ZAP_ALL, or only the leafs of the slot (SLOT-28).
  enum class SlotZap : uint8_t { kSlot, kAll } slot_zap = SlotZap::kAll;
  // Entries of each vCPU's dirty ring: a power of two from 256 to 65536 (from
  // 1024 with PML, whose log is drained into the ring at once). Slots then log
  // into the rings. 0: no rings; slots have bitmaps. Set once, with the VM and
  // so before its vCPUs (DL-40).
  uint32_t dirty_ring_entries = 0;
  // In addition to the rings, slots have bitmaps for writes that no running
  // vCPU makes. Needs rings, and must be chosen before the first slot (DL-46).
  enum class CompanionBitmap : uint8_t {
    kNo,
    kYes
  } companion_bitmap = CompanionBitmap::kNo;
  // Whether this VM follows the parameters of the NX huge page mitigation
  // (vm/core/nx_parameters.h), or never has it. A guest that opts out is
  // trusted not to use the erratum, so that choice is for privileged callers
  // (TST-11).
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

// The hardware sets Accessed and Dirty.
constexpr bool HasAdBits(const VmConfig& config) {
  return config.format == EntryFormat::kNpt ||
         config.ad_bits == VmConfig::AdBits::kOn;
}

// The vCPUs' own accesses go through the TDP MMU.
constexpr bool RunsOnTdp(const VmConfig& config) {
  return config.mmu == MmuMode::kTdp || config.mmu == MmuMode::kNested;
}
// Guests have page tables of their own in their memory, which are shadowed.
constexpr bool GuestHasTables(const VmConfig& config) {
  return config.mmu == MmuMode::kShadow || config.mmu == MmuMode::kNested;
}
// The VM may have shadow pages.
constexpr bool HasShadowPages(const VmConfig& config) {
  return config.mmu != MmuMode::kTdp && config.mmu != MmuMode::kStage2;
}
// The guest runs on arm64 stage-2 tables.
constexpr bool RunsOnStage2(const VmConfig& config) {
  return config.mmu == MmuMode::kStage2;
}

// A vCPU can write to a page that logs without a fault, and the write is noted
// elsewhere than in the log: in the CPU's own log (PML), or in a descriptor.
constexpr bool WritesAreNotedElsewhere(const VmConfig& config) {
  return config.pml == VmConfig::Pml::kYes ||
         config.stage2.dirty_state == Stage2Config::DirtyState::kByHardware;
}

// The smallest page of the host that the guest's memory is mapped with.
constexpr uint64_t HostPageBytes(const VmConfig& config) {
  return RunsOnStage2(config) ? config.stage2.granule_bytes : kPageSize;
}

// The level of a root of the second stage: 4 or 5 levels of tables.
constexpr Level RootLevel(const VmConfig& config) {
  return config.root_levels == 5 ? Level::k256T : Level::k512G;
}

// The current state of a memslot.
struct MemslotInfo {
  MemslotConfig config;
  uint64_t generation = 0;  // of the slot set that holds it (SLOT-21)
  bool dirty_log_enabled = false;
  bool has_contents = true;  // false: metadata-only backing
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_VM_CONFIG_H_
