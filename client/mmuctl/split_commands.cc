// mmuctl split start, update, pause, resume, cancel, watch; mmuctl recover.

#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/operation_argument.h"
#include "client/mmuctl/views.h"
#include "client/mmuctl/watch.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

struct StartArguments {
  v1::SplitHugePagesRequest request;
  std::vector<GpaRange> ranges;
  v1::PageSize target = v1::PAGE_SIZE_UNSPECIFIED;
  v1::SplitOrder order = v1::SPLIT_ORDER_UNSPECIFIED;
  absl::Duration skip_if_cold_after = absl::InfiniteDuration();
  bool validate_only = false;
  ThrottleArguments throttle;
  bool watch = false;
};

absl::Status Start(Context& context, Client& client,
                   const StartArguments& arguments) {
  v1::SplitHugePagesRequest request = arguments.request;
  for (const GpaRange& range : arguments.ranges) {
    *request.add_ranges() = ToExtent(range);
  }
  request.set_target_page_size(arguments.target);
  request.set_order(arguments.order);
  if (arguments.skip_if_cold_after != absl::InfiniteDuration()) {
    *request.mutable_skip_if_cold_after() =
        ToProto(arguments.skip_if_cold_after);
  }
  request.set_validate_only(arguments.validate_only);
  if (!arguments.throttle.empty()) {
    arguments.throttle.ApplyTo(request.mutable_throttle());
  }
  const auto operation = client.splits().SplitHugePages(request);
  if (!operation.ok()) return operation.status();
  if (arguments.validate_only) {
    return context.Print(*operation, "the request is valid\n");
  }
  return ShowOperation(context, *operation,
                       arguments.watch ? Watch::kYes : Watch::kNo);
}

struct RecoverArguments {
  v1::RecoverHugePagesRequest request;
  std::vector<GpaRange> ranges;
  ThrottleArguments throttle;
  bool watch = false;
};

absl::Status Recover(Context& context, Client& client,
                     const RecoverArguments& arguments) {
  v1::RecoverHugePagesRequest request = arguments.request;
  for (const GpaRange& range : arguments.ranges) {
    *request.add_ranges() = ToExtent(range);
  }
  if (!arguments.throttle.empty()) {
    arguments.throttle.ApplyTo(request.mutable_throttle());
  }
  const auto operation = client.splits().RecoverHugePages(request);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation,
                       arguments.watch ? Watch::kYes : Watch::kNo);
}

// Returns an error unless the operation is a split, since the commands for
// splits must not change another operation.
absl::Status CheckSplit(Context& context, const Operation& operation) {
  const OperationView view = ViewOperation(operation);
  if (view.kind == "split") return absl::OkStatus();
  const std::string id = ShortOperationId(operation.name());
  return absl::FailedPreconditionError(absl::StrCat(
      operation.name(), " is no split but a ", view.kind, " of ", view.vm,
      "; see ", context.CommandLine(absl::StrCat("op wait ", id)), ", ",
      context.CommandLine(absl::StrCat("op cancel ", id))));
}

// Gets an operation, which must be a split.
absl::StatusOr<Operation> GetSplit(Context& context, Client& client,
                                   const std::string& name) {
  absl::StatusOr<Operation> operation = client.operations().Get(name);
  if (!operation.ok()) return operation;
  if (absl::Status status = CheckSplit(context, *operation); !status.ok()) {
    return status;
  }
  return operation;
}

struct UpdateArguments {
  std::string operation;
  std::string etag;
  ThrottleArguments throttle;
};

absl::Status Update(Context& context, Client& client,
                    const UpdateArguments& arguments) {
  if (const auto split = GetSplit(context, client, arguments.operation);
      !split.ok()) {
    return split.status();
  }
  v1::UpdateSplitRequest request;
  request.set_operation(arguments.operation);
  request.set_etag(arguments.etag);
  arguments.throttle.ApplyTo(request.mutable_throttle());
  const auto operation = client.splits().UpdateSplit(request);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation, Watch::kNo);
}

absl::Status Pause(Context& context, Client& client,
                   const v1::PauseSplitRequest& request) {
  const auto operation = client.splits().PauseSplit(request);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation, Watch::kNo);
}

absl::Status Resume(Context& context, Client& client,
                    const v1::ResumeSplitRequest& request) {
  const auto operation = client.splits().ResumeSplit(request);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation, Watch::kNo);
}

absl::Status Cancel(Context& context, Client& client, const std::string& name) {
  if (const auto split = GetSplit(context, client, name); !split.ok()) {
    return split.status();
  }
  if (absl::Status status = client.operations().Cancel(name); !status.ok()) {
    return status;
  }
  const auto operation = client.operations().Get(name);
  if (!operation.ok()) return operation.status();
  return context.Print(*operation,
                       absl::StrCat("asked ", name,
                                    " to stop at its next safe point; mappings "
                                    "that it split stay split\n"));
}

absl::Status WatchSplit(Context& context, Client& client,
                        const std::string& name) {
  if (const auto split = GetSplit(context, client, name); !split.ok()) {
    return split.status();
  }
  return WatchOperation(context, name);
}

}  // namespace

void AddSplitCommands(CLI::App& app, Context& context) {
  CLI::App* group = AddGroup(
      app, "split", "Splits huge mappings at a pace that can be changed.",
      "mmuctl split start alpha --max-pages-per-second 500000 --watch\n"
      "mmuctl split update alpha --max-pages-per-second 100000\n"
      "mmuctl split pause alpha; mmuctl split resume alpha");

  auto start = std::make_shared<StartArguments>();
  CLI::App* command =
      AddCommand(*group, "start", "Splits the huge mappings of a VM.",
                 "mmuctl split start alpha --watch\n"
                 "mmuctl split start alpha --range 1GiB+1GiB --target 2m "
                 "--max-lock-hold 100us --max-vcpu-stall-ratio 0.01");
  AddVm(command, start->request.mutable_vm());
  AddRanges(command, "--range", &start->ranges,
            "the memory to work on (default: all of it)");
  AddPageSize(command, "--target", &start->target,
              "largest mapping after the split, 4k or 2m (default: 4k)");
  AddChoice(command, "--order", &start->order,
            {{"ascending", v1::SPLIT_ORDER_ASCENDING},
             {"descending", v1::SPLIT_ORDER_DESCENDING},
             {"coldest-first", v1::SPLIT_ORDER_COLDEST_FIRST},
             {"hottest-dirty-first", v1::SPLIT_ORDER_HOTTEST_DIRTY_FIRST}},
            "order of the memory: by address (default: ascending), or by its "
            "working set");
  AddTime(command, "--skip-if-cold-after", &start->skip_if_cold_after,
          "leave memory huge that was not found young for so long (default: "
          "split it too)");
  command->add_flag("--validate-only", start->validate_only,
                    "only check the request");
  command->add_flag("-w,--watch", start->watch, "show progress until it ends");
  AddThrottle(command, &start->throttle);
  Run(command, context, start, Start);

  auto update = std::make_shared<UpdateArguments>();
  command =
      AddCommand(*group, "update",
                 "Changes the pace of a running split. Limits that are not "
                 "given stay as they are.",
                 "mmuctl split update alpha --max-pages-per-second 100000\n"
                 "mmuctl split update alpha --max-lock-hold 50us");
  AddOperation(command, context, &update->operation);
  command->add_option("--etag", update->etag,
                      "only if the split still has this etag");
  AddThrottle(command, &update->throttle);
  command->callback([&context, update] {
    // Check this before the daemon is asked for the operation.
    if (update->throttle.empty()) {
      throw CLI::RequiredError(
          "at least one limit, for example --max-pages-per-second,");
    }
    context.action = [&context, update]() -> absl::Status {
      const absl::StatusOr<Client*> client = context.client();
      if (!client.ok()) return client.status();
      return Update(context, **client, *update);
    };
  });

  auto pause = std::make_shared<v1::PauseSplitRequest>();
  command =
      AddCommand(*group, "pause", "Pauses a split after its present chunk.",
                 "mmuctl split pause alpha");
  AddOperation(command, context, pause->mutable_operation());
  Run(command, context, pause, Pause);

  auto resume = std::make_shared<v1::ResumeSplitRequest>();
  command = AddCommand(*group, "resume", "Resumes a paused split.",
                       "mmuctl split resume alpha");
  AddOperation(command, context, resume->mutable_operation());
  Run(command, context, resume, Resume);

  auto cancel = std::make_shared<std::string>();
  command = AddCommand(*group, "cancel",
                       "Cancels a split; mappings that it split stay split.",
                       "mmuctl split cancel alpha");
  AddOperation(command, context, cancel.get());
  Run(command, context, cancel, Cancel);

  auto watch = std::make_shared<std::string>();
  command = AddCommand(*group, "watch", "Shows progress until a split ends.",
                       "mmuctl split watch alpha");
  AddOperation(command, context, watch.get());
  Run(command, context, watch, WatchSplit);

  auto recover = std::make_shared<RecoverArguments>();
  command = AddCommand(
      app, "recover",
      "Replaces small mappings by huge ones where no dirty log is on.",
      "mmuctl recover alpha --watch\n"
      "mmuctl recover alpha --range 0+2GiB --max-pages-per-second 500000");
  AddVm(command, recover->request.mutable_vm());
  AddRanges(command, "--range", &recover->ranges,
            "the memory to work on (default: all of it)");
  command->add_flag("-w,--watch", recover->watch,
                    "show progress until it ends");
  AddThrottle(command, &recover->throttle);
  Run(command, context, recover, Recover);
}

}  // namespace mmud::client
