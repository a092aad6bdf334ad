// mmuctl ager.

#include <cstdint>
#include <memory>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/aging_views.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {
namespace {

// Only settings that were given are set.
struct AgerArguments {
  v1::UpdateAgerRequest request;
};

absl::Status Ager(Context& context, Client& client,
                  const AgerArguments& arguments) {
  if (arguments.request.has_settings()) {
    const auto ager = client.aging().UpdateAger(arguments.request);
    if (!ager.ok()) return ager.status();
    return context.Print(*ager, ViewAger(ager->ager()));
  }
  v1::GetAgerRequest request;
  request.set_vm(arguments.request.vm());
  const auto ager = client.aging().GetAger(request);
  if (!ager.ok()) return ager.status();
  return context.Print(*ager, ViewAger(ager->ager()));
}

}  // namespace

void AddAgerCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<AgerArguments>();
  CLI::App* command = AddCommand(
      app, "ager",
      "Shows the ager of a VM, which makes generations of its working set in "
      "the background. With options, changes their settings first and leaves "
      "the others.",
      "mmuctl ager alpha\n"
      "mmuctl ager alpha --on\n"
      "mmuctl ager alpha --on --cpu-percent 5 --min-interval 500ms "
      "--max-interval 30s\n"
      "mmuctl ager alpha --may-lock --look-around\n"
      "mmuctl ager alpha --off");
  AddVm(command, arguments->request.mutable_vm());
  const auto settings = [arguments] {
    return arguments->request.mutable_settings();
  };
  const auto add_flag = [command](const char* name, auto set,
                                  const char* help) {
    return command->add_flag_function(
        name, [set](int64_t) { set(); }, help);
  };
  add_flag(
      "--on", [settings] { settings()->set_enabled(true); }, "switch it on");
  add_flag(
      "--off", [settings] { settings()->set_enabled(false); },
      "switch it off; the generations stay")
      ->excludes("--on");
  AddCpuPercent(
      command,
      [settings](int32_t percent) { settings()->set_cpu_percent(percent); },
      "share of one processor that it may use, 1 to 100 (at first: 2)");
  AddFiniteTime(
      command, "--min-interval",
      [settings](absl::Duration time) {
        *settings()->mutable_min_interval() = ToProto(time);
      },
      "shortest time from one generation to the next, 100ms to 1h (at first: "
      "1s)");
  AddFiniteTime(
      command, "--max-interval",
      [settings](absl::Duration time) {
        *settings()->mutable_max_interval() = ToProto(time);
      },
      "longest time from one generation to the next, 100ms to 1h (at first: "
      "1m)");
  add_flag(
      "--may-lock",
      [settings] { settings()->set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK); },
      "also examine MMUs that take a lock for this: shadow pages, and stage 2 "
      "without hardware_access_flag");
  add_flag(
      "--lockless",
      [settings] {
        settings()->set_lock_mode(v1::AGING_LOCK_MODE_LOCKLESS_ONLY);
      },
      "leave these MMUs out (as at first)")
      ->excludes("--may-lock");
  add_flag(
      "--look-around",
      [settings] { settings()->set_scope(v1::GENERATION_SCOPE_LOOK_AROUND); },
      "examine one page of each 64, and its neighbours where it is young");
  add_flag(
      "--every-page",
      [settings] { settings()->set_scope(v1::GENERATION_SCOPE_EVERY_PAGE); },
      "examine every page (as at first)")
      ->excludes("--look-around");
  Run(command, context, arguments, Ager);
}

}  // namespace mmud::client
