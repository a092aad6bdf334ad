// Messages of the API as text for people.

#ifndef CLIENT_MMUCTL_VIEWS_H_
#define CLIENT_MMUCTL_VIEWS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/repeated_field.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {

// "ready" for VM_STATE_READY: `name` without `prefix`, in small letters.
std::string ShortName(absl::string_view name, absl::string_view prefix);
std::string ViewPageSize(v1::PageSize size);

// "tdp", "tdp-shadow", "shadow", "nested" or "stage2".
std::string MmuName(const v1::Vm& vm);
std::string ViewVm(const v1::Vm& vm);
std::string ViewMemslots(
    const google::protobuf::RepeatedPtrField<v1::Memslot>& memslots);
// "paused since 2026-11-21 08:24:37 UTC, until 2026-11-21 08:24:47 UTC".
std::string ViewPause(const v1::VcpuPause& pause);
// "1.2 ms, lock wait 3 us, max hold 40 us, 2 flushes, 2 kicks, 512 SPTEs".
std::string ViewCost(const v1::MmuCost& cost);
// "3 open, 2 sealed and 1 pages in flight".
std::string ViewUndelivered(const v1::UndeliveredPages& pages);
// "1,024 of 2M, 2 of 1G".
std::string ViewSplits(const v1::SplitCounts& splits);

// The share of `total` that is done, at most 1; nothing if `total` is unknown.
std::optional<double> ShareOf(double done, double total);

// Kind, state and progress of an operation.
struct OperationView {
  // "split", "recover", "dirty-log", "generation"; "" if unknown.
  std::string kind;
  std::string vm;
  std::optional<double> share;
  std::string words;  // for a progress bar
  std::string state;  // "running", "done", "failed: ..."
  std::optional<WallTime> start_time;
  // How long the operation has run, or ran in all.
  std::optional<absl::Duration> running_time;
};
OperationView ViewOperation(const google::longrunning::Operation& operation);

// Everything about an operation, including its result.
std::string ViewOperationDetails(
    const google::longrunning::Operation& operation);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_VIEWS_H_
