// The ways to harvest a slot's dirty log, behind one interface, so that one
// oracle can check each of them.

#ifndef TESTS_SELFTESTS_LOG_HARVESTER_H_
#define TESTS_SELFTESTS_LOG_HARVESTER_H_

#include <cstdint>
#include <ostream>
#include <vector>

#include "mmu_core/vm/vm.h"

namespace mmu::testing {

enum class LogMode : uint8_t {
  kGet,         // one call reads and clears (DL-10)
  kClear,       // read all, then clear the pages read (DL-13, DL-20..26)
  kEpochs,      // seal, read, clear
  kRing,        // collect from the vCPUs' rings, then reset them (DL-41..45)
  kRingEpochs,  // as kEpochs, of a VM with rings
};
inline bool UsesRing(LogMode mode) {
  return mode == LogMode::kRing || mode == LogMode::kRingEpochs;
}
std::ostream& operator<<(std::ostream& os, LogMode mode);

// Takes all dirty pages of slot `slot` and re-protects them. Returns their page
// numbers within the slot, ascending. kRing takes the pages of all slots that
// log, so `slot` must be the only one. Aborts if a call fails or if the number
// of pages cleared is not the number of pages read.
std::vector<uint64_t> Harvest(Vm& vm, uint32_t slot, LogMode mode);

}  // namespace mmu::testing

#endif  // TESTS_SELFTESTS_LOG_HARVESTER_H_
