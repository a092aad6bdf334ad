// The controller that tests/kills/run kills:
//
//   controller ADDRESS VM DESTINATION [MISTAKE]
//
// Takes over the guest vms/VM and the file DESTINATION, as the reference
// controller does, and prints a line at each step and when the pages of a round
// reach the next state. Exit code 0: guest memory and file are equal. 1: they
// differ. 2: it failed, and the last line of stderr is the error, as
//
//   CODE REASON: message
//
// REASON is "-" if the daemon gave none.
//
// MISTAKE shows that the script notices a broken controller:
//
//   acknowledge-first  acknowledges the pages of each round before it copies
//                      them, so a kill in between loses them
//   claim-success      exit code 0 even if it failed
//   hang               never ends if it failed

#include <unistd.h>

#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/owner_token.h"
#include "client/reference_controller.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {
namespace {

constexpr int kDiffer = 1;
constexpr int kFailed = 2;

constexpr char kAcknowledgeFirst[] = "acknowledge-first";
constexpr char kClaimSuccess[] = "claim-success";
constexpr char kHang[] = "hang";

struct Arguments {
  std::string address;
  std::string vm;
  std::string destination;
  std::string mistake;
};

// Prints the steps. Each line is written at once, so that it is not lost if the
// controller is killed.
class Announcer final : public ControllerObserver {
 public:
  // `client` outlives this object.
  Announcer(Client* client, const Arguments& arguments)
      : client_(client), arguments_(arguments) {}

  void OnStep(const std::string& step) override {
    std::cout << "step " << step << std::endl;
  }

  void OnPages(Pages pages) override {
    if (pages == Pages::kInFlight && arguments_.mistake == kAcknowledgeFirst) {
      AcknowledgeAll();
    }
    std::cout << "pages "
              << (pages == Pages::kInFlight ? "in flight"
                  : pages == Pages::kRead   ? "read"
                                            : "arrived")
              << std::endl;
  }

 private:
  // Acknowledges the pages in flight, none of which has been copied.
  void AcknowledgeAll() {
    std::string token(kOwnerTokenBytes, '\0');
    std::ifstream(arguments_.destination + ".token", std::ios::binary)
        .read(token.data(), static_cast<std::streamsize>(token.size()));
    v1::GetDirtyLogRequest get;
    get.set_vm(absl::StrCat("vms/", arguments_.vm));
    const auto log = client_->dirty_log().GetDirtyLog(get);
    absl::Status status = log.status();
    if (log.ok()) {
      v1::AcknowledgePagesRequest acknowledge;
      acknowledge.set_vm(get.vm());
      acknowledge.set_owner_token(token);
      acknowledge.set_epoch(log->dirty_log().sealed_epoch());
      status = client_->dirty_log().AcknowledgePages(acknowledge).status();
    }
    if (!status.ok()) std::cerr << "the mistake: " << status << std::endl;
  }

  Client* const client_;
  const Arguments arguments_;
};

int Fail(const absl::Status& status, const std::string& mistake) {
  const ErrorInfo info = ErrorInfoOf(status);
  std::cerr << absl::StatusCodeToString(status.code()) << " "
            << (info.reason.empty() ? "-" : info.reason) << ": " << info.message
            << std::endl;
  if (mistake == kHang) {
    while (true) pause();
  }
  return mistake == kClaimSuccess ? 0 : kFailed;
}

int Run(const Arguments& arguments) {
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(arguments.address);
  if (!client.ok()) return Fail(client.status(), arguments.mistake);
  ControllerOptions options;
  options.vm_id = arguments.vm;
  options.destination = arguments.destination;
  options.owner = absl::StrCat("controller ", getpid());
  options.pacing = Pacing::kNone;
  Announcer announcer(client->get(), arguments);
  ReferenceController controller(client->get(), options, &announcer);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  if (!report.ok()) return Fail(report.status(), arguments.mistake);
  std::cerr << Verdict(*report);
  return report->equal ? 0 : kDiffer;
}

}  // namespace
}  // namespace mmud::client

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::cerr << "usage: controller ADDRESS VM DESTINATION [MISTAKE]\n";
    return mmud::client::kFailed;
  }
  return mmud::client::Run(
      {argv[1], argv[2], argv[3], argc == 5 ? argv[4] : ""});
}
