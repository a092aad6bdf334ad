#include "server/services/debug_service.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/inspect/audit.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/convert/convert.h"
#include "server/convert/page_table_convert.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

constexpr size_t kMaxViolations = 1000;

absl::Status CheckEnabled(const DaemonState& state) {
  if (state.config.enable_debug_service) return absl::OkStatus();
  return ApiError(absl::StatusCode::kPermissionDenied,
                  mmu::Reason::kDebugDisabled,
                  "the debug service is off; start the daemon with "
                  "--enable_debug_service");
}

}  // namespace

DebugServiceImpl::DebugServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.DebugService", state.calls), state_(state) {
  Long("RunAudit", this, &DebugServiceImpl::RunAudit);
  Long("ListPageTables", this, &DebugServiceImpl::ListPageTables);
  CheckComplete();
}

grpc::Status DebugServiceImpl::RunAudit(CallContext*,
                                        const v1::RunAuditRequest* request,
                                        v1::RunAuditResponse* response) {
  if (absl::Status status = CheckEnabled(state_); !status.ok()) {
    return ToGrpcStatus(status);
  }
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  mmu::MmuCost cost;
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const mmu::AuditReport report = (*vm)->vm().Audit();
  cost.wall = mmu::MonotonicTime::Now() - start;
  for (size_t i = 0; i < std::min(report.violations.size(), kMaxViolations);
       ++i) {
    response->add_violations(report.violations[i]);
  }
  response->set_violation_count(static_cast<int64_t>(report.violations.size()));
  response->set_checked_table_count(
      static_cast<int64_t>(report.tables_checked));
  response->set_checked_leaf_count(static_cast<int64_t>(report.leafs_checked));
  response->set_checked_tlb_entry_count(
      static_cast<int64_t>(report.tlb_entries_checked));
  *response->mutable_cost() = ToProto(cost);
  return grpc::Status::OK;
}

grpc::Status DebugServiceImpl::ListPageTables(
    CallContext*, const v1::ListPageTablesRequest* request,
    v1::ListPageTablesResponse* response) {
  if (absl::Status status = CheckEnabled(state_); !status.ok()) {
    return ToGrpcStatus(status);
  }
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  const absl::StatusOr<int> page_size = CheckPageSize(request->page_size());
  if (!page_size.ok()) return ToGrpcStatus(page_size.status());
  const absl::StatusOr<mmu::ShadowPagePosition> from =
      ToShadowPagePosition(request->page_token());
  if (!from.ok()) return ToGrpcStatus(from.status());
  const absl::StatusOr<mmu::ShadowPageFilter> filter =
      ToShadowPageFilter(*request);
  if (!filter.ok()) return ToGrpcStatus(filter.status());
  const mmu::ShadowPageListing listing = (*vm)->vm().ListShadowPages(
      *filter, *from, static_cast<size_t>(*page_size));
  for (const mmu::ShadowPageInfo& page : listing.pages) {
    *response->add_tables() = ToProto(page);
  }
  if (listing.next.has_value()) {
    response->set_next_page_token(MakeShadowPageToken(*listing.next));
  }
  return grpc::Status::OK;
}

}  // namespace mmud
