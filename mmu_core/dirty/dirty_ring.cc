#include "mmu_core/dirty/dirty_ring.h"

#include <bit>
#include <cerrno>
#include <string>

#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

constexpr uint64_t kEntryBytes = sizeof(DirtyRing::Entry);
constexpr uint64_t kPageBytes = 4096;

}  // namespace

absl::Status DirtyRing::CheckBytes(uint64_t bytes, uint32_t cpu_log_entries) {
  const uint64_t reserved = kReservedEntries + cpu_log_entries;
  if (!std::has_single_bit(bytes) || bytes < kPageBytes ||
      bytes < reserved * kEntryBytes) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidMmuOption, "dirty_ring_entries", EINVAL},
        Format(
            "a dirty ring of %d bytes (%d entries): the size is a power of "
            "two, at least %d entries, and more than the %d that one exit can "
            "fill",
            bytes, bytes / kEntryBytes, kPageBytes / kEntryBytes, reserved));
  }
  if (bytes > kMaxEntries * kEntryBytes) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {Reason::kInvalidMmuOption, "dirty_ring_entries", E2BIG},
                     Format("a dirty ring of %d entries: it has at "
                            "most %d",
                            bytes / kEntryBytes, kMaxEntries));
  }
  return absl::OkStatus();
}

DirtyRing::DirtyRing(uint32_t entries, uint32_t cpu_log_entries)
    : size_(entries),
      soft_limit_(entries - kReservedEntries - cpu_log_entries),
      entries_(std::make_unique<Entry[]>(entries)) {
  MMU_CHECK(CheckBytes(entries * kEntryBytes, cpu_log_entries).ok());
}

void DirtyRing::Push(DirtyGfn page) {
  const uint32_t index = dirty_index_.load(std::memory_order_relaxed);
  MMU_CHECK(used() < size_);  // ensured by the soft limit
  Entry& slot = entry(index);
  slot.slot = page.slot;
  slot.offset = page.offset;
  AtHook(HookPoint::kEntryToFlags);
  slot.flags.store(kDirty, std::memory_order_release);
  dirty_index_.store(index + 1, std::memory_order_relaxed);
}

uint32_t DirtyRing::Collect(absl::FunctionRef<void(DirtyGfn)> record) {
  const uint32_t begin = reset_index_.load(std::memory_order_acquire);
  if (static_cast<int32_t>(fetch_index_ - begin) < 0) fetch_index_ = begin;
  uint32_t collected = 0;
  // At most one round: the vCPU may keep pushing.
  for (const uint32_t end = begin + size_; fetch_index_ != end;
       ++fetch_index_) {
    Entry& slot = entry(fetch_index_);
    const uint32_t flags = slot.flags.load(std::memory_order_acquire);
    if (flags == 0) break;
    if ((flags & kCollected) != 0) continue;
    record({slot.slot, slot.offset});
    AtHook(HookPoint::kRecordToCollected);
    slot.flags.store(kDirty | kCollected, std::memory_order_release);
    ++collected;
  }
  return collected;
}

absl::optional<DirtyGfn> DirtyRing::TakeCollected() {
  const uint32_t index = reset_index_.load(std::memory_order_relaxed);
  Entry& slot = entry(index);
  if ((slot.flags.load(std::memory_order_acquire) & kCollected) == 0) {
    return absl::nullopt;
  }
  const DirtyGfn page{slot.slot, slot.offset};
  slot.flags.store(0, std::memory_order_relaxed);
  AtHook(HookPoint::kFreeToIndex);
  reset_index_.store(index + 1, std::memory_order_release);
  return page;
}

void DirtyRing::ForEach(absl::FunctionRef<void(DirtyGfn)> fn) const {
  const uint32_t end = dirty_index_.load(std::memory_order_acquire);
  for (uint32_t i = reset_index_.load(std::memory_order_acquire); i != end;
       ++i) {
    const Entry& slot = entries_[i & (size_ - 1)];
    fn({slot.slot, slot.offset});
  }
}

void DirtyRing::ForEachCollected(absl::FunctionRef<void(DirtyGfn)> fn) const {
  const uint32_t reset = reset_index_.load(std::memory_order_acquire);
  for (uint32_t i = reset; static_cast<int32_t>(fetch_index_ - i) > 0; ++i) {
    const Entry& slot = entries_[i & (size_ - 1)];
    fn({slot.slot, slot.offset});
  }
}

void DirtyRing::Audit(absl::FunctionRef<void(const std::string&)> fault) const {
  const uint32_t reset = reset_index_.load(std::memory_order_acquire);
  const uint32_t dirty = dirty_index_.load(std::memory_order_acquire);
  if (dirty - reset > size_) {
    fault(
        Format("the reset index %d and the dirty index %d are more than %d "
               "entries apart",
               reset, dirty, size_));
    return;
  }
  // The fetch index stays behind if user space collects.
  if (static_cast<int32_t>(dirty - fetch_index_) < 0) {
    fault(Format("the fetch index %d is beyond the dirty index %d",
                 fetch_index_, dirty));
    return;
  }
  for (uint32_t n = 0; n < size_; ++n) {
    const uint32_t index = reset + n;
    const uint32_t flags =
        entries_[index & (size_ - 1)].flags.load(std::memory_order_acquire);
    const bool in_use = n < dirty - reset;
    const bool passed = static_cast<int32_t>(fetch_index_ - index) > 0;
    const char* expected = nullptr;
    if (!in_use && flags != 0) {
      expected = "free";
    } else if (in_use && passed && (flags & kCollected) == 0) {
      expected = "collected";
    } else if (in_use && (flags == 0 || flags > (kDirty | kCollected))) {
      expected = "dirty or collected";
    }
    if (expected == nullptr) continue;
    fault(Format("entry %d is %s by the indices, but its flags are %d", index,
                 std::string(expected), flags));
    return;
  }
}

}  // namespace mmu
