// Converts between mmud.v1.Vm, Memslot and mmu_core's configuration.

#ifndef SERVER_CONVERT_VM_CONVERT_H_
#define SERVER_CONVERT_VM_CONVERT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/control/shown_vm.h"
#include "server/control/vcpu_pause.h"

namespace mmud {

// `field` is the path of the message in the request, such as "vm". Does not
// check the rules that mmu_core checks.
absl::StatusOr<mmu::VmConfig> ToVmConfig(const v1::Vm& proto,
                                         absl::string_view vm_name,
                                         absl::string_view field);
absl::StatusOr<mmu::MemslotConfig> ToMemslotConfig(const v1::Memslot& proto,
                                                   absl::string_view vm_name,
                                                   absl::string_view field);
// An error that mmu_core found in a memslot of ToMemslotConfig or ToVmConfig,
// about the field of Memslot that is to blame.
absl::Status InMemslotFields(absl::Status status);

// With VM_VIEW_BASIC the memslots are left out. VM_VIEW_FULL needs their logs
// (SlotLogs::kRead).
v1::Vm ToProto(const ShownVm& vm, v1::VmView view);
// The view, or `unset` for VM_VIEW_UNSPECIFIED. INVALID_ENUM_VALUE.
absl::StatusOr<v1::VmView> ToView(v1::VmView view, v1::VmView unset);
v1::VcpuState VcpuStateOf(const ShownVcpus& vcpus);
v1::VcpuPause ToProto(const VcpuPause::State& pause);
// `log`: the slot's state in the VM's dirty log, if the slot is logged.
v1::Memslot ToProto(const mmu::MemslotInfo& slot, absl::string_view vm_name,
                    const absl::optional<mmu::SlotLogView>& log);

std::string EtagOf(const mmu::MemslotInfo& slot);
std::string EtagOf(const VmSettings& vm);

}  // namespace mmud

#endif  // SERVER_CONVERT_VM_CONVERT_H_
