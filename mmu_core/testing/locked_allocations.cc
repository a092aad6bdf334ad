#include "mmu_core/testing/locked_allocations.h"

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

std::string LockedAllocations::Findings() const {
  std::string text;
  for (const Finding& finding : findings_) {
    if (finding.count == 0) break;
    absl::StrAppend(&text, finding.count, " allocations in ",
                    finding.held == Held::kRead ? "read" : "write",
                    " mode between ", std::string(ToString(finding.from)),
                    " and ", std::string(ToString(finding.to)), "\n");
  }
  return text;
}

}  // namespace mmu::testing
