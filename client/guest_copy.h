// The destination of a migration: a copy of guest memory, filled page by page.

#ifndef CLIENT_GUEST_COPY_H_
#define CLIENT_GUEST_COPY_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"

namespace mmud::client {

// Memory that starts as zeros and takes room only where something else was
// written. Thread-compatible.
class GuestCopy final : public PageSink {
 public:
  // REQUIRES: `ranges` do not overlap. RESOURCE_EXHAUSTED if the system has no
  // address space for them.
  static absl::StatusOr<std::unique_ptr<GuestCopy>> Create(
      std::vector<GpaRange> ranges);
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
  explicit GuestCopy(std::vector<GpaRange> ranges)
      : ranges_(std::move(ranges)) {}

  // Null if `range` does not lie within one of the ranges.
  char* Find(GpaRange range) const;

  const std::vector<GpaRange> ranges_;
  std::vector<char*> memory_;  // of ranges_, in their order
};

}  // namespace mmud::client

#endif  // CLIENT_GUEST_COPY_H_
