#include "client/mmuctl/watch.h"

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "google/longrunning/operations.pb.h"

namespace mmud::client {

using google::longrunning::Operation;

absl::Status WatchOperation(Context& context, const std::string& name) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  std::unique_ptr<Progress> progress;
  const absl::StatusOr<Operation> operation = (*client)->operations().Await(
      name, absl::Milliseconds(200), [&](const Operation& state) {
        const OperationView view = ViewOperation(state);
        if (progress == nullptr) {
          progress = context.NewProgress(
              absl::StrCat(view.kind.empty() ? name : view.kind));
        }
        if (state.done()) {
          progress->Finish(absl::StrCat(view.state, ", ", view.words),
                           state.has_error() ? view.share : 1.0);
        } else {
          progress->Update(view.share, view.words);
        }
        return absl::OkStatus();
      });
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
