#include "server/services/stats_service.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "google/protobuf/repeated_field.h"
#include "grpcpp/support/status.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"
#include "mmu_core/stats/vm_stats.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/control/vm_registry.h"
#include "server/convert/convert.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

using Statistics = google::protobuf::RepeatedPtrField<v1::MmuStatistic>;

v1::StatisticKind ToProto(mmu::CounterKind kind) {
  switch (kind) {
    case mmu::CounterKind::kCumulative:
      return v1::STATISTIC_KIND_CUMULATIVE;
    case mmu::CounterKind::kInstant:
      return v1::STATISTIC_KIND_INSTANT;
    case mmu::CounterKind::kPeak:
      return v1::STATISTIC_KIND_PEAK;
  }
  return v1::STATISTIC_KIND_UNSPECIFIED;
}

v1::StatisticUnit ToProto(mmu::CounterUnit unit) {
  switch (unit) {
    case mmu::CounterUnit::kCount:
      return v1::STATISTIC_UNIT_COUNT;
    case mmu::CounterUnit::kBytes:
      return v1::STATISTIC_UNIT_BYTES;
    case mmu::CounterUnit::kNanoseconds:
      return v1::STATISTIC_UNIT_NANOSECONDS;
  }
  return v1::STATISTIC_UNIT_UNSPECIFIED;
}

void Add(const std::string& name, v1::StatisticKind kind,
         v1::StatisticUnit unit, uint64_t value, Statistics* out) {
  v1::MmuStatistic* statistic = out->Add();
  statistic->set_name(name);
  statistic->set_kind(kind);
  statistic->set_unit(unit);
  statistic->set_value(static_cast<int64_t>(value));
}

// Whether the rows that count what only x86 has are left out.
enum class OnStage2 : uint8_t { kNo, kYes };

// The counters of the table that are listed.
template <typename Snapshot>
void AddRows(absl::Span<const mmu::CounterRow<Snapshot>> rows,
             const Snapshot& snapshot, OnStage2 on_stage2, Statistics* out) {
  for (const mmu::CounterRow<Snapshot>& row : rows) {
    if (row.in_statistics == mmu::InStatistics::kNo) continue;
    if (row.of_x86 && on_stage2 == OnStage2::kYes) continue;
    row.ForEach([&](const mmu::CounterIndex& index) {
      Add(row.NameAt(index), ToProto(row.kind), ToProto(row.unit),
          row.value(snapshot, index), out);
    });
  }
}

void Sort(Statistics* statistics) {
  std::sort(statistics->begin(), statistics->end(),
            [](const v1::MmuStatistic& a, const v1::MmuStatistic& b) {
              return a.name() < b.name();
            });
}

// Adds the statistics of the whole process, which no VM's statistics contain.
void AddProcess(Statistics* out) {
  AddRows(mmu::ProcessCounterRows(), mmu::Vm::ProcessStats(), OnStage2::kNo,
          out);
  Sort(out);
}

enum class PerVcpu : uint8_t { kNo, kYes };

void Describe(const ManagedVm& vm, PerVcpu per_vcpu, v1::VmMmuStats* out) {
  out->set_vm(vm.name());
  const OnStage2 on_stage2 =
      mmu::RunsOnStage2(vm.vm().config()) ? OnStage2::kYes : OnStage2::kNo;
  mmu::VmStatsSnapshot stats = vm.vm().Stats();
  if (per_vcpu == PerVcpu::kYes) {
    // The sum must equal the sum of the vCPUs listed below, so add up the same
    // snapshots.
    const std::vector<mmu::VcpuStatsSnapshot> vcpus = vm.vm().VcpuStats();
    stats.vcpus = mmu::VcpuStatsSnapshot();
    for (size_t i = 0; i < vcpus.size(); ++i) {
      stats.vcpus.Add(vcpus[i]);
      v1::VcpuMmuStats* vcpu = out->add_vcpus();
      vcpu->set_vcpu(static_cast<int32_t>(i));
      AddRows(mmu::VcpuCounterRows(), vcpus[i], on_stage2,
              vcpu->mutable_statistics());
      Sort(vcpu->mutable_statistics());
    }
  }
  AddRows(mmu::VmCounterRows(), stats, on_stage2, out->mutable_statistics());
  AddRows(mmu::VcpuCounterRows(), stats.vcpus, on_stage2,
          out->mutable_statistics());
  Sort(out->mutable_statistics());
}

// Adds the first `limit` of `vms`, or as many as fit into a message.
void AddPage(const std::vector<VmRegistry::Sight>& vms, size_t limit,
             PerVcpu per_vcpu, v1::GetMmuStatsResponse* response) {
  size_t seen = 0;
  for (size_t bytes = 0;
       seen < std::min(vms.size(), limit) && bytes < kMaxPageBytes; ++seen) {
    if (!vms[seen].use) continue;  // being deleted
    v1::VmMmuStats& stats = *response->add_vms();
    Describe(*vms[seen].use, per_vcpu, &stats);
    bytes += stats.ByteSizeLong();
  }
  if (seen < vms.size()) {
    response->set_next_page_token(MakePageToken("stats", vms[seen - 1].name));
  }
}

}  // namespace

StatsServiceImpl::StatsServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.StatsService", state.calls), state_(state) {
  Short("GetMmuStats", this, &StatsServiceImpl::GetMmuStats);
  CheckComplete();
}

grpc::Status StatsServiceImpl::GetMmuStats(
    CallContext*, const v1::GetMmuStatsRequest* request,
    v1::GetMmuStatsResponse* response) {
  const PerVcpu per_vcpu = request->per_vcpu() ? PerVcpu::kYes : PerVcpu::kNo;
  const absl::StatusOr<int> page_size = CheckPageSize(request->page_size());
  if (!page_size.ok()) return ToGrpcStatus(page_size.status());
  if (!request->vm().empty()) {
    const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
    if (!vm.ok()) return ToGrpcStatus(vm.status());
    if (absl::Status status = CheckOnePage(request->page_token());
        !status.ok()) {
      return ToGrpcStatus(status);
    }
    Describe(**vm, per_vcpu, response->add_vms());
    AddProcess(response->mutable_process_statistics());
    return grpc::Status::OK;
  }
  const absl::StatusOr<std::string> after =
      ParsePageToken("stats", request->page_token());
  if (!after.ok()) return ToGrpcStatus(after.status());
  const auto limit = static_cast<size_t>(*page_size);
  AddPage(state_.vms.List(*after, limit + 1), limit, per_vcpu, response);
  AddProcess(response->mutable_process_statistics());
  return grpc::Status::OK;
}

}  // namespace mmud
