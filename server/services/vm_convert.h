// Between mmud.v1.Vm, Memslot and mmu_core's configuration.

#ifndef SERVER_SERVICES_VM_CONVERT_H_
#define SERVER_SERVICES_VM_CONVERT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/vm/vm_config.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/managed_vm.h"

namespace mmud {

// `field` is the path of the message in the request, such as "vm". What
// mmu_core checks itself is left to it.
absl::StatusOr<mmu::VmConfig> ToVmConfig(const v1::Vm& proto,
                                         absl::string_view vm_name,
                                         absl::string_view field);
absl::StatusOr<mmu::MemslotConfig> ToMemslotConfig(const v1::Memslot& proto,
                                                   absl::string_view vm_name,
                                                   absl::string_view field);

v1::Vm ToProto(const ManagedVm& vm);
v1::VcpuState VcpuStateOf(const ManagedVm& vm);
// `log` may be null: the slot does not log.
v1::Memslot ToProto(const mmu::MemslotInfo& slot, absl::string_view vm_name,
                    const mmu::DirtyLogInfo* log);
v1::SlotDirtyLog ToProto(const mmu::DirtyLogInfo& log);
v1::DirtyLogSplit ToProto(mmu::SplitPolicy split);

// The log of `slot` in `logs`, which are in the order of slots; or null.
const mmu::DirtyLogInfo* FindLog(const std::vector<mmu::DirtyLogInfo>& logs,
                                 uint32_t slot);

std::string EtagOf(const mmu::MemslotInfo& slot);
std::string EtagOf(const ManagedVm& vm);

}  // namespace mmud

#endif  // SERVER_SERVICES_VM_CONVERT_H_
