#include "mmu_core/vm/jobs/generation_coverage.h"

#include <cstddef>
#include <cstdint>

#include "mmu_core/aging/aging.h"
#include "mmu_core/stats/labels.h"

namespace mmu {
namespace {

// Four bits for each MMU, and then the others.
constexpr uint32_t kAskedFlag = 1;
constexpr uint32_t kSkippedFlag = 2;
constexpr int kLockShift = 2;
constexpr uint32_t kLockMask = 3;
constexpr int kBitsPerMmu = 4;
constexpr uint32_t kLostFlag = 1u << 28;
constexpr uint32_t kLookAroundFlag = 1u << 29;
constexpr uint32_t kIncompleteFlag = 1u << 30;
constexpr uint32_t kOthersClearedFlag = 1u << 31;

}  // namespace

bool GenerationCoverage::whole() const {
  return !look_around && !incomplete && !reach.skipped_any();
}

uint32_t GenerationCoverage::ToFlags() const {
  uint32_t flags = 0;
  for (size_t i = 0; i < reach.mmus.size(); ++i) {
    const AgeReach::Mmu& mmu = reach.mmus[i];
    const uint32_t bits = (mmu.asked ? kAskedFlag : 0) |
                          (mmu.skipped ? kSkippedFlag : 0) |
                          static_cast<uint32_t>(mmu.lock) << kLockShift;
    flags |= bits << (kBitsPerMmu * i);
  }
  if (look_around) flags |= kLookAroundFlag;
  if (incomplete) flags |= kIncompleteFlag;
  if (lost) flags |= kLostFlag;
  if (others_cleared) flags |= kOthersClearedFlag;
  return flags;
}

GenerationCoverage GenerationCoverage::FromFlags(uint32_t flags) {
  GenerationCoverage coverage;
  for (size_t i = 0; i < coverage.reach.mmus.size(); ++i) {
    const uint32_t bits = flags >> (kBitsPerMmu * i);
    coverage.reach.mmus[i] = {
        .asked = (bits & kAskedFlag) != 0,
        .skipped = (bits & kSkippedFlag) != 0,
        .lock = static_cast<AgingLock>(bits >> kLockShift & kLockMask)};
  }
  coverage.look_around = (flags & kLookAroundFlag) != 0;
  coverage.incomplete = (flags & kIncompleteFlag) != 0;
  coverage.lost = (flags & kLostFlag) != 0;
  coverage.others_cleared = (flags & kOthersClearedFlag) != 0;
  return coverage;
}

}  // namespace mmu
