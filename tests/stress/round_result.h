// The result of a round of stress: the first violation, and how much was done.

#ifndef TESTS_STRESS_ROUND_RESULT_H_
#define TESTS_STRESS_ROUND_RESULT_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/stress/moved_counters.h"

namespace mmu::stress {

// The work of the threads beside the vCPUs.
enum class Operation : uint8_t {
  kMigrate,      // start a log, copy all, harvest some rounds, compare, stop
  kHarvest,      // one seal, clear and copy of a migration
  kSplit,        // a paced split of a random range
  kRecover,      // recover huge pages
  kAge,          // test and clear, or test, a random range
  kGeneration,   // one generation of the working set, by a thread of its own
  kZap,          // zap leaves without the guest's knowledge
  kInvalidate,   // the host takes pages away and brings them back
  kProtect,      // the host makes pages read-only for a while
  kResetRings,   // harvest dirty rings, or not, and reset them
  kChangeNx,     // NX mitigation on or off, or its recovery's pace
  kLogOther,     // start or stop the log of another slot
  kClearOther,   // seal and clear that slot
  kDeviceWrite,  // a device writes to pages of slot 0, without a vCPU
  kSlotCreate,
  kSlotDelete,
  kSlotMove,
  kZapAll,       // zap everything, by the fast path
  kChangeLimit,  // change the limit of shadow pages
  kChangeChunk,  // change the chunk of eager splits of stage 2
  kAudit,        // hold the vCPUs and verify every invariant
};
inline constexpr int kOperations = 21;
std::string_view ToString(Operation operation);

// Of L2 guests that run on all processors of an L1 hypervisor.
struct NestedResult {
  uint64_t kept_roots = 0;    // switches to a root that the vCPU had kept
  uint64_t missed_roots = 0;  // switches to a root that it had not
  uint64_t interrupts = 0;    // exits of L2 to invalidate for another vCPU
  uint64_t invalidations = 0;
  uint64_t arrivals = 0;      // of virtual processors from another vCPU
  uint64_t tables_freed = 0;  // by L1: the shadow pages below go with them

  void Add(const NestedResult& other);
};

// Of the stage-2 MMU.
struct Stage2Result {
  uint64_t conflict_aborts = 0;  // FEAT_BBM level 2
  // Blocks that were split, by what made it necessary.
  uint64_t split_by_faults = 0;
  uint64_t split_eagerly = 0;
  uint64_t split_for_clears = 0;
  uint64_t split_on_request = 0;
  uint64_t recovered = 0;  // blocks for which way was made

  void Add(const Stage2Result& other);
};

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
  // Shadow pages of nested guests alone (guest_mode): those zapped for any
  // reason, those recycled by a fault that met the limit (at least), and the
  // pointers to such pages that writes of L1 to its tables have zapped.
  uint64_t nested_zapped = 0;
  uint64_t nested_recycled = 0;
  uint64_t nested_unlinked = 0;
  NestedResult nested;
  Stage2Result stage2;
  MovedCounters moved;

  void Add(const RoundResult& other);
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_ROUND_RESULT_H_
