// mmuctl generation.

#include <cstdint>
#include <memory>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/operations_client.h"
#include "client/mmuctl/aging_views.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/watch.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

struct GenerationArguments {
  v1::CreateGenerationRequest request;
  bool may_lock = false;
  bool fast_or_fail = false;
  bool look_around = false;
};

absl::Status Generation(Context& context, Client& client,
                        const GenerationArguments& arguments) {
  v1::CreateGenerationRequest request = arguments.request;
  if (arguments.may_lock) request.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
  if (arguments.fast_or_fail) request.set_slow_mmus(v1::SLOW_MMUS_REFUSE);
  if (arguments.look_around) {
    request.set_scope(v1::GENERATION_SCOPE_LOOK_AROUND);
  }
  const auto started = client.aging().CreateGeneration(request);
  if (!started.ok()) return started.status();
  const absl::StatusOr<Operation> operation =
      AwaitOperation(context, started->name());
  if (!operation.ok()) return operation.status();
  absl::StatusOr<v1::GenerationMetadata> metadata =
      OperationMetadata<v1::GenerationMetadata>(*operation);
  if (!metadata.ok()) return metadata.status();
  if (!operation->has_error()) {
    const auto generation = OperationResponse<v1::Generation>(*operation);
    if (!generation.ok()) return generation.status();
    *metadata->mutable_generation() = *generation;
  }
  if (absl::Status status =
          context.Print(*operation, ViewGeneration(*metadata));
      !status.ok()) {
    return status;
  }
  return FromRpcStatus(operation->error());
}

}  // namespace

void AddGenerationCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<GenerationArguments>();
  CLI::App* command = AddCommand(
      app, "generation",
      "Ages all memory of a VM once: the next generation of its working set. "
      "It finds the memory that was accessed since the generation before it. "
      "Waits until it has ended.",
      "mmuctl generation alpha\n"
      "mmuctl generation alpha --may-lock --cpu-percent 20\n"
      "mmuctl generation alpha; sleep 60; mmuctl generation alpha; mmuctl "
      "workingset alpha");
  AddVm(command, arguments->request.mutable_vm());
  command->add_flag("--may-lock", arguments->may_lock,
                    "also examine MMUs that take a lock for this: shadow "
                    "pages, and stage 2 without hardware_access_flag");
  command
      ->add_flag("--fast-or-fail", arguments->fast_or_fail,
                 "fail if such an MMU is in use, instead of leaving it out")
      ->excludes("--may-lock");
  command->add_flag("--look-around", arguments->look_around,
                    "examine one page of each 64, and its neighbours where it "
                    "is young, instead of every page");
  AddCpuPercent(
      command,
      [arguments](int32_t percent) {
        arguments->request.set_cpu_percent(percent);
      },
      "share of one processor that the scan may use, 1 to 100 (default: 100)");
  Run(command, context, arguments, Generation);
}

}  // namespace mmud::client
