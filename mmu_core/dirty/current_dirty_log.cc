#include "mmu_core/dirty/current_dirty_log.h"

#include <cstdint>
#include <memory>
#include <utility>

namespace mmu {

DirtyLogView VmDirtyLog::View() const {
  DirtyLogView view;
  view.state = log.State();
  view.config = config;
  view.ttl = ttl;
  view.ttl_end = view.state.last_owner_call + ttl;
  return view;
}

std::shared_ptr<VmDirtyLog> CurrentDirtyLog::Get() const {
  MutexLock lock(mu_);
  return log_;
}

std::shared_ptr<VmDirtyLog> CurrentDirtyLog::GetOn() const {
  std::shared_ptr<VmDirtyLog> log = Get();
  return log != nullptr && log->log.is_on() ? log : nullptr;
}

std::shared_ptr<SlotLog> CurrentDirtyLog::FindSlot(uint32_t slot) const {
  const std::shared_ptr<VmDirtyLog> log = Get();
  return log == nullptr ? nullptr : log->log.Find(slot);
}

SlotLogConfig CurrentDirtyLog::ConfigOfSlots() const {
  const std::shared_ptr<VmDirtyLog> log = Get();
  return log == nullptr ? SlotLogConfig() : SlotLogConfig(log->config);
}

uint64_t CurrentDirtyLog::next_epoch() const {
  MutexLock lock(mu_);
  return next_epoch_;
}

void CurrentDirtyLog::Begin(std::shared_ptr<VmDirtyLog> log) {
  MutexLock lock(mu_);
  log_ = std::move(log);
}

void CurrentDirtyLog::End() {
  const std::shared_ptr<VmDirtyLog> log = Get();
  if (log == nullptr) return;
  // open_epoch() may wait for a seal; threads that only look up the log must
  // not wait.
  const uint64_t next = log->log.open_epoch() + 1;
  MutexLock lock(mu_);
  log_ = nullptr;
  next_epoch_ = next;
}

}  // namespace mmu
