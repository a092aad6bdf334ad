// mmuctl compare.

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/comparison/columns.h"
#include "client/comparison/html_view.h"
#include "client/comparison/json_view.h"
#include "client/comparison/plan.h"
#include "client/comparison/report_file.h"
#include "client/comparison/result.h"
#include "client/comparison/run.h"
#include "client/comparison/table_view.h"
#include "client/guest_mmu.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/interrupt.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/progress.h"
#include "mmud/v1/common.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

struct CompareArguments {
  PlanOptions options = {
      .mmu = &GuestMmus().front(),
      .policies = {LogPolicy::kLazy, LogPolicy::kEager, LogPolicy::kThrottled},
      .vcpu_counts = {1},
      .write_fractions = {1.0},
      .memory_bytes = int64_t{1} << 30,
      .throttle = {}};
  ThrottleArguments throttle;
  std::string html;
};

// With --json or --quiet, standard error has only an error or nothing.
std::string InterruptText(const Context& context, const Plan& plan) {
  if (context.json || context.quiet) return "";
  return absl::StrCat(
      "\nending; the guest's VM is being deleted. A second signal ends mmuctl "
      "at once and leaves a VM vms/",
      plan.options.name, "-... behind\n");
}

absl::StatusOr<Comparison> RunPlan(Context& context, Client& client,
                                   const Plan& plan) {
  const InterruptNote note(InterruptText(context, plan),
                           {SIGINT, SIGTERM, SIGHUP});
  const std::unique_ptr<Progress> progress = context.NewProgress("compare");
  absl::StatusOr<Comparison> comparison = RunComparison(
      client, plan,
      [&](double share, const std::string& words) -> absl::Status {
        if (const int number = note.arrived(); number != 0) {
          context.signal = number;
          return absl::CancelledError(
              absl::StrCat("interrupted by a signal (", number,
                           ") before it was done; the ", "VM was deleted"));
        }
        progress->Update(share, words);
        return absl::OkStatus();
      });
  if (comparison.ok()) {
    progress->Finish(
        absl::StrCat(plan.combinations.size() *
                         static_cast<size_t>(plan.options.repeat_count),
                     " guests"));
  }
  return comparison;
}

absl::Status Compare(Context& context, const CompareArguments& arguments) {
  PlanOptions options = arguments.options;
  arguments.throttle.ApplyTo(&options.throttle);
  const absl::StatusOr<Plan> plan = MakePlan(std::move(options));
  if (!plan.ok()) return UsageError(plan.status().message());
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  std::unique_ptr<ReportFile> html;
  if (!arguments.html.empty()) {
    absl::StatusOr<std::unique_ptr<ReportFile>> opened =
        ReportFile::Open(arguments.html);
    if (!opened.ok()) {
      return UsageError(absl::StrCat(
          "--html: ", opened.status().message(),
          "; give a file that you can write, in a folder that exists"));
    }
    html = *std::move(opened);
  }
  const absl::StatusOr<Comparison> comparison =
      RunPlan(context, **client, *plan);
  if (!comparison.ok()) return comparison.status();
  if (LostPages(*comparison)) context.exit_code = kExitFailed;
  std::string text = ViewAsTables(*comparison);
  if (html != nullptr) {
    if (absl::Status s = html->Write(ViewAsHtml(*comparison)); !s.ok()) {
      return s;
    }
    absl::StrAppend(&text, "\npage: ", arguments.html, "\n");
  }
  const absl::StatusOr<Json> json = ViewAsJson(*comparison);
  if (!json.ok()) return json.status();
  return context.Print(*json, text);
}

std::map<std::string, const GuestMmu*> MmuChoices() {
  std::map<std::string, const GuestMmu*> choices;
  for (const GuestMmu& mmu : GuestMmus()) choices[mmu.word] = &mmu;
  return choices;
}

// Adds an option with values that are separated by commas and replace the
// default.
template <typename Value>
CLI::Option* AddList(CLI::App* command, const std::string& name,
                     std::vector<Value>* values, const std::string& help) {
  return command->add_option(name, *values, help)->delimiter(',');
}

void AddPolicies(CLI::App* command, std::vector<LogPolicy>* policies) {
  command
      ->add_option_function<std::vector<std::string>>(
          "--policy",
          [policies](const std::vector<std::string>& words) {
            policies->clear();
            for (const std::string& word : words) {
              const absl::StatusOr<LogPolicy> policy =
                  FindChoice(LogPolicies(), word);
              if (!policy.ok()) {
                throw CLI::ValidationError(
                    "--policy", std::string(policy.status().message()));
              }
              policies->push_back(*policy);
            }
          },
          absl::StrCat(
              "policies to compare, separated by commas (default: all); "
              "the limits below apply to throttled (default: "
              "--max-pages-per-second ",
              kDefaultPagesPerSecond, ")"))
      ->type_name(ChoiceWords(LogPolicies()))
      ->delimiter(',');
}

}  // namespace

void AddCompareCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<CompareArguments>();
  PlanOptions& options = arguments->options;
  CLI::App* command = AddCommand(
      app, "compare",
      absl::StrCat(
          "Compares policies of dirty logging. Each policy runs on a guest of "
          "its own that makes the same accesses. The guest's memory is mapped "
          "with huge pages. The guest works at ",
          kLoadAccessesPerSecond,
          " accesses per second while the log is enabled. Then each vCPU "
          "accesses each page of its share of the memory once, at full speed. "
          "The VMs are deleted afterwards, also after Ctrl-C."),
      "mmuctl compare --memory 256MiB\n"
      "mmuctl compare --mmu tdp-shadow --policy lazy,eager --vcpus 1,8 "
      "--write-fraction 1.0,0.1\n"
      "mmuctl compare --policy eager,throttled --max-pages-per-second 100000 "
      "--max-vcpu-stall-ratio 0.01 --html compare.html");
  command->footer(absl::StrCat(ColumnHelp(), "\n", command->get_footer()));
  AddChoice(command, "--mmu", &options.mmu, MmuChoices(),
            "kind of MMU, as in mmuctl vm create (default: tdp)");
  AddPolicies(command, &options.policies);
  AddList(command, "--vcpus", &options.vcpu_counts,
          "numbers of vCPUs, separated by commas (default: 1)")
      ->type_name("N");
  AddList(command, "--write-fraction", &options.write_fractions,
          "shares of writes among the accesses, more than 0 and at most 1, "
          "separated by commas (default: 1.0)")
      ->type_name("SHARE");
  AddBytes(command, "--memory", &options.memory_bytes,
           "memory of each guest, shared by its vCPUs (default: 1GiB)");
  AddChoice(command, "--huge-page-size", &options.huge_page_size,
            {{"2m", v1::PAGE_SIZE_2M}, {"1g", v1::PAGE_SIZE_1G}},
            "page size of the host's own mapping (default: 2m)");
  command->add_option("--seed", options.seed,
                      "seed of the guests' random numbers (default: 1)");
  command->add_option("--repeat", options.repeat_count,
                      "runs of each guest, 1 to 99; the run with the median "
                      "time to dirty memory is shown (default: 1)");
  AddTime(command, "--time-limit", &options.time_limit,
          "limit on each step of a guest, up to 1h (default: 1m)");
  command->add_option("--name", options.name,
                      "beginning of the names of the VMs (default: compare)");
  command
      ->add_option("--html", arguments->html,
                   "also write the results to this file, as a page with charts")
      ->type_name("FILE");
  AddThrottle(command, &arguments->throttle);
  Run(command, context, arguments, Compare);
}

}  // namespace mmud::client
