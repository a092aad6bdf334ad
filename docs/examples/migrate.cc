// Copies a running guest into a file and ends with an equal copy:
//
//   migrate ADDRESS VM FILE
//
// ADDRESS is unix:/path or host:port, VM is vms/NAME. FILE is an image of the
// guest's memory: the byte of address A is at offset A. It does not contain
// read-only memslots, which are not logged. If this program died, run it again:
// it continues with the same log and the same FILE. FILE.token, readable by its
// owner only, ties the two together. A log that does not belong to FILE is left
// alone.
//
// At the end the guest is paused for ten minutes. Then it runs again, whether
// or not the destination runs. Extend the pause until the destination runs, and
// then delete the VM.
//
// docs/writing-a-migration-controller.md explains each part.

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
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
#include "mmud/v1/error_reasons.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace {

using namespace mmud::client;
namespace v1 = mmud::v1;

constexpr char kOwner[] = "migrate";
// No call renews the lease while pages are copied, so the lease is longer than
// the copy of one round. It keeps others from the log, but not the next run.
constexpr int64_t kLeaseSeconds = 300;
// Length of the guest's pause: longer than the last round.
constexpr int64_t kPauseSeconds = 600;

// The destination.
class Image final : public PageSink {
 public:
  explicit Image(const char* path)
      : file_(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {}
  ~Image() override { close(file_); }

  bool is_open() const { return file_ >= 0; }

  // Only one of two controllers can have the destination, even if the other one
  // is alive although it seemed dead.
  absl::Status Lock() const {
    if (flock(file_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
    return absl::FailedPreconditionError("another controller writes the copy");
  }

  // True if nothing was copied to it yet, or if its contents are lost.
  bool is_empty() const { return lseek(file_, 0, SEEK_END) == 0; }
  // Writes a page of zeros, so that the file is no longer empty.
  absl::Status Begin() const {
    if (ftruncate(file_, kPageBytes) == 0) return absl::OkStatus();
    return absl::InternalError("the copy cannot be written");
  }

  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override {
    const ssize_t written = pwrite(file_, data.data(), data.size(), gpa_bytes);
    if (written == static_cast<ssize_t>(data.size())) return absl::OkStatus();
    return absl::InternalError("the copy cannot be written");
  }
  absl::Status OnZeros(GpaRange range) override {
    return OnData(range.gpa_bytes, std::string(range.size_bytes, '\0'));
  }

  // Makes all contents survive a crash of this machine.
  absl::Status Sync() const {
    if (fsync(file_) == 0) return absl::OkStatus();
    return absl::InternalError("the copy cannot be written");
  }

 private:
  const int file_;
};

// FILE.token: the token of the last run, and the token of the owner from which
// that run took the log. Wherever that run died, one of the two tokens owns the
// log.
class Tokens {
 public:
  explicit Tokens(const std::string& path)
      : file_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    std::string both(2 * kOwnerTokenBytes, '\0');
    const ssize_t size = pread(file_, both.data(), both.size(), 0);
    if (size != static_cast<ssize_t>(both.size())) return;
    last_ = {both.substr(0, kOwnerTokenBytes), both.substr(kOwnerTokenBytes)};
  }
  ~Tokens() { close(file_); }
  Tokens(const Tokens&) = delete;
  Tokens& operator=(const Tokens&) = delete;

  // Both tokens, or none.
  const std::vector<std::string>& last() const { return last_; }

  absl::Status Drop() {
    last_.clear();
    if (ftruncate(file_, 0) == 0 && fsync(file_) == 0) return absl::OkStatus();
    return absl::InternalError("FILE.token cannot be written");
  }

  // Makes a new token and writes it to the file before it is used, so it is not
  // lost with an answer. `former`, unless empty, is kept beside it.
  absl::StatusOr<std::string> New(const std::string& former) {
    const std::string token = NewOwnerToken();
    const std::string both = token + (former.empty() ? token : former);
    const ssize_t size = pwrite(file_, both.data(), both.size(), 0);
    if (size == static_cast<ssize_t>(both.size()) && fsync(file_) == 0) {
      return token;
    }
    return absl::InternalError("FILE.token cannot be written");
  }

 private:
  const int file_;
  std::vector<std::string> last_;
};

// If FILE is empty, the pages that an earlier run copied are lost, and the log
// has only the rest. So the tokens are dropped. FILE stays empty until they are
// gone: a run that dies in between leaves no token beside a FILE that looks
// like a copy.
absl::Status DropIfEmpty(const Image& image, Tokens& tokens) {
  if (!image.is_empty()) return absl::OkStatus();
  const absl::Status dropped = tokens.Drop();
  return dropped.ok() ? image.Begin() : dropped;
}

// Takes the log over from an earlier run, which owns it by the token `former`.
// The pages in flight are sealed again. Returns the token of the new ownership.
absl::StatusOr<std::string> TakeOver(Client& client, const std::string& vm,
                                     const std::string& log_id,
                                     const std::string& former,
                                     Tokens& tokens) {
  const absl::StatusOr<std::string> token = tokens.New(former);
  if (!token.ok()) return token;
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(vm);
  acquire.set_owner(kOwner);
  acquire.set_owner_token(*token);
  acquire.set_log_id(log_id);
  acquire.mutable_lease()->set_seconds(kLeaseSeconds);
  // The destination is locked, so no former owner can write to it.
  acquire.set_force(true);
  const absl::Status acquired =
      client.dirty_log().AcquireDirtyLog(acquire).status();
  if (!acquired.ok()) return acquired;
  return token;
}

// Starts a log, with the stored token if there is one: a start by a dead run
// with this token may still be running, and its log will belong to the token.
// Returns the owner's token.
absl::StatusOr<std::string> StartLog(Client& client, const std::string& vm,
                                     Tokens& tokens) {
  const absl::StatusOr<std::string> token =
      tokens.last().empty() ? tokens.New("") : tokens.last().front();
  if (!token.ok()) return token;
  v1::StartDirtyLogRequest start;
  start.set_vm(vm);
  start.set_owner(kOwner);
  start.set_owner_token(*token);
  start.mutable_lease()->set_seconds(kLeaseSeconds);
  // All pages are dirty at the start: the first round copies them, and the log
  // knows which of them have not arrived.
  start.set_initially_set(true);
  auto operation = client.dirty_log().StartDirtyLog(start);
  if (ReasonOf(operation.status()) == v1::DIRTY_LOG_ACTIVE) {
    return absl::FailedPreconditionError(absl::StrCat(
        vm, " has a dirty log that is not FILE's, of ",
        ErrorInfoOf(operation.status()).metadata["owner"],
        "; what it has delivered is not in FILE: run with the FILE of that log "
        "and the FILE.token beside it, or stop it (mmuctl dirty-log stop "
        "--force)"));
  }
  if (!operation.ok()) return operation.status();
  operation =
      client.operations().Await(operation->name(), absl::Milliseconds(100),
                                [](const auto&) { return absl::OkStatus(); });
  if (!operation.ok()) return operation.status();
  const absl::Status started =
      OperationResponse<v1::StartDirtyLogResponse>(*operation).status();
  if (!started.ok()) return started;
  return token;
}

// Becomes the owner of the log of `vm` if an earlier run with FILE owns it.
// Starts a log if there is none. Returns the owner's token.
absl::StatusOr<std::string> TakeLog(Client& client, const std::string& vm,
                                    Tokens& tokens) {
  for (const std::string& token : tokens.last()) {
    // Only the owner can seal, and a seal discards nothing.
    v1::SealDirtyLogRequest seal;
    seal.set_vm(vm);
    seal.set_owner_token(token);
    const auto sealed = client.dirty_log().SealDirtyLog(seal);
    if (sealed.ok()) {
      return TakeOver(client, vm, sealed->log_id(), token, tokens);
    }
    const v1::ErrorReason reason = ReasonOf(sealed.status());
    if (reason != v1::LOG_OWNED && reason != v1::LOG_FENCED &&
        reason != v1::DIRTY_LOG_OFF) {
      return sealed.status();
    }
  }
  return StartLog(client, vm, tokens);
}

// Copies all dirty pages to the destination, in one round. Returns the number
// of pages.
absl::StatusOr<int64_t> CopyDirtyPages(Harvester& harvester, PageReader& reader,
                                       Image& image) {
  const absl::StatusOr<Harvest> harvest = harvester.Run();
  if (!harvest.ok()) return harvest.status();
  absl::Status status = reader.Read(harvest->Ranges(), &image).status();
  if (status.ok()) status = image.Sync();
  // Acknowledge only now, and not when the pages were sent.
  if (status.ok()) status = harvester.Delivered(harvest->epoch);
  if (!status.ok()) return status;
  return harvest->page_count();
}

absl::Status Migrate(Client& client, const std::string& vm,
                     const std::string& path) {
  Image image(path.c_str());
  if (!image.is_open()) {
    return absl::FailedPreconditionError(path + " cannot be opened");
  }
  if (absl::Status status = image.Lock(); !status.ok()) return status;
  // Read the tokens only now: before, they may belong to a run that has FILE.
  Tokens tokens(path + ".token");
  if (absl::Status status = DropIfEmpty(image, tokens); !status.ok()) {
    return status;
  }
  const absl::StatusOr<std::string> token = TakeLog(client, vm, tokens);
  if (!token.ok()) return token.status();
  Harvester harvester(&client.dirty_log(), vm, *token, {});
  PageReader reader(&client.memory(), vm, {});

  // Rounds, until one is short enough for pausing the guest.
  constexpr int kMaxRounds = 30;
  constexpr int64_t kFewPages = 256;
  for (int round = 1; round <= kMaxRounds; ++round) {
    const absl::StatusOr<int64_t> pages =
        CopyDirtyPages(harvester, reader, image);
    if (!pages.ok()) return pages.status();
    std::cout << "round " << round << ": " << *pages << " pages\n";
    if (*pages <= kFewPages) break;
  }

  // The last round. The guest is paused, so no page becomes dirty afterwards.
  v1::PauseVcpusRequest pause;
  pause.set_vm(vm);
  // If this process dies, the guest continues by itself after that time.
  pause.mutable_max_duration()->set_seconds(kPauseSeconds);
  absl::Status status = client.vms().PauseVcpus(pause).status();
  if (status.ok()) {
    status = CopyDirtyPages(harvester, reader, image).status();
  }
  if (status.ok()) status = harvester.Acknowledge();
  if (!status.ok()) return status;

  // Fails with UNDELIVERED_PAGES if a step above lost track of a page.
  v1::StopDirtyLogRequest stop;
  stop.set_vm(vm);
  stop.set_owner_token(*token);
  status = client.dirty_log().StopDirtyLog(stop).status();
  // The tokens do not apply to the next log.
  return status.ok() ? tokens.Drop() : status;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: migrate ADDRESS VM FILE\n";
    return 2;
  }
  const auto client = Client::Connect(argv[1]);
  const absl::Status status =
      client.ok() ? Migrate(**client, argv[2], argv[3]) : client.status();
  if (!status.ok()) {
    std::cerr << "migrate: " << absl::StatusCodeToString(status.code()) << ": "
              << status.message() << "\n";
    return 1;
  }
  std::cout << argv[2] << " is copied, and paused for " << kPauseSeconds / 60
            << " minutes: extend the pause until the copy runs, then delete "
            << argv[2] << "\n";
}
