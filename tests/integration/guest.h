// A VM on a daemon, with the operations that tests repeat.

#ifndef TESTS_INTEGRATION_GUEST_H_
#define TESTS_INTEGRATION_GUEST_H_

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {

inline constexpr int64_t kPage = 4096;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;

// A memslot with slot id 0 at address 0.
v1::Memslot MakeSlot(int64_t size_bytes,
                     v1::MemoryBacking backing = v1::MEMORY_BACKING_ANONYMOUS,
                     v1::PageSize host_page_size = v1::PAGE_SIZE_4K);

// Pages of 4 KiB by number, address / 4096.
using PageSet = std::set<int64_t>;

// The result of one seal, and of one stream of ReadDirtyPages.
struct Harvest {
  grpc::Status status;
  bool complete = false;  // the trailer came, and its totals match
  std::string log_id;
  int64_t epoch = 0;              // 0: a peek
  int64_t fresh_page_count = 0;   // of the seal, for all slots together
  int64_t merged_page_count = 0;  // of the seal
  v1::DirtyLogPosition next;      // end of the last chunk
  int chunks = 0;
  PageSet pages;
};

// The owner of logs that a Guest starts, and its token.
inline constexpr char kOwner[] = "an integration test";
inline constexpr char kOwnerToken[] = "integration test's token";

// One VM. The destructor leaves it to the daemon. Thread-safe.
class Guest {
 public:
  // Creates the VM `vms/{id}`.
  Guest(const TestClient& client, const std::string& id,
        const std::vector<v1::Memslot>& slots, int vcpu_count = 1);
  // Uses an existing VM.
  Guest(const TestClient& client, const std::string& name)
      : client_(client), name_(name) {}

  const std::string& name() const { return name_; }
  v1::Vm Get() const;

  // Starts a workload and returns its name.
  std::string Start(const lab::v1::Workload& workload) const;
  // Waits until this workload has ended, and returns it.
  lab::v1::Workload AwaitEnd(const std::string& workload) const;
  // Starts a workload, waits until it has ended, and returns it.
  lab::v1::Workload RunToEnd(const lab::v1::Workload& workload) const {
    return AwaitEnd(Start(workload));
  }
  // The workload that runs or ran last; without a name if there was none.
  lab::v1::Workload LastWorkload() const;
  // Writes one word to every page of [0, page_count) whose number is a multiple
  // of `step`, and waits until that is done. One vCPU.
  void WritePages(int64_t page_count, int64_t step = 1) const;
  // As WritePages, but loads one word at each multiple of `stride_bytes`.
  void ReadWords(int64_t size_bytes, int64_t stride_bytes) const;
  // Writes and reads at random on all vCPUs until StopWorkload.
  std::string StartRandomWrites(int64_t seed) const;
  // Writes some 300 pages in a second. For tests that look for lost pages: a
  // page that a log has lost is hardly ever written again before the check. A
  // guest at full speed would write it again and so hide the loss.
  std::string StartFewWrites(int64_t seed) const;
  // Stops the running workload and returns it.
  lab::v1::Workload StopWorkload() const;
  // Pauses the vCPUs for an hour.
  void PauseVcpus() const;

  // Starts the log as kOwner, and waits until it is on.
  v1::StartDirtyLogResponse StartDirtyLog(
      v1::StartDirtyLogRequest request = {}) const;
  // Begins a start of the log that lasts until it is cancelled, because its
  // split waits for a throttle. Returns the operation's name. REQUIRES: the
  // guest's memory has huge pages.
  std::string BeginDirtyLog(v1::StartDirtyLogRequest request) const;
  v1::DirtyLog GetDirtyLog() const;
  // Acknowledges the pages cleared in earlier epochs, seals, and reads all
  // slots. The calls use kOwnerToken.
  Harvest Seal() const;
  // Reads any stream. `more` is called after each message: false cancels the
  // stream.
  Harvest Read(
      const v1::ReadDirtyPagesRequest& request,
      const std::function<bool()>& more = [] { return true; }) const;
  // Reads all pages that are not acknowledged.
  Harvest Peek() const { return Read({}); }
  // Clears pages of the first slot.
  Result<v1::ClearDirtyLogResponse> Clear(int64_t epoch,
                                          const PageSet& pages) const;
  Result<v1::AcknowledgePagesResponse> Acknowledge(int64_t epoch) const;
  // Copies pages into `copy`, which holds the memory from address 0 on.
  void Copy(const PageSet& pages, std::string* copy) const;
  std::string ReadAll(int64_t size_bytes) const;

  std::string StartSplit(v1::SplitHugePagesRequest request) const;
  // Starts an operation that goes on until it is cancelled: a split whose first
  // pause outlasts a test. REQUIRES: a slot of several pages of 2 MiB.
  std::string StartLongOperation() const;

  // Migrates [0, size_bytes), whose dirty log is on, in rounds of seal, clear,
  // copy and acknowledge while the guest writes at random. Pauses the guest for
  // the last round. Expects that the copy then equals the guest's memory, that
  // the guest has written, and that all invariants hold.
  void ExpectThatAMigrationCopiesAll(int64_t size_bytes) const;

  // Audits the VM: "" if all invariants hold.
  std::string Audit() const;

 private:
  void Sweep(int64_t page_count, int64_t stride_bytes, double writes) const;

  const TestClient& client_;
  const std::string name_;
};

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_GUEST_H_
