// Copies a running guest into a file and ends with an equal copy:
//
//   migrate ADDRESS VM FILE
//
// ADDRESS is unix:/path or host:port, VM is vms/NAME. FILE is an image of the
// guest's memory: the byte of address A is at offset A. Read-only memslots,
// which no log has, are not in it. The guest is stopped at the end. Run it
// again after it died: it goes on with the log and with FILE as they are.
// docs/writing-a-migration-controller.md explains each part.

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdint>
#include <iostream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/operations_client.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/workload_service.pb.h"

namespace {

using namespace mmud::client;
namespace v1 = mmud::v1;

// The destination.
class Image final : public PageSink {
 public:
  explicit Image(const char* path)
      : file_(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {}
  ~Image() override { close(file_); }

  // Of two controllers one has the destination, also if the other only seemed
  // to be dead.
  absl::Status Lock() const {
    if (flock(file_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
    return absl::FailedPreconditionError("another controller writes the copy");
  }

  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override {
    const ssize_t written = pwrite(file_, data.data(), data.size(), gpa_bytes);
    if (written == static_cast<ssize_t>(data.size())) return absl::OkStatus();
    return absl::InternalError("the copy cannot be written");
  }
  absl::Status OnZeros(GpaRange range) override {
    return OnData(range.gpa_bytes, std::string(range.size_bytes, '\0'));
  }

  // Everything is where a crash of this machine does not reach it.
  absl::Status Sync() const {
    if (fsync(file_) == 0) return absl::OkStatus();
    return absl::InternalError("the copy cannot be written");
  }

 private:
  const int file_;
};

// Becomes the owner of the log of `vm` by `token`. Without a log, starts one.
absl::Status TakeLog(Client& client, const std::string& vm,
                     const std::string& token) {
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(vm);
  acquire.set_owner("migrate");
  acquire.set_owner_token(token);
  // The destination is locked: no former owner can write to it any more.
  acquire.set_force(true);
  const absl::Status acquired =
      client.dirty_log().AcquireDirtyLog(acquire).status();
  if (ReasonOf(acquired) != "DIRTY_LOG_OFF") return acquired;

  v1::StartDirtyLogRequest start;
  start.set_vm(vm);
  start.set_owner("migrate");
  start.set_owner_token(token);
  // All of memory is in the log from the start: the first round copies it, and
  // the log knows what of it has not arrived.
  start.set_initially_set(true);
  auto operation = client.dirty_log().StartDirtyLog(start);
  if (!operation.ok()) return operation.status();
  operation =
      client.operations().Await(operation->name(), absl::Milliseconds(100),
                                [](const auto&) { return absl::OkStatus(); });
  if (!operation.ok()) return operation.status();
  return OperationResponse<v1::StartDirtyLogResponse>(*operation).status();
}

// One round: what is dirty is at the destination afterwards. Returns how many
// pages that were.
absl::StatusOr<int64_t> CopyDirtyPages(Harvester& harvester, PageReader& reader,
                                       Image& image) {
  const absl::StatusOr<Harvest> harvest = harvester.Run();
  if (!harvest.ok()) return harvest.status();
  absl::Status status = reader.Read(harvest->Ranges(), &image).status();
  if (status.ok()) status = image.Sync();
  // Only now, and not when the pages were sent.
  if (status.ok()) status = harvester.Delivered(harvest->epoch);
  if (!status.ok()) return status;
  return harvest->page_count();
}

absl::Status Migrate(Client& client, const std::string& vm, Image& image) {
  if (absl::Status status = image.Lock(); !status.ok()) return status;
  const std::string token = NewOwnerToken();
  if (absl::Status status = TakeLog(client, vm, token); !status.ok()) {
    return status;
  }
  Harvester harvester(&client.dirty_log(), vm, token, {});
  PageReader reader(&client.memory(), vm, {});

  // Rounds, until one is short enough to stop the guest for.
  constexpr int kMaxRounds = 30;
  constexpr int64_t kFewPages = 256;
  for (int round = 1; round <= kMaxRounds; ++round) {
    const absl::StatusOr<int64_t> pages =
        CopyDirtyPages(harvester, reader, image);
    if (!pages.ok()) return pages.status();
    std::cout << "round " << round << ": " << *pages << " pages\n";
    if (*pages <= kFewPages) break;
  }

  // The last round. Nobody writes any more, so nothing is left behind.
  v1::PauseVcpusRequest pause;
  pause.set_vm(vm);
  absl::Status status = client.workloads().PauseVcpus(pause).status();
  if (status.ok()) {
    status = CopyDirtyPages(harvester, reader, image).status();
  }
  if (status.ok()) status = harvester.Acknowledge();
  if (!status.ok()) return status;

  // Refused with UNDELIVERED_PAGES if there is a mistake above.
  v1::StopDirtyLogRequest stop;
  stop.set_vm(vm);
  stop.set_owner_token(token);
  return client.dirty_log().StopDirtyLog(stop).status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: migrate ADDRESS VM FILE\n";
    return 2;
  }
  const auto client = Client::Connect(argv[1]);
  Image image(argv[3]);
  const absl::Status status =
      client.ok() ? Migrate(**client, argv[2], image) : client.status();
  if (!status.ok()) {
    std::cerr << "migrate: " << status << "\n";
    return 1;
  }
  std::cout << argv[2] << " is stopped and copied\n";
}
