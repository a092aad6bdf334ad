// mmuctl split start, update, pause, resume, cancel, watch; mmuctl recover.

#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
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
  bool validate_only = false;
  bool watch = false;
};

absl::Status Start(Context& context, const StartArguments& arguments) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  v1::SplitHugePagesRequest request = arguments.request;
  for (const GpaRange& range : arguments.ranges) {
    *request.add_ranges() = ToExtent(range);
  }
  request.set_target_page_size(arguments.target);
  request.set_order(arguments.order);
  request.set_validate_only(arguments.validate_only);
  const auto operation = (*client)->splits().SplitHugePages(request);
  if (!operation.ok()) return operation.status();
  if (arguments.validate_only && !context.json) {
    context.out() << "the request is good\n";
    return absl::OkStatus();
  }
  return ShowOperation(context, *operation,
                       arguments.watch ? Watch::kYes : Watch::kNo);
}

struct RecoverArguments {
  v1::RecoverHugePagesRequest request;
  std::vector<GpaRange> ranges;
  bool watch = false;
};

absl::Status Recover(Context& context, const RecoverArguments& arguments) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  v1::RecoverHugePagesRequest request = arguments.request;
  for (const GpaRange& range : arguments.ranges) {
    *request.add_ranges() = ToExtent(range);
  }
  const auto operation = (*client)->splits().RecoverHugePages(request);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation,
                       arguments.watch ? Watch::kYes : Watch::kNo);
}

absl::Status Update(Context& context, const v1::UpdateSplitRequest& request) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  v1::UpdateSplitRequest update = request;
  update.mutable_throttle();  // required, also when every field is a default
  const auto operation = (*client)->splits().UpdateSplit(update);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation, Watch::kNo);
}

absl::Status Pause(Context& context, const v1::PauseSplitRequest& request) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  const auto operation = (*client)->splits().PauseSplit(request);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation, Watch::kNo);
}

absl::Status Resume(Context& context, const v1::ResumeSplitRequest& request) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  const auto operation = (*client)->splits().ResumeSplit(request);
  if (!operation.ok()) return operation.status();
  return ShowOperation(context, *operation, Watch::kNo);
}

absl::Status Cancel(Context& context, const std::string& name) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  if (absl::Status status = (*client)->operations().Cancel(name);
      !status.ok()) {
    return status;
  }
  const auto operation = (*client)->operations().Get(name);
  if (!operation.ok()) return operation.status();
  return context.Print(*operation, absl::StrCat("asked ", name,
                                                " to stop at its next safe "
                                                "point; what it split stays "
                                                "split\n"));
}

absl::Status WatchSplit(Context& context, const std::string& name) {
  return WatchOperation(context, name);
}

}  // namespace

void AddSplitCommands(CLI::App& app, Context& context) {
  CLI::App* group = AddGroup(
      app, "split", "Splits huge mappings at a pace that can be changed.",
      "mmuctl split start alpha --max-pages-per-second 500000 --watch\n"
      "mmuctl split update 7 --max-pages-per-second 100000\n"
      "mmuctl split pause 7; mmuctl split resume 7; mmuctl split cancel 7");

  auto start = std::make_shared<StartArguments>();
  CLI::App* command =
      AddCommand(*group, "start", "Splits the huge mappings of some memory.",
                 "mmuctl split start alpha --watch\n"
                 "mmuctl split start alpha --range 1GiB+1GiB --target 2m "
                 "--max-lock-hold 100us --max-vcpu-stall-ratio 0.01");
  AddVm(command, start->request.mutable_vm());
  AddRanges(command, "--range", &start->ranges,
            "the memory to work on (default: all of it)");
  AddPageSize(command, "--target", &start->target,
              "size that no mapping shall exceed, 4k or 2m (default: 4k)");
  AddChoice(command, "--order", &start->order,
            {{"ascending", v1::SPLIT_ORDER_ASCENDING},
             {"descending", v1::SPLIT_ORDER_DESCENDING}},
            "where to begin (default: ascending)");
  command->add_flag("--validate-only", start->validate_only,
                    "only check the request");
  command->add_flag("-w,--watch", start->watch, "show progress until it ends");
  AddThrottle(command, start->request.mutable_throttle());
  Run(command, context, start, Start);

  auto update = std::make_shared<v1::UpdateSplitRequest>();
  command = AddCommand(
      *group, "update",
      "Changes the pace of a running split. Limits that are not given take "
      "their defaults.",
      "mmuctl split update 7 --max-pages-per-second 100000");
  AddOperation(command, update->mutable_operation());
  command->add_option("--etag", *update->mutable_etag(),
                      "only if the split is still as this etag says");
  AddThrottle(command, update->mutable_throttle());
  Run(command, context, update, Update);

  auto pause = std::make_shared<v1::PauseSplitRequest>();
  command =
      AddCommand(*group, "pause", "Lets a split wait after the chunk in hand.",
                 "mmuctl split pause 7");
  AddOperation(command, pause->mutable_operation());
  Run(command, context, pause, Pause);

  auto resume = std::make_shared<v1::ResumeSplitRequest>();
  command = AddCommand(*group, "resume", "Lets a paused split go on.",
                       "mmuctl split resume 7");
  AddOperation(command, resume->mutable_operation());
  Run(command, context, resume, Resume);

  auto cancel = std::make_shared<std::string>();
  command = AddCommand(*group, "cancel",
                       "Ends a split early; what it split stays split.",
                       "mmuctl split cancel 7");
  AddOperation(command, cancel.get());
  Run(command, context, cancel, Cancel);

  auto watch = std::make_shared<std::string>();
  command = AddCommand(*group, "watch", "Shows progress until a split ends.",
                       "mmuctl split watch 7");
  AddOperation(command, watch.get());
  Run(command, context, watch, WatchSplit);

  auto recover = std::make_shared<RecoverArguments>();
  command = AddCommand(
      app, "recover",
      "Puts small mappings together to huge ones again, where no dirty log is "
      "on.",
      "mmuctl recover alpha --watch\n"
      "mmuctl recover alpha --range 0+2GiB");
  AddVm(command, recover->request.mutable_vm());
  AddRanges(command, "--range", &recover->ranges,
            "the memory to work on (default: all of it)");
  command->add_flag("-w,--watch", recover->watch,
                    "show progress until it ends");
  Run(command, context, recover, Recover);
}

}  // namespace mmud::client
