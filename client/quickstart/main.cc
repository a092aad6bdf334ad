// Prepares a migration from beginning to end, with a report. See --help.

#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
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
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
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
#include "client/text/progress.h"
#include "client/text/units.h"

namespace mmud::client {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;

// Memory of the short migrations that compare orders of sending.
constexpr int64_t kComparedBytes = int64_t{128} << 20;

// The number of the dirty mark that the daemon loses, among marks of pages that
// were copied before. An early mark leaves a long time in which the guest may
// write to the page again. If the guest never does, for example because the
// page holds one of its page tables, the lost mark does no harm, and the run is
// repeated with another mark.
constexpr int kDroppedMarks[] = {1, 40, 100, 200, 400, 800};

struct Flags {
  std::string mmud;
  std::string address;
  std::string metrics_address;
  std::string trace_dir = "traces";
  std::string trace = "sort.trace";
  std::string mmu = "tdp";
  int64_t memory_bytes = 4 * kGib;
  ControllerOptions controller;
  int64_t split_pages_per_second = 400'000;
  bool no_pacing = false;
  bool no_order_comparison = false;
  bool serve = false;
  std::string json;
  std::string inject;
  int dropped_mark = 0;
};

volatile sig_atomic_t interrupted = 0;

void Interrupt(int) { interrupted = 1; }

// Steps, progress and rounds as lines on the terminal.
class Narrator final : public ControllerObserver {
 public:
  Narrator() : style_(StyleFor(STDERR_FILENO)) {}

  void OnStep(const std::string& step) override {
    progress_.reset();
    std::cout << "-- " << step << std::endl;
    // Without a terminal no progress is shown, since lines of progress would
    // interrupt the report.
    if (style_ == ProgressStyle::kBar) {
      progress_ = std::make_unique<Progress>(&std::cerr, style_, "  ");
    }
  }

  void OnProgress(double share, const std::string& words) override {
    if (progress_ != nullptr) progress_->Update(share, words);
  }

  void OnRound(const MigrationRound& round) override {
    progress_.reset();
    std::cout << "   " << FormatCount(round.page_count) << " pages, "
              << FormatBytes(round.sent_bytes) << " in "
              << FormatTime(round.wall_time) << "; "
              << FormatCount(round.remaining_page_count) << " dirty meanwhile, "
              << FormatCount(round.in_flight_page_count) << " in flight"
              << std::endl;
  }

  void End() { progress_.reset(); }

 private:
  const ProgressStyle style_;
  std::unique_ptr<Progress> progress_;
};

// Half of the memory is backed by 2M pages and half by 1G pages of the host.
// Each half is a whole number of GiB if the memory is large enough. There is a
// gap between the halves.
std::vector<v1::Memslot> MakeMemslots(int64_t memory_bytes) {
  const int64_t unit = memory_bytes >= 2 * kGib ? kGib : 2 << 20;
  const int64_t first = memory_bytes / 2 / unit * unit;
  std::vector<v1::Memslot> memslots(2);
  memslots[0].set_slot(0);
  memslots[0].set_gpa_bytes(0);
  memslots[0].set_size_bytes(first);
  memslots[0].set_host_page_size(v1::PAGE_SIZE_2M);
  memslots[1].set_slot(1);
  memslots[1].set_gpa_bytes((first / kGib + 1) * 4 * kGib);
  memslots[1].set_size_bytes(memory_bytes - first);
  memslots[1].set_host_page_size(v1::PAGE_SIZE_1G);
  return memslots;
}

// The words of --mmu.
std::vector<std::string> MmuWords() {
  std::vector<std::string> words;
  for (const GuestMmu& mmu : GuestMmus()) words.push_back(mmu.word);
  return words;
}

// The guest's MMU.
v1::Vm MakeVm(const std::string& word) {
  v1::Vm vm;
  for (const GuestMmu& mmu : GuestMmus()) {
    if (mmu.word == word) mmu.select(&vm);
  }
  return vm;
}

template <typename T, typename Parse>
CLI::Option* AddParsed(CLI::App& app, const std::string& name, T* value,
                       Parse parse, const std::string& help) {
  return app.add_option_function<std::string>(
      name,
      [name, value, parse](const std::string& text) {
        const auto parsed = parse(text);
        if (!parsed.ok()) {
          throw CLI::ValidationError(name,
                                     std::string(parsed.status().message()));
        }
        *value = *parsed;
      },
      help);
}

void AddFlags(CLI::App& app, Flags* flags) {
  ControllerOptions& controller = flags->controller;
  CLI::Option* mmud = app.add_option(
      "--mmud", flags->mmud, "daemon to start; it ends with this program");
  CLI::Option* address =
      app.add_option("--address", flags->address,
                     "use a running daemon: unix:/path or host:port")
          ->excludes(mmud);
  app.add_option("--metrics-address", flags->metrics_address,
                 "address at which that daemon serves /metrics, for the report")
      ->needs(address);
  app.add_option("--trace-dir", flags->trace_dir,
                 "folder of recorded traces (default: traces)");
  app.add_option("--trace", flags->trace,
                 "trace that the guest replays: a name in --trace-dir, or a "
                 "file (default: sort.trace)");
  app.add_option("--mmu", flags->mmu,
                 "kind of MMU: tdp, two-dimensional paging; tdp-shadow, the "
                 "same with direct shadow pages; shadow, the guest has a "
                 "kernel whose page tables are shadowed; nested, the guest is "
                 "a hypervisor with a guest of its own; stage2, arm64 "
                 "(default: tdp)")
      ->type_name(absl::StrJoin(MmuWords(), "|"))
      ->transform([](const std::string& text) {
        return absl::StrReplaceAll(text, {{"_", "-"}});
      })
      ->check(CLI::IsMember(MmuWords()));
  AddParsed(app, "--memory", &flags->memory_bytes, ParseBytes,
            "guest memory: half on 2M pages, half on 1G pages (default: 4GiB)")
      ->type_name("SIZE");
  app.add_option("--vcpus", controller.vcpu_count, "vCPUs (default: 2)");
  app.add_option("--rate", controller.accesses_per_second_per_vcpu,
                 absl::StrCat("accesses per second of each vCPU; 0: no limit "
                              "(default: ",
                              controller.accesses_per_second_per_vcpu, ")"));
  AddParsed(app, "--bandwidth,--bandwidth-bytes-per-second",
            &controller.bandwidth_bytes_per_second, ParseBandwidth,
            absl::StrCat("of the link: 10Gbit/s, 125MB/s or bytes per second "
                         "(default: ",
                         FormatBandwidth(static_cast<double>(
                             controller.bandwidth_bytes_per_second)),
                         ")"))
      ->type_name("BANDWIDTH");
  AddParsed(
      app, "--downtime", &controller.downtime_target, ParseTime,
      absl::StrCat("maximum time for which the guest is paused (default: ",
                   FormatTime(controller.downtime_target), ")"))
      ->type_name("TIME");
  app.add_option(
      "--min-rounds", controller.min_rounds,
      "minimum number of rounds before the guest is paused (default: 3)");
  app.add_option(
      "--max-rounds", controller.max_rounds,
      "maximum number of rounds before the guest is paused (default: 10)");
  app.add_option("--split-pages-per-second", flags->split_pages_per_second,
                 "pace of the split, in 4 KiB pages; 0: no limit (default: "
                 "400000)");
  app.add_flag("--no-pacing", flags->no_pacing,
               "copy at full speed instead of the link's");
  app.add_flag("--no-order-comparison", flags->no_order_comparison,
               "leave out the short migrations that show what the order of "
               "sending is worth");
  app.add_flag("--serve", flags->serve,
               "keep the daemon and the guest running afterwards");
  app.add_option("--json", flags->json, "file to write the report to");
  app.add_option("--inject", flags->inject,
                 "drop-one-mark: the daemon, a test build, forgets one dirty "
                 "mark; the run must fail and name the page")
      ->check(CLI::IsMember({"drop-one-mark"}))
      ->needs(mmud);
}

void PrintServing(const std::string& address, const std::string& metrics,
                  const std::string& vm, pid_t pid) {
  std::cout << "\nThe daemon"
            << (pid > 0 ? absl::StrCat(" (pid ", pid, ")") : std::string())
            << " keeps running, and so does the guest. In another terminal:\n"
            << "  export MMUD_ADDRESS=" << address << "\n"
            << "  bazel-bin/client/mmuctl/mmuctl vm get " << vm << "\n"
            << "  bazel-bin/client/mmuctl/mmuctl workload status " << vm << "\n"
            << "  bazel-bin/client/mmuctl/mmuctl dirty-log start " << vm << "\n"
            << "  bazel-bin/client/mmuctl/mmuctl dirty-log peek " << vm << "\n"
            << "  bazel-bin/client/mmuctl/mmuctl dirty-log harvest " << vm
            << "\n"
            << "  bazel-bin/client/mmuctl/mmuctl --help\n";
  if (!metrics.empty()) std::cout << "  curl " << metrics << "\n";
  std::cout << "Ctrl-C ends it." << std::endl;
}

int Fail(const absl::Status& status, const std::string& address) {
  std::cerr << RenderError(status, address);
  return ExitCodeFor(status);
}

// Two short migrations with the same program. The guest of the long one is
// paused meanwhile.
absl::StatusOr<std::vector<OrderOutcome>> CompareOrders(const Flags& flags,
                                                        Client* client,
                                                        Narrator* narrator) {
  const absl::StatusOr<OrderWorkload> workload =
      TraceInItsPages(flags.trace_dir, flags.trace, kComparedBytes,
                      flags.controller.vcpu_count);
  if (!workload.ok()) return workload.status();
  ControllerOptions options = ShortMigration(flags.controller, kComparedBytes);
  options.vm_id += "-order";
  narrator->OnStep("two short migrations, without and with the order");
  ControllerObserver quiet;
  return CompareOrders(client, options, *workload,
                       {SendOrder::kAscending, SendOrder::kColdestFirst},
                       &quiet);
}

int Run(Flags flags) {
  // Most of this guest is zeros, and its program moves on to new pages: an
  // order by heat would only cost time. The short migrations show its gain.
  flags.controller.order = SendOrder::kAscending;
  // The daemon's trace directory is the folder of this file, which lies outside
  // of --trace-dir.
  const std::filesystem::path trace = flags.trace;
  if (trace.has_parent_path() && std::filesystem::exists(trace)) {
    flags.trace_dir = trace.parent_path().string();
    flags.trace = trace.filename().string();
  }
  std::unique_ptr<DaemonProcess> daemon;
  if (flags.address.empty()) {
    std::vector<std::string> daemon_flags = {
        absl::StrCat("--trace_dir=",
                     std::filesystem::absolute(flags.trace_dir).string()),
        "--enable_debug_service"};
    if (!flags.inject.empty()) {
      daemon_flags.push_back(
          absl::StrCat("--inject=", flags.inject, ":", flags.dropped_mark));
    }
    absl::StatusOr<std::unique_ptr<DaemonProcess>> started =
        DaemonProcess::Start(flags.mmud, std::move(daemon_flags));
    if (!started.ok()) return Fail(started.status(), "");
    daemon = *std::move(started);
    flags.address = daemon->address();
    flags.metrics_address = daemon->metrics_address();
    std::cout << "mmud serves " << flags.address
              << (flags.metrics_address.empty() ? "" : " and ")
              << flags.metrics_address << std::endl;
  }
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(flags.address);
  if (!client.ok()) return Fail(client.status(), flags.address);

  flags.controller.vm = MakeVm(flags.mmu);
  flags.controller.memslots = MakeMemslots(flags.memory_bytes);
  flags.controller.trace_name = flags.trace;
  flags.controller.owner = absl::StrCat("quickstart, pid ", getpid());
  v1::Throttle& throttle = flags.controller.split_throttle;
  throttle.set_max_pages_per_second(flags.split_pages_per_second);
  if (flags.no_pacing) flags.controller.pacing = Pacing::kNone;
  Narrator narrator;
  ReferenceController controller(client->get(), flags.controller, &narrator);
  absl::StatusOr<MigrationReport> report = controller.Run();
  narrator.End();
  if (!report.ok()) {
    const int exit_code = Fail(report.status(), flags.address);
    if (daemon == nullptr) {
      controller.Delete().IgnoreError();  // the first error is more useful
    } else if (!daemon->Running()) {
      std::cerr << "mmud has ended; the end of its log:\n" << daemon->LogTail();
    }
    return exit_code;
  }
  report->metrics_address = flags.metrics_address;
  if (!flags.no_order_comparison && flags.inject.empty()) {
    absl::StatusOr<std::vector<OrderOutcome>> orders =
        CompareOrders(flags, client->get(), &narrator);
    narrator.End();
    if (orders.ok()) {
      report->orders = *std::move(orders);
    } else {
      std::cerr << "note: orders were not compared: "
                << orders.status().message() << "\n";
    }
  }
  std::cout << "\n" << ToText(*report) << std::flush;
  if (!flags.json.empty()) {
    std::ofstream file(flags.json);
    file << ToJson(*report);
    file.close();
    if (!file) {
      return Fail(
          absl::InternalError(absl::StrCat(flags.json, " cannot be written")),
          "");
    }
    std::cout << "report: " << flags.json << "\n";
  }
  if (flags.serve) {
    if (absl::Status status = controller.Resume(); !status.ok()) {
      return Fail(status, flags.address);
    }
    std::cout << "\n" << Verdict(*report);
    PrintServing(flags.address, flags.metrics_address, report->vm,
                 daemon == nullptr ? 0 : daemon->pid());
    while (interrupted == 0 && (daemon == nullptr || daemon->Running())) {
      absl::SleepFor(absl::Milliseconds(100));
    }
  }
  if (absl::Status status = controller.Delete(); !status.ok()) {
    return Fail(status, flags.address);
  }
  if (!flags.serve) std::cout << "\n" << Verdict(*report) << std::flush;
  return report->equal ? kExitOk : kExitFailed;
}

}  // namespace
}  // namespace mmud::client

int main(int argc, char** argv) {
  using namespace mmud::client;
  Flags flags;
  flags.controller.accesses_per_second_per_vcpu = 2'000'000;
  // With this link and downtime a run of half a minute takes a few rounds.
  flags.controller.bandwidth_bytes_per_second = 125'000'000;
  flags.controller.downtime_target = absl::Milliseconds(30);
  CLI::App app(
      "Prepares a live migration of a guest that runs a real program, with "
      "nothing but\nmmud's public API, and compares all of guest memory with "
      "the copy at the end.\nExit code 0: equal. 1: different; the pages are "
      "named.",
      "quickstart");
  AddFlags(app, &flags);
  app.footer(
      "examples:\n"
      "  quickstart --mmud bazel-bin/server/mmud\n"
      "  quickstart --mmud bazel-bin/server/mmud --trace gzip.trace "
      "--bandwidth 10Gbit/s --downtime 300ms\n"
      "  quickstart --mmud bazel-bin/server/mmud --serve\n"
      "  quickstart --mmud bazel-bin/server/mmud --mmu nested\n"
      "  quickstart --address unix:/run/mmud/mmud.sock --json report.json\n"
      "  quickstart --mmud bazel-bin/server/mmud_fault_injection "
      "--inject=drop-one-mark\n\n" +
      ExitCodeHelp());
  try {
    app.parse(argc, argv);
    if (flags.mmud.empty() && flags.address.empty()) {
      throw CLI::RequiredError("one of --mmud and --address");
    }
    if (flags.memory_bytes < (8 << 20) || flags.memory_bytes % (4 << 20) != 0) {
      throw CLI::ValidationError("--memory",
                                 "must be a multiple of 4MiB from 8MiB on");
    }
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::cerr << "error: " << error.what()
              << "\n  fix:     see quickstart --help\n";
    return kExitUsage;
  }
  signal(SIGPIPE, SIG_IGN);
  if (flags.serve) {
    signal(SIGINT, Interrupt);
    signal(SIGTERM, Interrupt);
  }
  if (flags.inject.empty()) return Run(std::move(flags));
  for (const int mark : kDroppedMarks) {
    flags.dropped_mark = mark;
    if (const int exit_code = Run(flags); exit_code != kExitOk) {
      return exit_code;
    }
    std::cerr << "The page whose mark (number " << mark
              << ") was lost was not written again.\n";
  }
  std::cerr << "error: the lost mark was never noticed\n";
  return kExitFailed;
}
