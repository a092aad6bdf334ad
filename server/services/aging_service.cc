#include "server/services/aging_service.h"

#include <utility>

#include "absl/status/statusor.h"
#include "grpcpp/support/status.h"
#include "mmu_core/aging/aging.h"
#include "server/base/errors.h"
#include "server/control/age_ranges.h"
#include "server/convert/aging_convert.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {

AgingServiceImpl::AgingServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.AgingService", state.calls), state_(state) {
  Long("AgeRange", this, &AgingServiceImpl::AgeRange);
  CheckComplete();
}

grpc::Status AgingServiceImpl::AgeRange(CallContext* context,
                                        const v1::AgeRangeRequest* request,
                                        v1::AgeRangeResponse* response) {
  return Mutate(state_, *context, "AgeRange", WhileDraining::kAllow, *request,
                response, [&] { return Age(*context, *request); });
}

absl::StatusOr<v1::AgeRangeResponse> AgingServiceImpl::Age(
    const CallContext& context, const v1::AgeRangeRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<AgePlan> plan = ToAgePlan(request, (*vm)->SortedSlots());
  if (!plan.ok()) return plan.status();
  absl::StatusOr<AgedRanges> aged =
      AgeRanges(**vm, *plan,
                {.keep_going = [&] { return CheckVmCall(context, **vm); },
                 .part_done =
                     [&] {
                       // A test changes nothing.
                       if (plan->mode == mmu::AgeMode::kTest) return;
                       state_.call_log.NotePartDone(context.id());
                     }});
  if (!aged.ok()) return InFields(aged.status(), {{"range", "ranges"}});
  return ToResponse((*vm)->vm().MmuKinds(), *plan, *std::move(aged));
}

}  // namespace mmud
