// mmud with faults that a test can switch on. Not for production.

#include <cstdint>
#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "mmu_core/testing/fault_injection.h"
#include "server/daemon.h"
#include "server/log/logging.h"

ABSL_FLAG(std::string, inject, "",
          "The fault to inject. drop-one-mark:N loses the Nth dirty mark of a "
          "page that was cleared before.");

namespace {

absl::Status Arm() {
  const std::string fault = absl::GetFlag(FLAGS_inject);
  if (fault.empty()) return absl::OkStatus();
  absl::string_view rest = fault;
  uint64_t nth = 0;
  if (!absl::ConsumePrefix(&rest, "drop-one-mark:") ||
      !absl::SimpleAtoi(rest, &nth) || nth == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--inject is \"", fault,
                     "\"; it must be drop-one-mark:N with N from 1"));
  }
  mmu::testing::ArmDropOneMark(nth);
  mmud::Log(mmud::LogLevel::kWarning, "fault injection is armed",
            {{"fault", fault}});
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  return mmud::RunDaemon(
      argc, argv, {.build = mmud::BuildVariant::kFaultInjection, .arm = Arm});
}
