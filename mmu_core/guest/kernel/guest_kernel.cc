// Processes and CPUs. The memory of the running process:
// guest_kernel_memory.cc.

#include "mmu_core/guest/kernel/guest_kernel.h"

#include <algorithm>
#include <string>

#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"
#include "mmu_core/guest/kernel/kernel_section.h"

namespace mmu {

GuestKernel::GuestKernel(GuestCpu& cpu, const GpaSpace& memory,
                         const GuestKernelOptions& options)
    : state_(std::make_shared<KernelState>(cpu, memory, options)),
      cpu_(cpu, options.geometry) {}

GuestKernel::GuestKernel(GuestCpu& cpu, const GuestKernel& first)
    : state_(first.state_), cpu_(cpu, first.state_->options.geometry) {}

absl::Status GuestKernel::Boot() {
  const Section section(*this);
  if (!section.status().ok()) return section.status();
  if (state_->processes.empty()) {
    if (absl::Status s = BootFirst(); !s.ok()) {
      state_->processes.clear();
      return s;
    }
  } else {
    cpu_.Start(*state_->processes.begin()->second);
  }
  state_->online.push_back(&cpu_);
  return state_->memory.status();
}

absl::Status GuestKernel::BootFirst() {
  const PagingGeometry& geometry = state_->options.geometry;
  uint64_t end = 0;
  for (const GfnRange& range : state_->space.ranges()) {
    end = std::max(end, ToGpa(range.end).value());
  }
  if (end == 0 || end > geometry.max_memory_bytes) {
    return absl::InvalidArgumentError(Format(
        "the guest's memory ends at 0x%x; with %s paging its kernel needs some "
        "and can map 0x%x bytes",
        end, std::string(geometry.name), geometry.max_memory_bytes));
  }
  absl::StatusOr<GuestProcess*> first = NewProcess();
  if (!first.ok()) return first.status();
  if (absl::Status s = MapKernel((*first)->tables); !s.ok()) return s;
  cpu_.Start(**first);
  state_->memory.SetDirectMap(geometry.direct_map);
  return absl::OkStatus();
}

// Maps all guest-physical memory with large pages, for the supervisor only.
absl::Status GuestKernel::MapKernel(GuestPageTables& tables) {
  const PagingGeometry& geometry = state_->options.geometry;
  const uint64_t step = geometry.LargePageBytes();
  for (const GfnRange& range : state_->space.ranges()) {
    const uint64_t start = ToGpa(range.start).value() & ~(step - 1);
    for (uint64_t gpa = start; gpa < ToGpa(range.end).value(); gpa += step) {
      if (!tables.Set(geometry.direct_map + gpa, 2,
                      gpa | gpte::kPresent | gpte::kWrite | gpte::kPageSize |
                          gpte::kAccessed | gpte::kDirty)) {
        return Exhausted();
      }
    }
  }
  return state_->memory.status();
}

void GuestKernel::GoOffline() {
  if (cpu_.running() == 0) return;
  // Others may wait for this CPU, so it goes on waiting even if it is to stop.
  while (!state_->lock.TryLock()) {
    cpu_.TakeInterrupts();
    static_cast<void>(cpu_.cpu().Relax());
  }
  cpu_.TakeInterrupts();
  cpu_.Stop();
  state_->online.erase(
      std::find(state_->online.begin(), state_->online.end(), &cpu_));
  state_->lock.Unlock();
}

absl::StatusOr<GuestProcess*> GuestKernel::NewProcess() {
  auto process = std::make_unique<GuestProcess>(state_->next_process,
                                                state_->options.geometry,
                                                state_->memory, state_->frames);
  if (!process->tables.Create()) return Exhausted();
  if (cpu_.running() != 0) {
    process->tables.ShareFrom(tables(), state_->options.geometry.direct_map);
  }
  GuestProcess* const made = process.get();
  state_->processes[state_->next_process++] = std::move(process);
  return made;
}

absl::StatusOr<int> GuestKernel::CreateProcess() {
  const Section section(*this);
  if (!section.status().ok()) return section.status();
  const absl::StatusOr<GuestProcess*> process = NewProcess();
  if (!process.ok()) return process.status();
  if (!state_->memory.status().ok()) return state_->memory.status();
  return (*process)->id;
}

absl::StatusOr<int> GuestKernel::Fork() {
  const Section section(*this);
  if (!section.status().ok()) return section.status();
  return ForkRunning();
}

absl::StatusOr<int> GuestKernel::ForkRunning() {
  const absl::StatusOr<GuestProcess*> child = NewProcess();
  if (!child.ok()) return child.status();
  GuestPageTables& parent = tables();
  bool enough = true;
  parent.ForEachLeaf(
      state_->options.geometry.user_end, [&](Gva gva, const GuestPte& pte) {
        uint64_t value = pte.value & ~(gpte::kAccessed | gpte::kDirty);
        if ((value & gpte::kWrite) != 0) {
          value = (value & ~gpte::kWrite) | gpte::kCopyOnWrite;
          parent.Store(pte,
                       value | (pte.value & (gpte::kAccessed | gpte::kDirty)));
        }
        if (!enough || !(*child)->tables.Set(gva, pte.level, value)) {
          enough = false;
          return;
        }
        for (uint64_t i = 0; i < FramesOf(pte); ++i) {
          state_->frames.AddReference(pte.gfn() + i);
        }
      });
  // CPUs may still have writable translations of the shared pages.
  Change change;
  change.stale.AddEverything();
  if (absl::Status s = Finish(change); !s.ok()) return s;
  if (!state_->memory.status().ok()) return state_->memory.status();
  const int id = (*child)->id;
  if (!enough) {
    if (absl::Status s = ExitProcess(id); !s.ok()) return s;
    return Exhausted();
  }
  return id;
}

absl::Status GuestKernel::SwitchTo(int process, Cr3Load how) {
  const Section section(*this);
  if (!section.status().ok()) return section.status();
  const auto it = state_->processes.find(process);
  if (it == state_->processes.end()) {
    return absl::InvalidArgumentError(
        Format("there is no process %d", process));
  }
  ++stats_.context_switches;
  cpu_.Run(*it->second, how);
  return state_->memory.status();
}

bool GuestKernel::RunsSomewhere(int process) const {
  return std::any_of(
      state_->online.begin(), state_->online.end(),
      [&](const KernelCpu* cpu) { return cpu->running() == process; });
}

absl::Status GuestKernel::Exit(int process) {
  const Section section(*this);
  if (!section.status().ok()) return section.status();
  if (state_->processes.count(process) == 0) {
    return absl::InvalidArgumentError(
        Format("process %d does not exist", process));
  }
  if (RunsSomewhere(process)) {
    return absl::FailedPreconditionError(
        Format("process %d is running; switch to another first, on each CPU",
               process));
  }
  return ExitProcess(process);
}

// CPUs may have translations of the process under a PCID. They cannot use them:
// a PCID is loaded for another process only after everything was dropped
// (kernel_cpu.h).
absl::Status GuestKernel::ExitProcess(int process) {
  GuestPageTables& tables = state_->processes.at(process)->tables;
  const Gva end = state_->options.geometry.user_end;
  tables.ForEachLeaf(end, [this](Gva, const GuestPte& pte) {
    for (uint64_t i = 0; i < FramesOf(pte); ++i) {
      state_->frames.Drop(pte.gfn() + i);
    }
  });
  tables.Destroy(end);
  state_->processes.erase(process);
  return state_->memory.status();
}

absl::Status GuestKernel::Finish(const Change& change) {
  if (!change.stale.empty()) {
    if (absl::Status s = Shootdown(change.stale); !s.ok()) return s;
  }
  for (const auto& [first, count] : change.freed) {
    for (uint64_t i = 0; i < count; ++i) state_->frames.Drop(first + i);
  }
  return absl::OkStatus();
}

// The lock is held from the change of the tables to the last acknowledgement.
// So no CPU switches to the process or from it in between, and none waits for
// acknowledgements besides this one.
absl::Status GuestKernel::Shootdown(const TlbInvalidation& what) {
  GuestProcess& process = Running();
  ++process.tlb_gen;
  cpu_.Invalidate(process, what);
  bool interrupts = false;
  for (KernelCpu* other : state_->online) {
    if (other == &cpu_) continue;
    const bool must =
        other->running() == process.id ||
        (state_->options.cached == GuestKernelOptions::Cached::kInterrupt &&
         other->HasCached(process.id));
    if (!must) continue;
    interrupts = true;
    state_->unacknowledged.fetch_add(1, std::memory_order_relaxed);
    other->Interrupt(process, what, &state_->unacknowledged);
  }
  stats_.shootdowns += interrupts;
  while (state_->unacknowledged.load(std::memory_order_acquire) != 0) {
    if (cpu_.cpu().Relax()) continue;
    state_->failure = cpu_.cpu().status();
    return state_->failure;
  }
  return absl::OkStatus();
}

absl::Status GuestKernel::Exhausted() const {
  // A failed access of the host must not be reported as exhausted memory.
  if (!state_->memory.status().ok()) return state_->memory.status();
  return absl::ResourceExhaustedError(
      "the guest's memory is used up; give it more, or let processes exit");
}

}  // namespace mmu
