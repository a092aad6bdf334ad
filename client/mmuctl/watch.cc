#include "client/mmuctl/watch.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/interrupt.h"
#include "client/mmuctl/views.h"
#include "client/text/progress.h"
#include "google/longrunning/operations.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

constexpr absl::Duration kInterval = absl::Milliseconds(200);

}  // namespace

absl::Status WatchWork(
    Context& context, const std::string& name, const std::string& end_command,
    absl::FunctionRef<absl::Status(absl::Duration limit, ShowWork show)>
        await) {
  const std::string end = context.CommandLine(end_command);
  std::optional<InterruptNote> note;
  if (!context.json && !context.quiet) {
    note.emplace(absl::StrCat("\n", name, " continues; to end it: ", end,
                              "\nCtrl-C again ends only this command\n"));
  }
  std::unique_ptr<Progress> progress;
  const absl::Duration limit = context.timeout > absl::ZeroDuration()
                                   ? context.timeout
                                   : absl::InfiniteDuration();
  const absl::Status status = await(limit, [&](const WorkState& state) {
    if (progress == nullptr) progress = context.NewProgress(state.title);
    if (state.ended) {
      progress->Finish(state.words, state.share);
    } else {
      progress->Update(state.share, state.words);
    }
  });
  progress.reset();
  if (!absl::IsDeadlineExceeded(status)) return status;
  return absl::DeadlineExceededError(
      absl::StrCat(status.message(), "; to end it: ", end));
}

absl::StatusOr<Operation> AwaitOperation(Context& context,
                                         const std::string& name) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  Operation operation;
  const absl::Status status = WatchWork(
      context, name,
      absl::StrCat("op cancel ", absl::StripPrefix(name, "operations/")),
      [&](absl::Duration limit, ShowWork show) {
        const absl::StatusOr<Operation> awaited = (*client)->operations().Await(
            name, kInterval,
            [&](const Operation& state) {
              const OperationView view = ViewOperation(state);
              const std::string title = view.kind.empty() ? name : view.kind;
              if (state.done()) {
                show({.title = title,
                      .share = state.has_error() ? view.share : 1.0,
                      .words = absl::StrCat(view.state, ", ", view.words),
                      .ended = true});
              } else {
                show(
                    {.title = title, .share = view.share, .words = view.words});
              }
              return absl::OkStatus();
            },
            limit);
        if (awaited.ok()) operation = *awaited;
        return awaited.status();
      });
  if (!status.ok()) return status;
  return operation;
}

absl::Status WatchOperation(Context& context, const std::string& name) {
  const absl::StatusOr<Operation> operation = AwaitOperation(context, name);
  if (!operation.ok()) return operation.status();
  if (absl::Status status =
          context.Print(*operation, ViewOperationDetails(*operation));
      !status.ok()) {
    return status;
  }
  return FromRpcStatus(operation->error());
}

absl::Status ShowOperation(Context& context, const Operation& operation,
                           Watch watch) {
  // A request that was only validated has a finished operation without a name.
  if (watch == Watch::kYes && !operation.name().empty()) {
    return WatchOperation(context, operation.name());
  }
  return context.Print(operation, ViewOperationDetails(operation));
}

}  // namespace mmud::client
