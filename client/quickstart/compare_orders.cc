// Migrates a small guest again and again, with each workload and each order of
// sending, and prints one Markdown table. See --help.

#include <signal.h>

#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "client/guest_mmu.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/order_outcome.h"
#include "client/quickstart/daemon_process.h"
#include "client/quickstart/order_comparison.h"
#include "client/quickstart/order_workloads.h"
#include "client/reference_controller.h"
#include "client/send_order.h"
#include "client/text/error_text.h"
#include "client/text/units.h"

namespace mmud::client {
namespace {

constexpr const char* kTraces[] = {"sort.trace", "sqlite3.trace", "gzip.trace"};

struct Flags {
  std::string mmud;
  std::string address;
  std::string trace_dir = "traces";
  std::string mmu = "tdp";
  std::string workload;  // "": each
  int64_t memory_bytes = int64_t{256} << 20;
  int repeat = 1;
  bool verbose = false;
  ControllerOptions controller;
};

// Prints the steps and the rounds of each migration.
class Talker final : public ControllerObserver {
 public:
  void OnStep(const std::string& step) override {
    std::cerr << "-- " << step << std::endl;
  }
  void OnRound(const MigrationRound& round) override {
    std::cerr << "   " << round.page_count << " pages in "
              << FormatTime(round.wall_time) << ", harvest "
              << FormatTime(round.harvest_time) << "; "
              << round.remaining_page_count << " dirty meanwhile" << std::endl;
  }
};

std::vector<std::string> MmuWords() {
  std::vector<std::string> words;
  for (const GuestMmu& mmu : GuestMmus()) words.push_back(mmu.word);
  return words;
}

absl::StatusOr<std::vector<OrderWorkload>> Workloads(const Flags& flags) {
  std::vector<OrderWorkload> workloads;
  for (const char* trace : kTraces) {
    absl::StatusOr<OrderWorkload> workload =
        TraceInItsPages(flags.trace_dir, trace, flags.memory_bytes,
                        flags.controller.vcpu_count);
    if (!workload.ok()) return workload.status();
    workloads.push_back(*std::move(workload));
    workloads.push_back(TraceInNewPages(trace));
  }
  for (OrderWorkload& pattern : Patterns()) {
    workloads.push_back(std::move(pattern));
  }
  if (flags.workload.empty()) return workloads;
  std::vector<std::string> names;
  for (OrderWorkload& workload : workloads) {
    if (workload.name == flags.workload) return std::vector{workload};
    names.push_back(absl::StrCat("\"", workload.name, "\""));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "no workload ", flags.workload, "; it is ", absl::StrJoin(names, ", ")));
}

int Fail(const absl::Status& status, const std::string& address) {
  std::cerr << RenderError(status, address);
  return ExitCodeFor(status);
}

int Run(Flags flags) {
  const absl::StatusOr<std::vector<OrderWorkload>> workloads = Workloads(flags);
  if (!workloads.ok()) return Fail(workloads.status(), "");
  std::unique_ptr<DaemonProcess> daemon;
  if (flags.address.empty()) {
    absl::StatusOr<std::unique_ptr<DaemonProcess>> started =
        DaemonProcess::Start(
            flags.mmud,
            {absl::StrCat(
                "--trace_dir=",
                std::filesystem::absolute(flags.trace_dir).string())});
    if (!started.ok()) return Fail(started.status(), "");
    daemon = *std::move(started);
    flags.address = daemon->address();
  }
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(flags.address);
  if (!client.ok()) return Fail(client.status(), flags.address);
  for (const GuestMmu& mmu : GuestMmus()) {
    if (mmu.word == flags.mmu) mmu.select(&flags.controller.vm);
  }
  flags.controller.vm_id = "compare-orders";
  const ControllerOptions options =
      ShortMigration(flags.controller, flags.memory_bytes);
  ControllerObserver quiet;
  Talker talker;
  bool equal = true;
  std::cout << OutcomeMarkdownHead() << std::flush;
  for (const OrderWorkload& workload : *workloads) {
    for (int i = 0; i < flags.repeat; ++i) {
      const absl::StatusOr<std::vector<OrderOutcome>> outcomes =
          CompareOrders(client->get(), options, workload,
                        {SendOrder::kAscending, SendOrder::kAscendingPieces,
                         SendOrder::kColdestFirst},
                        flags.verbose ? &talker : &quiet);
      if (!outcomes.ok()) return Fail(outcomes.status(), flags.address);
      std::cout << OutcomeMarkdown(*outcomes) << std::flush;
      for (const OrderOutcome& outcome : *outcomes) equal &= outcome.equal;
    }
  }
  return equal ? kExitOk : kExitFailed;
}

void AddFlags(CLI::App& app, Flags* flags) {
  CLI::Option* mmud = app.add_option(
      "--mmud", flags->mmud, "daemon to start; it ends with this program");
  app.add_option("--address", flags->address,
                 "use a running daemon: unix:/path or host:port")
      ->excludes(mmud);
  app.add_option("--trace-dir", flags->trace_dir,
                 "folder of recorded traces (default: traces)");
  app.add_option("--workload", flags->workload,
                 "only this workload, as the table names it");
  app.add_option("--repeat", flags->repeat,
                 "runs of each workload (default: 1)");
  app.add_flag("--verbose", flags->verbose,
               "print the steps and rounds of each migration");
  app.add_option("--mmu", flags->mmu, "kind of MMU (default: tdp)")
      ->check(CLI::IsMember(MmuWords()));
  app.add_option("--seed", flags->controller.seed,
                 "seed of the guest's program (default: 1)");
  app.add_option(
      "--memory-bytes", flags->memory_bytes,
      absl::StrCat("guest memory (default: ", flags->memory_bytes, ")"));
}

}  // namespace
}  // namespace mmud::client

int main(int argc, char** argv) {
  using namespace mmud::client;
  Flags flags;
  // At this speed the baseline of the guest takes two seconds.
  flags.controller.bandwidth_bytes_per_second = 125'000'000;
  flags.controller.downtime_target = absl::Milliseconds(30);
  CLI::App app(
      "Migrates a small guest with each recorded trace and pattern and with "
      "each order of\nsending, and prints a Markdown table. Exit code 0: every "
      "copy was equal.",
      "compare_orders");
  AddFlags(app, &flags);
  app.footer(
      "examples:\n"
      "  compare_orders --mmud bazel-bin/server/mmud\n"
      "  compare_orders --mmud bazel-bin/server/mmud --workload zipf "
      "--repeat 3\n\n" +
      ExitCodeHelp());
  try {
    app.parse(argc, argv);
    if (flags.mmud.empty() && flags.address.empty()) {
      throw CLI::RequiredError("one of --mmud and --address");
    }
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::cerr << "error: " << error.what()
              << "\n  fix:     see compare_orders --help\n";
    return kExitUsage;
  }
  signal(SIGPIPE, SIG_IGN);
  return Run(std::move(flags));
}
