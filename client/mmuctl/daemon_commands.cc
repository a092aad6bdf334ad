// mmuctl health, capabilities, build-info.

#include <cstdint>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "grpc/health/v1/health.pb.h"
#include "mmud/v1/admin_service.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

absl::Status Health(Context& context, Client& client,
                    const HealthCheckRequest& request) {
  const auto response = client.health().Check(request.service());
  if (!response.ok()) return response.status();
  if (response->status() != HealthCheckResponse::SERVING) {
    context.exit_code = kExitFailed;
  }
  return context.Print(
      *response,
      absl::StrCat(
          ShortName(HealthCheckResponse::ServingStatus_Name(response->status()),
                    ""),
          "\n"));
}

// "ept, npt" for a list of enum values.
template <typename List>
std::string Join(const List& values, const std::string& (*name)(int),
                 const char* prefix) {
  std::string text;
  for (const int value : values) {
    absl::StrAppend(&text, text.empty() ? "" : ", ",
                    ShortName(name(value), prefix));
  }
  return text;
}

absl::Status Capabilities(Context& context, Client& client,
                          const v1::GetCapabilitiesRequest& request) {
  const auto response = client.vms().GetCapabilities(request);
  if (!response.ok()) return response.status();
  KeyValues values;
  values.Add("entry formats",
             Join(
                 response->entry_formats(),
                 +[](int v) -> const std::string& {
                   return v1::EntryFormat_Name(static_cast<v1::EntryFormat>(v));
                 },
                 "ENTRY_FORMAT_"));
  values.Add("page sizes",
             Join(
                 response->page_sizes(),
                 +[](int v) -> const std::string& {
                   return v1::PageSize_Name(static_cast<v1::PageSize>(v));
                 },
                 "PAGE_SIZE_"));
  values.Add("backings", Join(
                             response->backings(),
                             +[](int v) -> const std::string& {
                               return v1::MemoryBacking_Name(
                                   static_cast<v1::MemoryBacking>(v));
                             },
                             "MEMORY_BACKING_"));
  values.Add("VMs",
             absl::StrCat("up to ", FormatCount(response->max_vms_count())));
  values.Add(
      "vCPUs",
      absl::StrCat("up to ", FormatCount(response->max_vcpus_per_vm_count()),
                   " per VM"));
  values.Add(
      "memslots",
      absl::StrCat("up to ", FormatCount(response->max_memslots_per_vm_count()),
                   " per VM"));
  values.Add(
      "guest memory",
      response->max_guest_memory_bytes() == 0
          ? "no limit"
          : absl::StrCat("up to ",
                         FormatBytes(response->max_guest_memory_bytes())));
  values.Add(
      "message",
      absl::StrCat("up to ", FormatBytes(response->max_message_bytes())));
  for (const v1::LimitUse& limit : response->limits()) {
    const auto format = [&limit](int64_t count) {
      return absl::EndsWith(limit.name(), "_bytes") ? FormatBytes(count)
                                                    : FormatCount(count);
    };
    values.Add(limit.name(), absl::StrCat(format(limit.used_count()), " of ",
                                          limit.limit_count() == 0
                                              ? "no limit"
                                              : format(limit.limit_count())));
  }
  return context.Print(*response, values.ToString());
}

absl::Status BuildInfo(Context& context, Client& client,
                       const v1::GetBuildInfoRequest& request) {
  const auto response = client.admin().GetBuildInfo(request);
  if (!response.ok()) return response.status();
  KeyValues values;
  values.Add("version", response->version());
  values.Add("compiler", response->compiler());
  values.Add("build mode", response->build_mode());
  values.Add("fault injection",
             response->fault_injection() ? "yes: a test build" : "no");
  values.Add("running for", FormatTime(FromProto(response->uptime())));
  values.Add("boot id", response->boot_id());
  return context.Print(*response, values.ToString());
}

}  // namespace

void AddDaemonCommands(CLI::App& app, Context& context) {
  auto health = std::make_shared<HealthCheckRequest>();
  CLI::App* command = AddCommand(app, "health",
                                 "Shows whether the daemon, or one of its "
                                 "services, serves. Exit code 1 if not.",
                                 "mmuctl health\n"
                                 "mmuctl health mmud.v1.VmService");
  command->add_option("SERVICE", *health->mutable_service(),
                      "full name of a service (default: the daemon)");
  Run(command, context, health, Health);

  auto capabilities = std::make_shared<v1::GetCapabilitiesRequest>();
  command = AddCommand(app, "capabilities",
                       "Shows the features and the limits of the daemon.",
                       "mmuctl capabilities");
  Run(command, context, capabilities, Capabilities);

  auto build = std::make_shared<v1::GetBuildInfoRequest>();
  command = AddCommand(app, "build-info",
                       "Shows the daemon's build and its start time.",
                       "mmuctl build-info");
  Run(command, context, build, BuildInfo);
}

}  // namespace mmud::client
