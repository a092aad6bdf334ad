// The common part of all adapters: check that the caller is still there, refuse
// new work while draining, answer repeated requests from memory, and convert a
// status to gRPC's.

#ifndef SERVER_SERVICES_CALL_H_
#define SERVER_SERVICES_CALL_H_

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/status.h"
#include "server/base/errors.h"
#include "server/base/request_id_cache.h"
#include "server/base/status_mapping.h"
#include "server/base/uuid.h"
#include "server/rpc/call_context.h"
#include "server/services/daemon_state.h"

namespace mmud {

// CANCELLED or DEADLINE_EXCEEDED with CALL_CANCELLED if the call was cancelled
// or its deadline passed.
absl::Status CheckCaller(const CallContext& context);

// CheckCaller for a call that works on `vm` for a while, step by step: also
// VM_DELETED once the VM is being deleted. A deletion waits for the call.
absl::Status CheckVmCall(const CallContext& context, const ManagedVm& vm);

// OK if a stream may go on: as CheckVmCall, and the daemon is not draining.
absl::Status CheckStream(const CallContext& context, const DaemonState& state,
                         const ManagedVm& vm);

// Everything that makes two requests of one method the same, independent of the
// spelling of their request_id. Contains the hash of an owner's token, not the
// token.
std::string FingerprintOf(absl::string_view method,
                          const google::protobuf::Message& request);
template <typename Request>
std::string Fingerprint(absl::string_view method, const Request& request) {
  const std::string id = CanonicalUuid(request.request_id());
  if (request.request_id() == id) return FingerprintOf(method, request);
  Request canonical = request;
  canonical.set_request_id(id);
  return FingerprintOf(method, canonical);
}

// The effect of a drain on a mutation: calls that begin work are refused, calls
// that end or acknowledge work are not.
enum class WhileDraining : uint8_t { kRefuse, kAllow };

// Calls `compute`, with `turn` or without arguments, and returns its answer.
// Before that, returns DRAINING and the errors of CheckCaller.
template <typename Response, typename Compute>
absl::StatusOr<Response> ComputeIfAllowed(const DaemonState& state,
                                          const CallContext& context,
                                          WhileDraining draining,
                                          const Compute& compute,
                                          RequestIdCache::SharedTurn turn) {
  if (draining == WhileDraining::kRefuse && state.drain.is_draining()) {
    return DrainingError();
  }
  if (absl::Status status = CheckCaller(context); !status.ok()) return status;
  if constexpr (std::is_invocable_v<const Compute&,
                                    RequestIdCache::SharedTurn>) {
    return compute(std::move(turn));
  } else {
    return compute();
  }
}

// Runs `compute`, which returns absl::StatusOr<Response>, at most once per
// request_id. `compute` may take a RequestIdCache::SharedTurn for work that
// goes on after its caller's deadline: at its end that work gives the turn the
// serialised response. All other work that `compute` begins has ended when it
// returns.
template <typename Request, typename Response, typename Compute>
grpc::Status Mutate(DaemonState& state, const CallContext& context,
                    absl::string_view method, WhileDraining draining,
                    const Request& request, Response* response,
                    const Compute& compute) {
  state.call_log.NoteRequest(context.id(), request);
  const absl::StatusOr<std::string> answer = state.request_ids.RunWithTurn(
      request.request_id(),
      request.request_id().empty() ? std::string()
                                   : Fingerprint(method, request),
      [&context] { return CheckCaller(context); },
      [&](RequestIdCache::SharedTurn turn) -> absl::StatusOr<std::string> {
        absl::StatusOr<Response> computed = ComputeIfAllowed<Response>(
            state, context, draining, compute, std::move(turn));
        if (!computed.ok()) return computed.status();
        if (request.request_id().empty()) {
          *response = *std::move(computed);
          return std::string();
        }
        return computed->SerializeAsString();
      });
  if (!answer.ok()) return ToGrpcStatus(answer.status());
  if (!request.request_id().empty()) response->ParseFromString(*answer);
  state.call_log.NoteResponse(context.id(), *response);
  return grpc::Status::OK;
}

// Moves a computed answer into `response`.
template <typename Response>
grpc::Status Answer(absl::StatusOr<Response> computed, Response* response) {
  if (!computed.ok()) return ToGrpcStatus(computed.status());
  *response = *std::move(computed);
  return grpc::Status::OK;
}

// Finds a VM by name: INVALID_NAME, VM_NOT_FOUND.
absl::StatusOr<VmUse> FindVm(DaemonState& state, absl::string_view name,
                             absl::string_view field);

// MEMSLOT_NOT_FOUND unless `vm` has each of these memslots.
absl::Status CheckSlots(const ManagedVm& vm,
                        const std::vector<uint32_t>& slots);

}  // namespace mmud

#endif  // SERVER_SERVICES_CALL_H_
