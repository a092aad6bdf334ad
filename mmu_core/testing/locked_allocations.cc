#include "mmu_core/testing/locked_allocations.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/testing/failing_allocations.h"

namespace mmu::testing {
namespace {

constinit thread_local LockedAllocations* current = nullptr;

}  // namespace

bool MaySleepAt(HookPoint point) {
  switch (point) {
    case HookPoint::kGracePeriod:
    case HookPoint::kTopUp:
    case HookPoint::kHeldBackToWait:
    case HookPoint::kMissingToAsk:
    case HookPoint::kKickToWait:
      return true;
    default:
      return false;
  }
}

LockedAllocations::LockedAllocations() {
  MMU_CHECK(current == nullptr);
  current = this;
#ifdef NDEBUG
  MMU_CHECK(!"this needs a build with hooks");
#else
  MMU_CHECK(hook_fn.exchange(&OnHook) == nullptr);
#endif
}

LockedAllocations::~LockedAllocations() {
#ifndef NDEBUG
  hook_fn.store(nullptr);
#endif
  current = nullptr;
}

void LockedAllocations::OnHook(HookPoint point) {
  if (current != nullptr) current->At(point);
}

void LockedAllocations::At(HookPoint point) {
  const uint64_t allocations = AllocationsOfThread().calls;
  if (held_ != Held::kNothing && allocations != allocations_) {
    Note(point, allocations - allocations_);
  }
  if (MaySleepAt(point)) {
    if (held_ == Held::kNothing) {
      ++free_waits_;
    } else {
      ++waits_[static_cast<size_t>(held_)][static_cast<size_t>(point)];
    }
  }
  if (point == HookPoint::kReadLocked) {
    held_ = Held::kRead;
    ++reads_;
  } else if (point == HookPoint::kWriteLocked) {
    held_ = Held::kWrite;
    ++writes_;
  } else if (point == HookPoint::kUnlock) {
    held_ = Held::kNothing;
  }
  last_ = point;
  allocations_ = allocations;
}

void LockedAllocations::Note(HookPoint to, uint64_t count) {
  for (Finding& finding : findings_) {
    if (finding.count != 0 &&
        (finding.held != held_ || finding.from != last_ || finding.to != to)) {
      continue;
    }
    finding = {held_, last_, to, finding.count + count};
    return;
  }
}

const char* LockedAllocations::NameOf(Held held) {
  return held == Held::kRead ? "read" : "write";
}

std::string LockedAllocations::Findings() const {
  std::string text;
  for (const Finding& finding : findings_) {
    if (finding.count == 0) break;
    absl::StrAppend(&text, finding.count, " allocations in ",
                    NameOf(finding.held), " mode between ",
                    std::string(ToString(finding.from)), " and ",
                    std::string(ToString(finding.to)), "\n");
  }
  for (const Held held : {Held::kRead, Held::kWrite}) {
    for (int point = 0; point < kHookPoints; ++point) {
      const uint64_t count =
          waits_[static_cast<size_t>(held)][static_cast<size_t>(point)];
      if (count == 0) continue;
      absl::StrAppend(&text, count, " waits in ", NameOf(held), " mode at ",
                      std::string(ToString(static_cast<HookPoint>(point))),
                      "\n");
    }
  }
  return text;
}

}  // namespace mmu::testing
