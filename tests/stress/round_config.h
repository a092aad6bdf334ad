// The configuration of a round of stress: its VM, its injected faults and its
// duration.

#ifndef TESTS_STRESS_ROUND_CONFIG_H_
#define TESTS_STRESS_ROUND_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::stress {

// Pages of slot 0, which is stable and migrated, and of slot 1, which is stable
// and not migrated. A guest with page tables of its own uses only these slots.
inline constexpr uint64_t kMigratedPages = 4096;
inline constexpr uint64_t kOtherPages = 2048;
// The last pages of slot 0, which such a guest leaves to a device if there is
// one.
inline constexpr uint64_t kDevicePages = 64;

// Whether one kernel or one L1 hypervisor runs on all vCPUs of a guest with
// page tables of its own, or each vCPU has its own.
enum class Smp : uint8_t { kNo, kYes };

struct RoundConfig {
  uint64_t seed = 1;
  MmuMode mmu = MmuMode::kTdp;
  Stage2Config stage2;
  GuestPagingConfig guest_paging;
  Smp smp = Smp::kNo;
  uint64_t shadow_page_limit = 0;
  TlbOptions tlb;
  EntryFormat format = EntryFormat::kEpt;
  bool ad_bits = true;
  bool pml = false;
  int root_levels = 4;
  Level host_page_level = Level::k2M;
  int vcpus = 3;
  uint32_t dirty_ring_entries = 0;  // 0: the logs are bitmaps
  // With rings: whether there are companion bitmaps, and a device whose writes
  // they note.
  bool companion_bitmap = false;
  VmConfig::MmioCaching mmio_caching = VmConfig::MmioCaching::kYes;
  VmConfig::SlotZap slot_zap = VmConfig::SlotZap::kAll;
  absl::Duration duration = absl::Seconds(2);
  bool nx_huge_pages = false;  // switch the mitigation, and recover
  // 0, or n: in each migration, drop the n-th mark of a page that was dirty and
  // cleared twice before in that migration (testing/fault_injection.h).
  uint64_t drop_mark = 0;
  // Skip the next remote flush for this reason at each start of a migration's
  // log (kWriteProtect, kBbm), at each of its clears (kClearDirty), or at each
  // unmap by the host (kNotifier).
  absl::optional<FlushReason> skip_flush;
  // At each start of a migration, let the next table of a guest become writable
  // without marking its shadow page as unsync.
  bool skip_unsync = false;
  // Leave out each INVVPID of an L1 hypervisor on all vCPUs.
  bool skip_invvpid = false;

  bool has_device() const {
    return companion_bitmap && dirty_ring_entries != 0;
  }
  // The guest has page tables of its own.
  bool has_programs() const {
    return mmu == MmuMode::kShadow || mmu == MmuMode::kNested;
  }
  // The smallest number of pages that the host can map.
  uint64_t host_pages() const {
    return mmu == MmuMode::kStage2 ? stage2.granule_bytes / kPageSize : 1;
  }
  // There is a slot with pages of 1 GiB (round_vm.h).
  bool has_huge_range() const {
    return host_page_level == Level::k1G && !has_programs();
  }
  // No other slot has room for a block of the granule.
  bool only_huge_range_has_blocks() const {
    return has_huge_range() && host_pages() != 1;
  }
};

// What the caller chooses of a round. The seed decides what is left open. A
// value.
struct RoundChoices {
  absl::optional<MmuMode> mmu;
  absl::optional<Smp> smp;
  // With MmuMode::kStage2.
  absl::optional<uint32_t> granule_bytes;
  absl::optional<int> bbm_level;
};

// A configuration that depends only on the arguments.
RoundConfig RandomRound(uint64_t seed, absl::Duration duration,
                        const RoundChoices& choices);
std::string Describe(const RoundConfig& config);

}  // namespace mmu::stress

#endif  // TESTS_STRESS_ROUND_CONFIG_H_
