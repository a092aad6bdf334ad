// Copies a running guest into a file and ends with an equal copy:
//
//   migrate ADDRESS VM FILE
//
// ADDRESS is unix:/path or host:port, VM is vms/NAME. FILE is an image of the
// guest's memory: the byte of address A is at offset A. Read-only memslots,
// which no log has, are not in it. Run it again after it died: it goes on with
// the log and with FILE as they are. FILE.token, readable by its owner only, is
// what ties the two together; a log that is not FILE's is left alone.
//
// At the end the guest is paused, for ten minutes: then it runs again, whether
// or not the copy does. Extend the pause until the destination runs, and delete
// the VM then.
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
#include "mmud/v1/vm_service.pb.h"

namespace {

using namespace mmud::client;
namespace v1 = mmud::v1;

constexpr char kOwner[] = "migrate";
// No call renews the lease while pages are copied, so it is longer than that
// takes in one round. It keeps the log from others, not from the next run.
constexpr int64_t kLeaseSeconds = 300;
// How long the guest stands still: longer than the last round takes.
constexpr int64_t kPauseSeconds = 600;

// The destination.
class Image final : public PageSink {
 public:
  explicit Image(const char* path)
      : file_(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {}
  ~Image() override { close(file_); }

  bool is_open() const { return file_ >= 0; }

  // Of two controllers one has the destination, also if the other only seemed
  // to be dead.
  absl::Status Lock() const {
    if (flock(file_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
    return absl::FailedPreconditionError("another controller writes the copy");
  }

  // Nothing was copied to it yet, or all of that is gone.
  bool is_empty() const { return lseek(file_, 0, SEEK_END) == 0; }
  // Zeros, so that it is empty no more.
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

  // Everything is where a crash of this machine does not reach it.
  absl::Status Sync() const {
    if (fsync(file_) == 0) return absl::OkStatus();
    return absl::InternalError("the copy cannot be written");
  }

 private:
  const int file_;
};

// FILE.token: the token of the last run, and that of the owner which it took
// the log from. Wherever that run died, one of the two is the owner's.
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

  // Both, or none.
  const std::vector<std::string>& last() const { return last_; }

  absl::Status Drop() {
    last_.clear();
    if (ftruncate(file_, 0) == 0 && fsync(file_) == 0) return absl::OkStatus();
    return absl::InternalError("FILE.token cannot be written");
  }

  // A new token, which is in the file before anybody uses it: an answer that is
  // lost takes no token along. `former` stays beside it, if there is one.
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

// What an earlier run copied is gone if FILE is empty, so the log that knows
// the rest is of no use. FILE stays empty until the tokens are gone: a run that
// dies in between leaves no token beside a FILE that looks like a copy.
absl::Status DropIfEmpty(const Image& image, Tokens& tokens) {
  if (!image.is_empty()) return absl::OkStatus();
  const absl::Status dropped = tokens.Drop();
  return dropped.ok() ? image.Begin() : dropped;
}

// Takes the log over from an earlier run, which owns it by `former`: what that
// had in flight is sealed again. Returns the token of the new ownership.
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
  // The destination is locked: no former owner can write to it any more.
  acquire.set_force(true);
  const absl::Status acquired =
      client.dirty_log().AcquireDirtyLog(acquire).status();
  if (!acquired.ok()) return acquired;
  return token;
}

// Starts a log, by the token that is kept if there is one: a run that died may
// have a start at work by it, whose log is nobody else's then. Returns the
// token of its owner.
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
  // All of memory is in the log from the start: the first round copies it, and
  // the log knows what of it has not arrived.
  start.set_initially_set(true);
  auto operation = client.dirty_log().StartDirtyLog(start);
  if (ReasonOf(operation.status()) == "DIRTY_LOG_ACTIVE") {
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

// Becomes the owner of the log of `vm`, if it is FILE's: an earlier run with
// FILE owns it. Without a log, starts one. Returns the owner's token.
absl::StatusOr<std::string> TakeLog(Client& client, const std::string& vm,
                                    Tokens& tokens) {
  for (const std::string& token : tokens.last()) {
    // Nobody but the owner can seal, and a seal forgets nothing.
    v1::SealDirtyLogRequest seal;
    seal.set_vm(vm);
    seal.set_owner_token(token);
    const auto sealed = client.dirty_log().SealDirtyLog(seal);
    if (sealed.ok()) {
      return TakeOver(client, vm, sealed->log_id(), token, tokens);
    }
    const std::string reason = ReasonOf(sealed.status());
    if (reason != "LOG_OWNED" && reason != "LOG_FENCED" &&
        reason != "DIRTY_LOG_OFF") {
      return sealed.status();
    }
  }
  return StartLog(client, vm, tokens);
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

absl::Status Migrate(Client& client, const std::string& vm,
                     const std::string& path) {
  Image image(path.c_str());
  if (!image.is_open()) {
    return absl::FailedPreconditionError(path + " cannot be opened");
  }
  if (absl::Status status = image.Lock(); !status.ok()) return status;
  // Only now: until then they may be those of a run that has FILE.
  Tokens tokens(path + ".token");
  if (absl::Status status = DropIfEmpty(image, tokens); !status.ok()) {
    return status;
  }
  const absl::StatusOr<std::string> token = TakeLog(client, vm, tokens);
  if (!token.ok()) return token.status();
  Harvester harvester(&client.dirty_log(), vm, *token, {});
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
  // Should this process die, the guest goes on by itself then.
  pause.mutable_max_duration()->set_seconds(kPauseSeconds);
  absl::Status status = client.vms().PauseVcpus(pause).status();
  if (status.ok()) {
    status = CopyDirtyPages(harvester, reader, image).status();
  }
  if (status.ok()) status = harvester.Acknowledge();
  if (!status.ok()) return status;

  // Refused with UNDELIVERED_PAGES if there is a mistake above.
  v1::StopDirtyLogRequest stop;
  stop.set_vm(vm);
  stop.set_owner_token(*token);
  status = client.dirty_log().StopDirtyLog(stop).status();
  // The next log has nothing to do with these tokens.
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
