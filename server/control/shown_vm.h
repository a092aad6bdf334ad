// A VM as the API shows it: values that are read from the VM at one time, for
// code that makes messages of them and works on no VM itself.

#ifndef SERVER_CONTROL_SHOWN_VM_H_
#define SERVER_CONTROL_SHOWN_VM_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/workload.h"
#include "server/base/labels.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"
#include "server/control/vcpu_pause.h"

namespace mmud {

// The properties of a VM that never change. Must not outlive the VM, since
// `config` refers to the VM's configuration.
struct VmFacts {
  std::string name;
  std::string uid;
  const mmu::VmConfig& config;  // as created
};
VmFacts FactsOf(const ManagedVm& vm);

// The properties that determine the VM's etag: the facts, and the settings that
// requests change.
struct VmSettings {
  VmFacts facts;
  uint64_t shadow_page_limit = 0;
  uint64_t eager_split_chunk_bytes = 0;
  std::vector<mmu::MemslotInfo> slots;  // ascending by address
  Labels labels;
};
VmSettings SettingsOf(const ManagedVm& vm);

struct ShownVcpus {
  bool paused = false;
  bool run_workload = false;
  bool wait_for_ring = false;  // one of them; only while they run a workload
};
ShownVcpus VcpusOf(const ManagedVm& vm);

struct ShownVm {
  ShownVm(VmSettings vm_settings, WallTime created)
      : settings(std::move(vm_settings)), create_time(created) {}

  VmSettings settings;
  WallTime create_time;
  // The logged memslots by their ids. Empty with SlotLogs::kLeaveOut.
  std::map<uint32_t, mmu::SlotLogView> slot_logs;
  bool deleting = false;
  uint64_t mapped_4k = 0;
  uint64_t mapped_2m = 0;
  uint64_t mapped_1g = 0;
  ShownVcpus vcpus;
  absl::optional<VcpuPause::State> pause;
  absl::optional<mmu::MonotonicTime> waiting_for_ring_since;
  absl::optional<mmu::GuestLoss> guest_loss;
  // The last workload, if it has ended.
  struct EndedWorkload {
    absl::Status error;  // OK unless it failed
    WallTime end_time;
  };
  absl::optional<EndedWorkload> ended_workload;
  absl::optional<mmu::DirtyLogState> log;  // without its slots
};

enum class SlotLogs : uint8_t { kRead, kLeaveOut };
ShownVm ShowVm(const ManagedVm& vm, SlotLogs logs);

}  // namespace mmud

#endif  // SERVER_CONTROL_SHOWN_VM_H_
