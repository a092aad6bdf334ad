// One round of stress: a fresh VM, vCPUs that never stop, threads that change
// its memory in every possible way, and a migration whose copy must be right.

#ifndef TESTS_STRESS_STRESS_ROUND_H_
#define TESTS_STRESS_STRESS_ROUND_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::stress {

// The work of the threads beside the vCPUs.
enum class Operation : uint8_t {
  kMigrate,     // start a log, copy all, harvest some rounds, compare, stop
  kHarvest,     // one seal, clear and copy of a migration
  kSplit,       // a paced split of a random range
  kRecover,     // recover huge pages
  kAge,         // test and clear, or test, a random range
  kZap,         // zap leaves without the guest's knowledge
  kInvalidate,  // the host takes pages away, and they come back
  kProtect,     // the host makes pages read-only for a while
  kResetRings,  // harvest dirty rings, or not, and reset them
  kChangeNx,    // NX mitigation on or off, or its recovery's pace
  kLogOther,    // start or stop the log of another slot
  kClearOther,  // seal and clear that log
  kSlotCreate,
  kSlotDelete,
  kSlotMove,
  kZapAll,       // zap everything, by the fast path
  kChangeLimit,  // change the limit of shadow pages
  kAudit,        // hold the vCPUs and verify every invariant
};
inline constexpr int kOperations = 18;
std::string_view ToString(Operation operation);

struct RoundConfig {
  uint64_t seed = 1;
  MmuMode mmu = MmuMode::kTdp;
  GuestPagingConfig guest_paging;
  uint64_t shadow_page_limit = 0;
  EntryFormat format = EntryFormat::kEpt;
  bool ad_bits = true;
  bool pml = false;
  int root_levels = 4;
  Level host_page_level = Level::k2M;
  int vcpus = 3;
  uint32_t dirty_ring_entries = 0;  // 0: the logs are bitmaps
  VmConfig::MmioCaching mmio_caching = VmConfig::MmioCaching::kYes;
  VmConfig::SlotZap slot_zap = VmConfig::SlotZap::kAll;
  absl::Duration duration = absl::Seconds(2);
  bool nx_huge_pages = false;  // switch the mitigation on and off, and recover
  // 0, or n: in each migration, drop the n-th mark of a page that was dirty and
  // cleared twice before in that migration (testing/fault_injection.h).
  uint64_t drop_mark = 0;
  // Skip the next remote flush for this reason at each start of a migration's
  // log (kWriteProtect), at each of its clears (kClearDirty), or at each unmap
  // by the host (kNotifier).
  absl::optional<FlushReason> skip_flush;
  // At each start of a migration, let the next table of a guest become writable
  // without marking its shadow page as unsync.
  bool skip_unsync = false;
};
// A configuration that depends only on the arguments. Without a mode the seed
// decides.
RoundConfig RandomRound(uint64_t seed, absl::Duration duration,
                        absl::optional<MmuMode> mmu);
std::string_view ToString(MmuMode mode);
std::string Describe(const RoundConfig& config);

struct RoundResult {
  std::string violation;  // empty if there is none
  std::array<uint64_t, kOperations> done{};
  uint64_t accesses = 0;
  uint64_t faults = 0;
  uint64_t flushes = 0;
  uint64_t pages_compared = 0;
  uint64_t emulated = 0;    // accesses
  uint64_t pre_faults = 0;  // calls
  uint64_t ring_full = 0;   // exits
  uint64_t unsyncs = 0;     // of shadow pages
  uint64_t pte_writes = 0;  // guests' writes to page tables that were emulated
  uint64_t recycled = 0;    // shadow pages

  void Add(const RoundResult& other);
};

RoundResult RunRound(const RoundConfig& config);

}  // namespace mmu::stress

#endif  // TESTS_STRESS_STRESS_ROUND_H_
