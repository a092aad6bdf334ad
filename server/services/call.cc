#include "server/services/call.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/log_owner.h"
#include "server/base/errors.h"
#include "server/base/owner_token.h"
#include "server/base/resource_names.h"
#include "server/rpc/call_context.h"

namespace mmud {
namespace {

using google::protobuf::FieldDescriptor;

// Replaces the owner's token, if the message has one, by its hash.
void HideOwnerToken(google::protobuf::Message* message) {
  const FieldDescriptor* const field =
      message->GetDescriptor()->FindFieldByName("owner_token");
  if (field == nullptr) return;
  const google::protobuf::Reflection* const reflection =
      message->GetReflection();
  const mmu::OwnerKey key = Sha256(reflection->GetString(*message, field));
  reflection->SetString(message, field,
                        std::string(key.bytes.begin(), key.bytes.end()));
}

}  // namespace

absl::Status CheckCaller(const CallContext& context) {
  if (context.deadline() < mmu::MonotonicTime::Now()) {
    return ApiError(absl::StatusCode::kDeadlineExceeded,
                    mmu::Reason::kCallCancelled,
                    "the deadline of the call passed");
  }
  if (context.IsCancelled()) {
    return ApiError(absl::StatusCode::kCancelled, mmu::Reason::kCallCancelled,
                    "the call was cancelled");
  }
  return absl::OkStatus();
}

absl::Status CheckVmCall(const CallContext& context, const ManagedVm& vm) {
  // The deletion is checked first: a caller that has left does not see the
  // status.
  if (vm.deleting()) return VmDeleted(vm.name());
  return CheckCaller(context);
}

absl::Status CheckStream(const CallContext& context, const DaemonState& state,
                         const ManagedVm& vm) {
  if (absl::Status status = CheckVmCall(context, vm); !status.ok()) {
    return status;
  }
  if (state.drain.is_draining()) return DrainingError();
  return absl::OkStatus();
}

std::string FingerprintOf(absl::string_view method,
                          const google::protobuf::Message& request) {
  const std::unique_ptr<google::protobuf::Message> canonical(request.New());
  canonical->CopyFrom(request);
  HideOwnerToken(canonical.get());
  std::string bytes = absl::StrCat(method, "\n");
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  canonical->SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

absl::StatusOr<VmUse> FindVm(DaemonState& state, absl::string_view name,
                             absl::string_view field) {
  if (absl::Status status = CheckVmName(name, field); !status.ok()) {
    return status;
  }
  return state.vms.Find(name);
}

// Finds the memslots that a call names, as FindVm finds its VM, so the error
// has the memslot's resource name. If a memslot is deleted later, mmu_core says
// that it does not exist.
absl::Status CheckSlots(const ManagedVm& vm,
                        const std::vector<uint32_t>& slots) {
  for (const uint32_t slot : slots) {
    if (!vm.FindSlot(slot).has_value()) {
      return MemslotNotFound(MakeMemslotName(vm.name(), slot));
    }
  }
  return absl::OkStatus();
}

}  // namespace mmud
