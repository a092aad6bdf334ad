// The destination of a migration: a copy of guest memory, filled page by page.

#ifndef CLIENT_GUEST_COPY_H_
#define CLIENT_GUEST_COPY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"

namespace mmud::client {

// Memory that starts as zeros and takes room only where something else was
// written; of this process, or a file that outlives it. Thread-compatible.
class GuestCopy final : public PageSink {
 public:
  // REQUIRES: `ranges` do not overlap. RESOURCE_EXHAUSTED if the system has no
  // address space for them.
  static absl::StatusOr<std::unique_ptr<GuestCopy>> Create(
      std::vector<GpaRange> ranges);
  // The ranges one after another in the file at `path`, which is made if it is
  // not there, and otherwise kept as somebody else has left it. One process
  // has it open at a time: FAILED_PRECONDITION while another one does, which
  // keeps a controller that was thought dead from writing beside the next. The
  // same for a file of another size.
  static absl::StatusOr<std::unique_ptr<GuestCopy>> OpenFile(
      std::vector<GpaRange> ranges, const std::string& path);
  ~GuestCopy() override;
  GuestCopy(const GuestCopy&) = delete;
  GuestCopy& operator=(const GuestCopy&) = delete;

  // OUT_OF_RANGE outside of the ranges.
  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override;
  absl::Status OnZeros(GpaRange range) override;

  // The bytes of `range`; nothing if it does not lie within one of the ranges.
  absl::string_view Bytes(GpaRange range) const;

  const std::vector<GpaRange>& ranges() const { return ranges_; }
  int64_t size_bytes() const { return TotalBytes(ranges_); }

 private:
  GuestCopy(std::vector<GpaRange> ranges, int file)
      : ranges_(std::move(ranges)), file_(file) {}

  absl::Status Map();

  // Null if `range` does not lie within one of the ranges.
  char* Find(GpaRange range) const;

  const std::vector<GpaRange> ranges_;
  const int file_;             // -1: none
  std::vector<char*> memory_;  // of ranges_, in their order
};

}  // namespace mmud::client

#endif  // CLIENT_GUEST_COPY_H_
