#include "mmu_core/testing/lock_trace.h"

#include <algorithm>
#include <string>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/sync/rcu.h"

namespace mmu::testing {
namespace {

constinit thread_local LockTrace* current = nullptr;

// Appends `word` to a list of words.
void Append(std::string& words, const std::string& word) {
  if (!words.empty()) words += ' ';
  words += word;
}

}  // namespace

std::string LockTrace::NameOf(Held held) {
  switch (held) {
    case Held::kNothing:
      return "none";
    case Held::kRead:
      return "read";
    case Held::kWrite:
      return "write";
  }
  return "?";
}

LockTrace::LockTrace(std::function<void(const Event&)> at_hook)
    : at_hook_(std::move(at_hook)) {
  MMU_CHECK(current == nullptr);
  current = this;
#ifdef NDEBUG
  MMU_CHECK(!"traces need a build with hooks");
#else
  MMU_CHECK(hook_fn.exchange(&OnHook) == nullptr);
#endif
}

LockTrace::~LockTrace() {
#ifndef NDEBUG
  hook_fn.store(nullptr);
#endif
  current = nullptr;
}

void LockTrace::OnHook(HookPoint point) {
  if (current != nullptr) current->At(point);
}

void LockTrace::At(HookPoint point) {
  if (inside_) return;
  if (point == HookPoint::kReadLocked) held_ = Held::kRead;
  if (point == HookPoint::kWriteLocked) held_ = Held::kWrite;
  const Event event = {point, held_, InRcuReadSection()};
  if (point == HookPoint::kUnlock) held_ = Held::kNothing;
  events_.push_back(event);
  if (at_hook_ == nullptr) return;
  inside_ = true;
  at_hook_(event);
  inside_ = false;
}

int LockTrace::CountOf(HookPoint point) const {
  return static_cast<int>(
      std::count_if(events_.begin(), events_.end(),
                    [point](const Event& e) { return e.point == point; }));
}

std::string LockTrace::Modes() const {
  std::string modes;
  std::string last;
  for (const Event& event : events_) {
    if (event.point != HookPoint::kReadLocked &&
        event.point != HookPoint::kWriteLocked) {
      continue;
    }
    const std::string mode = NameOf(event.mmu_lock);
    if (mode == last) continue;
    Append(modes, mode);
    last = mode;
  }
  return modes.empty() ? "none" : modes;
}

std::string LockTrace::HeldAt(HookPoint point) const {
  std::vector<std::string> all;
  for (const Event& event : events_) {
    if (event.point != point) continue;
    const std::string held =
        NameOf(event.mmu_lock) + (event.rcu ? "/rcu" : "/-");
    if (std::find(all.begin(), all.end(), held) == all.end()) {
      all.push_back(held);
    }
  }
  std::string text;
  for (const std::string& held : all) Append(text, held);
  return text;
}

}  // namespace mmu::testing
