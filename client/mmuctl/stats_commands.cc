// mmuctl stats.

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "mmud/v1/stats_service.pb.h"

namespace mmud::client {
namespace {

struct StatsArguments {
  std::string vm;
  bool per_vcpu = false;
  std::string filter;
};

std::string ViewValue(const v1::MmuStatistic& statistic) {
  switch (statistic.unit()) {
    case v1::STATISTIC_UNIT_BYTES:
      return FormatBytes(statistic.value());
    case v1::STATISTIC_UNIT_NANOSECONDS:
      return FormatTime(absl::Nanoseconds(statistic.value()));
    default:
      return FormatCount(statistic.value());
  }
}

absl::Status Stats(Context& context, Client& client,
                   const StatsArguments& arguments) {
  v1::GetMmuStatsRequest request;
  request.set_vm(arguments.vm);
  request.set_per_vcpu(arguments.per_vcpu);
  v1::GetMmuStatsResponse all;
  do {
    const auto page = client.stats().GetMmuStats(request);
    if (!page.ok()) return page.status();
    all.mutable_vms()->MergeFrom(page->vms());
    *all.mutable_process_statistics() = page->process_statistics();
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  Table table(
      {{"VM"}, {"VCPU"}, {"STATISTIC"}, {"VALUE", Align::kRight}, {"KIND"}});
  const auto add = [&](const std::string& vm, const std::string& vcpu,
                       const v1::MmuStatistic& statistic) {
    if (!absl::StrContains(statistic.name(), arguments.filter)) return;
    table.AddRow({vm, vcpu, statistic.name(), ViewValue(statistic),
                  ShortName(v1::StatisticKind_Name(statistic.kind()),
                            "STATISTIC_KIND_")});
  };
  if (arguments.vm.empty()) {
    for (const v1::MmuStatistic& statistic : all.process_statistics()) {
      add("(all)", "", statistic);
    }
  }
  for (const v1::VmMmuStats& vm : all.vms()) {
    for (const v1::MmuStatistic& statistic : vm.statistics()) {
      add(vm.vm(), "all", statistic);
    }
    for (const v1::VcpuMmuStats& vcpu : vm.vcpus()) {
      for (const v1::MmuStatistic& statistic : vcpu.statistics()) {
        add(vm.vm(), absl::StrCat(vcpu.vcpu()), statistic);
      }
    }
  }
  return context.Print(all, table.ToString());
}

}  // namespace

void AddStatsCommands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<StatsArguments>();
  CLI::App* command =
      AddCommand(app, "stats", "Shows the MMU's statistics with KVM's names.",
                 "mmuctl stats\n"
                 "mmuctl stats alpha --per-vcpu\n"
                 "mmuctl stats alpha --filter pages_");
  AddVm(command, &arguments->vm)->required(false);
  command->add_flag("--per-vcpu", arguments->per_vcpu, "list each vCPU too");
  command->add_option("--filter", arguments->filter,
                      "only names that contain this");
  Run(command, context, arguments, Stats);
}

}  // namespace mmud::client
