// Converts between mmud.v1's messages about dirty logs and mmu_core's values.

#ifndef SERVER_CONVERT_DIRTY_LOG_CONVERT_H_
#define SERVER_CONVERT_DIRTY_LOG_CONVERT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/repeated_field.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/shown_vm.h"

namespace mmud {

// Nullopt if `log_id` is empty; INVALID_LOG_ID unless it has the form of a log
// id.
absl::StatusOr<absl::optional<mmu::LogId>> ToLogId(absl::string_view log_id);

// The memslot ids of a request, ascending; empty if it names none. Whether
// there are such memslots is not checked. INVALID_SLOT.
absl::StatusOr<std::vector<uint32_t>> ToSlotIds(
    const google::protobuf::RepeatedField<int32_t>& ids);

// A call of the owner at the current time. INVALID_OWNER_TOKEN, INVALID_LOG_ID.
absl::StatusOr<mmu::LogCall> ToLogCall(absl::string_view owner_token,
                                       absl::string_view log_id);
template <typename Request>
absl::StatusOr<mmu::LogCall> ToLogCall(const Request& request) {
  return ToLogCall(request.owner_token(), request.log_id());
}

// A caller's claim to own a log; a null `lease` means unset. INVALID_OWNER,
// INVALID_OWNER_TOKEN, INVALID_LEASE.
absl::StatusOr<mmu::LogClaim> ToLogClaim(
    absl::string_view owner, absl::string_view owner_token,
    const google::protobuf::Duration* lease);

// How a VM records dirty pages and detects writes; both are constant for a VM.
v1::DirtyLogMode ModeOf(const mmu::VmConfig& config);
v1::DirtyLogProtection ProtectionOf(const mmu::VmConfig& config);

v1::DirtyLogSplit ToProto(mmu::SplitPolicy split);
v1::UndeliveredPages ToProto(const mmu::UndeliveredCounts& counts);

// The log of a VM, without the counts of open pages.
v1::DirtyLog ToProto(const VmFacts& vm, const mmu::DirtyLogView& log);

// A memslot's state in the log. A slot that is not logged is shown as off.
v1::SlotDirtyLog ToProto(const mmu::SlotLogView& slot);
v1::SlotDirtyLog NoDirtyLogOf(uint32_t slot);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_CONVERT_H_
