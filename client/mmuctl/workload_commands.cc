// mmuctl workload start, list, status, stop.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/watch.h"
#include "client/mmuctl/workload_views.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

enum class Pattern { kNone, kSequential, kUniform, kZipf, kHotCold };

struct StartArguments {
  std::string vm;
  Pattern pattern = Pattern::kNone;
  std::vector<GpaRange> ranges;
  absl::Duration duration = absl::ZeroDuration();
  int32_t vcpus = 0;
  int64_t rate = 0;
  int64_t count = 0;
  int64_t seed = 0;
  double write_fraction = 0.3;
  int64_t stride_bytes = 0;
  double exponent = 0;
  double hot_fraction = 0;
  double hot_access_fraction = 0;
  int64_t drift = 0;
  std::string trace;
  int64_t repeat = 0;
  lab::v1::PagePlacement placement = lab::v1::PAGE_PLACEMENT_UNSPECIFIED;
  bool watch = false;
};

void FillPattern(const StartArguments& arguments,
                 lab::v1::AccessPattern* pattern) {
  pattern->set_write_fraction(arguments.write_fraction);
  switch (arguments.pattern) {
    case Pattern::kNone:
      break;
    case Pattern::kSequential:
      pattern->mutable_sequential()->set_stride_bytes(arguments.stride_bytes);
      break;
    case Pattern::kUniform:
      pattern->mutable_uniform();
      break;
    case Pattern::kZipf:
      pattern->mutable_zipf()->set_exponent(arguments.exponent);
      break;
    case Pattern::kHotCold: {
      lab::v1::HotColdPattern& hot_cold = *pattern->mutable_hot_cold();
      hot_cold.set_hot_fraction(arguments.hot_fraction);
      hot_cold.set_hot_access_fraction(arguments.hot_access_fraction);
      hot_cold.set_drift_pages_per_million_accesses(arguments.drift);
      break;
    }
  }
  if (!arguments.ranges.empty()) {
    *pattern->mutable_extent() = ToExtent(arguments.ranges.front());
  }
}

// Shows the workload's progress until it has ended, then prints it. Returns the
// error of the workload.
absl::Status WatchWorkload(Context& context, Client& client,
                           const lab::v1::Workload& started) {
  const std::string& name = started.name();
  lab::v1::Workload workload;
  const absl::Status status = WatchWork(
      context, name,
      absl::StrCat("workload stop ",
                   absl::StripPrefix(ViewWorkload(started).vm, "vms/")),
      [&](absl::Duration limit, ShowWork show) {
        const auto ended = client.workloads().AwaitEnd(
            name,
            [&](const lab::v1::Workload& state) {
              const WorkloadView view = ViewWorkload(state);
              const bool has_ended =
                  state.state() != lab::v1::WORKLOAD_STATE_RUNNING;
              show({.title = "workload",
                    .share = view.share,
                    .words = has_ended
                                 ? absl::StrCat(view.state, ", ", view.words)
                                 : view.words,
                    .ended = has_ended});
              return absl::OkStatus();
            },
            limit);
        if (ended.ok()) workload = *ended;
        return ended.status();
      });
  if (!status.ok()) return status;
  if (absl::Status printed =
          context.Print(workload, ViewWorkloadDetails(workload));
      !printed.ok()) {
    return printed;
  }
  return FromRpcStatus(workload.error());
}

// Prints the workload, or watches it.
absl::Status ShowWorkload(Context& context, Client& client,
                          const lab::v1::Workload& workload, Watch watch) {
  if (watch == Watch::kYes) return WatchWorkload(context, client, workload);
  return context.Print(workload, ViewWorkloadDetails(workload));
}

absl::Status Start(Context& context, const StartArguments& arguments) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  lab::v1::StartWorkloadRequest request;
  request.set_vm(arguments.vm);
  lab::v1::Workload& workload = *request.mutable_workload();
  workload.set_vcpu_count(arguments.vcpus);
  workload.set_max_accesses_per_second(arguments.rate);
  workload.set_access_count(arguments.count);
  workload.set_seed(arguments.seed);
  if (arguments.duration > absl::ZeroDuration()) {
    *workload.mutable_max_duration() = ToProto(arguments.duration);
  }
  if (arguments.trace.empty()) {
    FillPattern(arguments, workload.mutable_pattern());
  } else {
    lab::v1::TraceReplay& trace = *workload.mutable_trace();
    trace.set_trace_name(arguments.trace);
    trace.set_repeat_count(arguments.repeat);
    trace.set_placement(arguments.placement);
    if (!arguments.ranges.empty()) {
      *trace.mutable_extent() = ToExtent(arguments.ranges.front());
    }
  }
  const auto started = (*client)->workloads().StartWorkload(request);
  if (!started.ok()) return started.status();
  return ShowWorkload(context, **client, started->workload(),
                      arguments.watch ? Watch::kYes : Watch::kNo);
}

absl::Status List(Context& context, Client& client,
                  const lab::v1::ListWorkloadsRequest& first) {
  lab::v1::ListWorkloadsRequest request = first;
  lab::v1::ListWorkloadsResponse all;
  do {
    const auto page = client.workloads().ListWorkloads(request);
    if (!page.ok()) return page.status();
    all.mutable_workloads()->MergeFrom(page->workloads());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return context.Print(all, ViewWorkloads(all));
}

// The newest workload of `vm`. It has no name if `vm` has had no workload.
// VM_NOT_FOUND.
absl::StatusOr<lab::v1::Workload> WorkloadOf(Client& client,
                                             const std::string& vm) {
  lab::v1::ListWorkloadsRequest request;
  request.set_vm(vm);
  const auto list = client.workloads().ListWorkloads(request);
  if (!list.ok()) return list.status();
  if (list->workloads().empty()) return lab::v1::Workload();
  return list->workloads(0);
}

struct StatusArguments {
  std::string vm;
  bool watch = false;
};

absl::Status ShowStatus(Context& context, Client& client,
                        const StatusArguments& arguments) {
  const absl::StatusOr<lab::v1::Workload> workload =
      WorkloadOf(client, arguments.vm);
  if (!workload.ok()) return workload.status();
  if (workload->name().empty()) {
    return absl::NotFoundError(
        absl::StrCat(arguments.vm,
                     " has no workload; start one with mmuctl "
                     "workload start"));
  }
  return ShowWorkload(context, client, *workload,
                      arguments.watch ? Watch::kYes : Watch::kNo);
}

// The error for a VM that has run no workload. It has the reason with which the
// daemon refuses to stop a workload that has ended.
absl::Status NeverRan(const std::string& vm) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  status.set_message(absl::StrCat(vm, " has run no workload"));
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(v1::WORKLOAD_NOT_RUNNING));
  info.set_domain("mmud");
  status.add_details()->PackFrom(info);
  return FromRpcStatus(status);
}

absl::Status Stop(Context& context, Client& client, const std::string& vm) {
  const absl::StatusOr<lab::v1::Workload> workload = WorkloadOf(client, vm);
  if (!workload.ok()) return workload.status();
  if (workload->name().empty()) return NeverRan(vm);
  lab::v1::StopWorkloadRequest request;
  request.set_name(workload->name());
  const auto stopped = client.workloads().StopWorkload(request);
  if (!stopped.ok()) return stopped.status();
  return ShowWorkload(context, client, stopped->workload(), Watch::kNo);
}

void AddStart(CLI::App& group, Context& context) {
  auto a = std::make_shared<StartArguments>();
  CLI::App* command = AddCommand(
      group, "start",
      "Runs a synthetic pattern, or the trace of a real program, on the vCPUs.",
      "mmuctl workload start alpha --trace sort.trace --repeat 100 --watch\n"
      "mmuctl workload start alpha --pattern zipf --write-fraction 0.5 "
      "--rate 100000 --duration 30s\n"
      "mmuctl workload start alpha --pattern sequential --range 0+1GiB "
      "--write-fraction 1 --count 262144");
  AddVm(command, &a->vm);
  CLI::Option* pattern = AddChoice(command, "--pattern", &a->pattern,
                                   {{"sequential", Pattern::kSequential},
                                    {"uniform", Pattern::kUniform},
                                    {"zipf", Pattern::kZipf},
                                    {"hot-cold", Pattern::kHotCold}},
                                   "a synthetic pattern");
  CLI::Option* trace =
      command->add_option("--trace", a->trace,
                          "a recorded trace, named relative to the daemon's "
                          "--trace-dir");
  trace->excludes(pattern);
  command->add_option("--vcpus", a->vcpus, "vCPUs to use (default: all)");
  AddRanges(command, "--range", &a->ranges,
            "the memory to use (default: all of it)")
      ->expected(1);
  command->add_option("--rate", a->rate,
                      "accesses per second of each vCPU; 0: no limit");
  command->add_option("--count", a->count,
                      "accesses of each vCPU; 0: no limit");
  AddTime(command, "--duration", &a->duration,
          "time after which the workload ends");
  command->add_option("--seed", a->seed, "seed of the random numbers");
  command->add_flag("-w,--watch", a->watch, "show progress until it ends");

  const char* const group_name = "for --pattern";
  command
      ->add_option("--write-fraction", a->write_fraction,
                   "share of writes, 0 to 1 (default: 0.3)")
      ->needs(pattern)
      ->group(group_name);
  AddBytes(command, "--stride", &a->stride_bytes,
           "sequential: distance from one access to the next (default: 4KiB)")
      ->needs(pattern)
      ->group(group_name);
  command
      ->add_option("--exponent", a->exponent,
                   "zipf: the exponent (default: 0.99)")
      ->needs(pattern)
      ->group(group_name);
  command
      ->add_option("--hot-fraction", a->hot_fraction,
                   "hot-cold: share of the memory that is hot (default: 0.1)")
      ->needs(pattern)
      ->group(group_name);
  command
      ->add_option(
          "--hot-access-fraction", a->hot_access_fraction,
          "hot-cold: share of the accesses to the hot memory (default: 0.9)")
      ->needs(pattern)
      ->group(group_name);
  command
      ->add_option("--drift", a->drift,
                   "hot-cold: pages by which the hot set moves per million "
                   "accesses (default: 0)")
      ->needs(pattern)
      ->group(group_name);
  command
      ->add_option("--repeat", a->repeat,
                   "number of runs of the trace (default: 1)")
      ->needs(trace)
      ->group("for --trace");
  AddChoice(command, "--placement", &a->placement,
            {{"contiguous", lab::v1::PAGE_PLACEMENT_CONTIGUOUS},
             {"scattered", lab::v1::PAGE_PLACEMENT_SCATTERED}},
            "placement of the trace's pages (default: contiguous)")
      ->needs(trace)
      ->group("for --trace");
  command->callback([&context, a, pattern, trace] {
    if (pattern->count() + trace->count() == 0) {
      throw CLI::RequiredError("one of --pattern and --trace");
    }
    context.action = [&context, a] { return Start(context, *a); };
  });
}

}  // namespace

void AddWorkloadCommands(CLI::App& app, Context& context) {
  CLI::App* group = AddGroup(
      app, "workload", "Starts, shows and stops workloads of vCPUs.",
      "mmuctl workload start alpha --trace sort.trace --repeat 100 --watch\n"
      "mmuctl workload list\n"
      "mmuctl workload status alpha\n"
      "mmuctl workload stop alpha");
  AddStart(*group, context);

  CLI::App* command = AddCommand(
      *group, "list", "Lists the running or the last workload of each VM.",
      "mmuctl workload list");
  command->alias("ls");
  Run(command, context, std::make_shared<lab::v1::ListWorkloadsRequest>(),
      List);

  auto stop = std::make_shared<std::string>();
  command = AddCommand(*group, "stop", "Stops the workload of a VM.",
                       "mmuctl workload stop alpha");
  AddVm(command, stop.get());
  Run(command, context, stop, Stop);

  auto status = std::make_shared<StatusArguments>();
  command = AddCommand(*group, "status",
                       "Shows the running or the last workload of a VM.",
                       "mmuctl workload status alpha --watch");
  AddVm(command, &status->vm);
  command->add_flag("-w,--watch", status->watch, "show progress until it ends");
  Run(command, context, status, ShowStatus);
}

}  // namespace mmud::client
