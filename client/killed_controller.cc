// Runs the reference controller and kills it at a given point:
//
//   killed_controller ADDRESS VM DESTINATION POINT COUNT
//
// Takes over the guest vms/VM and the file DESTINATION. It stores its tokens
// beside the file, so the next controller can do the same. When pages reach
// POINT (in-flight, read, arrived; or never) for the COUNT-th time, it dies as
// from SIGKILL. Otherwise its exit code is 0 if guest memory and file are
// equal.

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/reference_controller.h"

namespace mmud::client {
namespace {

class Killer final : public ControllerObserver {
 public:
  Killer(const std::string& point, int count) : point_(point), count_(count) {}

  void OnPages(Pages pages) override {
    const char* const name = pages == Pages::kInFlight ? "in-flight"
                             : pages == Pages::kRead   ? "read"
                                                       : "arrived";
    if (point_ == name && --count_ == 0) kill(getpid(), SIGKILL);
  }

 private:
  const std::string point_;
  int count_;
};

int Fail(const absl::Status& status) {
  std::cerr << absl::StatusCodeToString(status.code()) << ": "
            << status.message() << "\n";
  return EXIT_FAILURE;
}

int Run(char** argv) {
  int count = 0;
  if (!absl::SimpleAtoi(argv[5], &count)) return EXIT_FAILURE;
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(argv[1]);
  if (!client.ok()) return Fail(client.status());
  ControllerOptions options;
  options.vm_id = argv[2];
  options.destination = argv[3];
  options.owner = absl::StrCat("killed controller ", getpid());
  options.pacing = Pacing::kNone;
  Killer killer(argv[4], count);
  ReferenceController controller(client->get(), options, &killer);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  if (!report.ok()) return Fail(report.status());
  std::cerr << Verdict(*report);
  return report->equal ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace mmud::client

int main(int argc, char** argv) {
  if (argc != 6) return EXIT_FAILURE;
  return mmud::client::Run(argv);
}
