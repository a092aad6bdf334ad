#include "mmu_core/testing/fault_injection.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/shadow/unsync_gate.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

struct Injector {
  Mutex mu;
  uint64_t marks_until_drop ABSL_GUARDED_BY(mu) = 0;  // 0: disarmed
  // For each page, by (slot, gfn), the number of times that it became dirty
  // since the injection was armed.
  std::map<std::pair<uint32_t, uint64_t>, int> marks ABSL_GUARDED_BY(mu);
  std::string dropped ABSL_GUARDED_BY(mu);
  uint64_t dropped_count ABSL_GUARDED_BY(mu) = 0;
  FlushReason skip_reason ABSL_GUARDED_BY(mu) = FlushReason::kZap;
  uint64_t flushes_until_skip ABSL_GUARDED_BY(mu) = 0;  // 0: disarmed
  uint64_t skipped ABSL_GUARDED_BY(mu) = 0;
  uint64_t unsyncs_until_skip ABSL_GUARDED_BY(mu) = 0;  // 0: disarmed
  uint64_t skipped_unsyncs ABSL_GUARDED_BY(mu) = 0;
  uint64_t unsyncs ABSL_GUARDED_BY(mu) = 0;
};

Injector& TheInjector() {
  static auto* injector = new Injector;
  return *injector;
}

}  // namespace

bool ShouldDropDirtyMark(const Memslot& slot, Gfn gfn) {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  if (injector.marks_until_drop == 0) return false;
  // Does not drop the first two marks of a page: the page may not have been
  // copied yet, and then a lost mark does no harm.
  if (++injector.marks[{slot.id, gfn.value()}] <= 2) return false;
  if (--injector.marks_until_drop != 0) return false;
  injector.dropped = absl::StrFormat("slot %d gfn 0x%x", slot.id, gfn.value());
  ++injector.dropped_count;
  return true;
}

bool ShouldSkipFlush(FlushReason reason) {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  if (injector.flushes_until_skip == 0 || reason != injector.skip_reason ||
      --injector.flushes_until_skip != 0) {
    return false;
  }
  ++injector.skipped;
  return true;
}

bool ShouldSkipUnsync() {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  ++injector.unsyncs;
  if (injector.unsyncs_until_skip == 0 || --injector.unsyncs_until_skip != 0) {
    return false;
  }
  ++injector.skipped_unsyncs;
  return true;
}

namespace testing {

void ArmDropOneMark(uint64_t nth) {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  injector.marks_until_drop = nth;
  injector.marks.clear();
  injector.dropped.clear();
}

std::string DroppedMark() {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  return injector.dropped;
}

uint64_t DroppedMarks() {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  return injector.dropped_count;
}

void ArmSkipOneFlush(FlushReason reason, uint64_t nth) {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  injector.skip_reason = reason;
  injector.flushes_until_skip = nth;
}

uint64_t SkippedFlushes() {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  return injector.skipped;
}

void ArmSkipOneUnsync(uint64_t nth) {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  injector.unsyncs_until_skip = nth;
}

uint64_t SkippedUnsyncs() {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  return injector.skipped_unsyncs;
}

uint64_t Unsyncs() {
  Injector& injector = TheInjector();
  MutexLock lock(injector.mu);
  return injector.unsyncs;
}

}  // namespace testing
}  // namespace mmu
