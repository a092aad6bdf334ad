#include "mmu_core/testing/fault_injection.h"

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/mark_dirty.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {
namespace {

constexpr uint64_t kNone = ~uint64_t{0};

std::atomic<uint64_t> marks_until_drop{0};  // 0: disarmed
std::atomic<uint32_t> dropped_slot{0};
std::atomic<uint64_t> dropped_gfn{kNone};

}  // namespace

bool ShouldDropDirtyMark(const Memslot& slot, Gfn gfn) {
  uint64_t left = marks_until_drop.load();
  do {
    if (left == 0) return false;
  } while (!marks_until_drop.compare_exchange_weak(left, left - 1));
  if (left != 1) return false;
  dropped_slot.store(slot.id);
  dropped_gfn.store(gfn.value());
  return true;
}

namespace testing {

void ArmDropOneMark(uint64_t nth) {
  dropped_gfn.store(kNone);
  marks_until_drop.store(nth);
}

std::string DroppedMark() {
  const uint64_t gfn = dropped_gfn.load();
  if (gfn == kNone) return "";
  return absl::StrFormat("slot %d gfn 0x%x", dropped_slot.load(), gfn);
}

}  // namespace testing
}  // namespace mmu
