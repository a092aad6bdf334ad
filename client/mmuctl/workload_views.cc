#include "client/mmuctl/workload_views.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "google/protobuf/duration.pb.h"

namespace mmud::client {
namespace {

std::string ViewTime(const google::protobuf::Duration& duration) {
  return FormatTime(FromProto(duration));
}

}  // namespace

WorkloadView ViewWorkload(const lab::v1::Workload& workload) {
  const lab::v1::WorkloadStatistics& statistics = workload.statistics();
  WorkloadView view;
  view.vm = workload.name().substr(0, workload.name().find("/workloads/"));
  view.share =
      workload.state() == lab::v1::WORKLOAD_STATE_COMPLETED
          ? 1.0
          : ShareOf(static_cast<double>(statistics.access_count()),
                    static_cast<double>(workload.total_access_count()));
  view.words = absl::StrCat(
      FormatCount(statistics.access_count()), " accesses, ",
      FormatCount(statistics.write_count()), " writes, ",
      FormatCount(statistics.stalls().observation_count()), " stalls");
  view.state = ShortName(lab::v1::WorkloadState_Name(workload.state()),
                         "WORKLOAD_STATE_");
  if (workload.has_error()) {
    absl::StrAppend(&view.state, ": ", workload.error().message());
  }
  return view;
}

std::string ViewWorkloadDetails(const lab::v1::Workload& workload) {
  const WorkloadView view = ViewWorkload(workload);
  const lab::v1::WorkloadStatistics& statistics = workload.statistics();
  const lab::v1::FaultCounts& faults = statistics.faults();
  KeyValues values;
  values.Add("name", workload.name());
  values.Add("state", view.state);
  values.Add("vCPUs", absl::StrCat(workload.vcpu_count()));
  values.Add("started", FormatWallTime(FromProto(workload.start_time())));
  values.Add(workload.has_end_time() ? "took" : "running for",
             ViewTime(workload.running_time()));
  if (view.share) values.Add("progress", FormatShare(*view.share, 1));
  values.Add("accesses",
             absl::StrCat(FormatCount(statistics.access_count()), ", ",
                          FormatCount(statistics.write_count()), " writes"));
  values.Add("faults",
             absl::StrCat(FormatCount(faults.fixed_count()), " fixed, ",
                          FormatCount(faults.fast_count()), " fast, ",
                          FormatCount(faults.spurious_count()), " spurious, ",
                          FormatCount(faults.retry_count()), " retried, ",
                          FormatCount(faults.emulate_count()), " emulated, ",
                          FormatCount(faults.error_count()), " errors"));
  values.Add(
      "stalls",
      absl::StrCat(FormatCount(statistics.stalls().observation_count()), ", ",
                   ViewTime(statistics.stalls().total()), " in all"));
  return values.ToString();
}

std::string ViewWorkloads(const lab::v1::ListWorkloadsResponse& list) {
  Table table({{"VM"},
               {"STARTED"},
               {"TOOK", Align::kRight},
               {"DONE", Align::kRight},
               {"STATE"},
               {"PROGRESS"}});
  for (const lab::v1::Workload& workload : list.workloads()) {
    const WorkloadView view = ViewWorkload(workload);
    table.AddRow({view.vm, FormatWallTime(FromProto(workload.start_time())),
                  ViewTime(workload.running_time()),
                  view.share ? FormatShare(*view.share, 1) : "", view.state,
                  view.words});
  }
  return table.ToString();
}

}  // namespace mmud::client
