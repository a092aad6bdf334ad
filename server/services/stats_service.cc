#include "server/services/stats_service.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/repeated_field.h"
#include "grpcpp/support/status.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/vm/inspect/vm_stats.h"
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

void Add(const std::string& name, v1::StatisticKind kind,
         v1::StatisticUnit unit, uint64_t value, Statistics* out) {
  v1::MmuStatistic* statistic = out->Add();
  statistic->set_name(name);
  statistic->set_kind(kind);
  statistic->set_unit(unit);
  statistic->set_value(static_cast<int64_t>(value));
}

void Count(const std::string& name, uint64_t value, Statistics* out) {
  Add(name, v1::STATISTIC_KIND_CUMULATIVE, v1::STATISTIC_UNIT_COUNT, value,
      out);
}

void Now(const std::string& name, uint64_t value, Statistics* out) {
  Add(name, v1::STATISTIC_KIND_INSTANT, v1::STATISTIC_UNIT_COUNT, value, out);
}

void Peak(const std::string& name, uint64_t value, Statistics* out) {
  Add(name, v1::STATISTIC_KIND_PEAK, v1::STATISTIC_UNIT_COUNT, value, out);
}

void AddVcpu(const mmu::VcpuStatsSnapshot& stats, Statistics* out) {
  Count("pf_taken", stats.pf_taken, out);
  Count("pf_fixed", stats.pf_fixed, out);
  Count("pf_emulate", stats.pf_emulate, out);
  Count("pf_spurious", stats.pf_spurious, out);
  Count("pf_fast", stats.pf_fast, out);
  Count("pf_mmio_spte_created", stats.pf_mmio_spte_created, out);
  Count("pf_guest", stats.pf_guest, out);
  Count("tlb_flush", stats.tlb_flush, out);
  Count("invlpg", stats.invlpg, out);
  Count("pf_retried", stats.pf_retried, out);
  Count("accesses", stats.accesses, out);
  Count("writes", stats.writes, out);
  Count("dirty_pages", stats.dirty_pages, out);
  for (int i = 0; i < mmu::kStallCauses; ++i) {
    Add("stall_" + std::string(mmu::ToString(static_cast<mmu::StallCause>(i))),
        v1::STATISTIC_KIND_CUMULATIVE, v1::STATISTIC_UNIT_NANOSECONDS,
        static_cast<uint64_t>(stats.stall_nanos[i]), out);
  }
}

void AddVm(const mmu::VmStatsSnapshot& stats, Statistics* out) {
  Count("remote_tlb_flush", stats.remote_tlb_flush, out);
  Count("remote_tlb_flush_requests", stats.remote_tlb_flush_requests, out);
  Count("mmu_shadow_zapped", stats.mmu_shadow_zapped, out);
  Count("mmu_pte_write", stats.mmu_pte_write, out);
  Count("mmu_pde_zapped", stats.mmu_pde_zapped, out);
  Count("mmu_flooded", stats.mmu_flooded, out);
  Count("mmu_recycled", stats.mmu_recycled, out);
  Count("mmu_cache_miss", stats.mmu_cache_miss, out);
  Now("mmu_unsync", stats.mmu_unsync, out);
  Now("mmu_shadow_pages", stats.mmu_shadow_pages, out);
  Now("pages_4k", stats.pages_4k, out);
  Now("pages_2m", stats.pages_2m, out);
  Now("pages_1g", stats.pages_1g, out);
  Now("nx_lpage_splits", stats.nx_lpage_splits, out);
  Peak("max_mmu_rmap_size", stats.max_mmu_rmap_size, out);
  Peak("max_mmu_page_hash_collisions", stats.max_mmu_page_hash_collisions, out);
  Now("table_pages", stats.table_pages, out);
  Now("shadow_page_limit", stats.shadow_page_limit, out);
  Add("guest_memory_bytes", v1::STATISTIC_KIND_INSTANT,
      v1::STATISTIC_UNIT_BYTES, static_cast<uint64_t>(stats.guest_memory_bytes),
      out);
}

void Sort(Statistics* statistics) {
  std::sort(statistics->begin(), statistics->end(),
            [](const v1::MmuStatistic& a, const v1::MmuStatistic& b) {
              return a.name() < b.name();
            });
}

void AddProcess(Statistics* out) {
  const mmu::TablePool::Use tables = mmu::TablePool::Process().Snapshot();
  Now("page_tables_in_use", tables.in_use, out);
  Now("page_tables_in_grace_period", tables.in_grace_period, out);
  Now("page_tables_limit", tables.max_tables, out);
  Count("page_table_waits", mmu::GracePeriodWaits(), out);
  Sort(out);
}

enum class PerVcpu : uint8_t { kNo, kYes };

void Describe(const ManagedVm& vm, PerVcpu per_vcpu, v1::VmMmuStats* out) {
  out->set_vm(vm.name());
  AddVm(vm.vm().Stats(), out->mutable_statistics());
  mmu::VcpuStatsSnapshot sum;
  const std::vector<mmu::VcpuStatsSnapshot> vcpus = vm.vm().VcpuStats();
  for (size_t i = 0; i < vcpus.size(); ++i) {
    sum.Add(vcpus[i]);
    if (per_vcpu == PerVcpu::kNo) continue;
    v1::VcpuMmuStats* stats = out->add_vcpus();
    stats->set_vcpu(static_cast<int32_t>(i));
    AddVcpu(vcpus[i], stats->mutable_statistics());
    Sort(stats->mutable_statistics());
  }
  AddVcpu(sum, out->mutable_statistics());
  Sort(out->mutable_statistics());
}

// The first `limit` of `vms`, or as many as a message has room for.
void AddPage(const std::vector<VmRegistry::Sight>& vms, size_t limit,
             PerVcpu per_vcpu, v1::GetMmuStatsResponse* response) {
  size_t seen = 0;
  for (size_t bytes = 0;
       seen < std::min(vms.size(), limit) && bytes < kMaxPageBytes; ++seen) {
    if (!vms[seen].use) continue;  // it is being deleted
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
