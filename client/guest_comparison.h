// Compares guest memory with a copy of it, byte by byte, as it arrives.

#ifndef CLIENT_GUEST_COMPARISON_H_
#define CLIENT_GUEST_COMPARISON_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/guest_copy.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"

namespace mmud::client {

// The part of a memslot that is needed to name a page. A value.
struct SlotRange {
  int32_t slot = 0;
  GpaRange range;
};

// A page whose bytes differ. A value.
struct PageDifference {
  int64_t gpa_bytes = 0;
  int64_t gfn = 0;
  int32_t slot = 0;
  int64_t page_of_slot = 0;  // counted from the slot's start
  int64_t first_byte = 0;    // first differing byte of the page
  int64_t byte_count = 0;    // number of differing bytes
  uint64_t in_guest = 0;     // the 8-byte word around the first difference
  uint64_t in_copy = 0;
};

// "gpa 0x1000 (slot 0, gfn 0x1, page 1 of the slot): 8 bytes differ from byte
// 16 on: 0x... in the guest, 0x... in the copy".
std::string ToString(const PageDifference& difference);

// Thread-compatible.
class GuestComparison final : public PageSink {
 public:
  // Stores details of the first `max_details` differing pages. `copy` must
  // outlive this object.
  GuestComparison(const GuestCopy* copy, std::vector<SlotRange> slots,
                  size_t max_details = 10);

  // OUT_OF_RANGE for pages that the copy does not have.
  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override;
  absl::Status OnZeros(GpaRange range) override;

  // Number of compared bytes.
  int64_t compared_bytes() const { return compared_bytes_; }
  int64_t different_page_count() const { return different_page_count_; }
  const std::vector<PageDifference>& differences() const {
    return differences_;
  }
  // True if all of the copy was compared and is equal.
  bool equal() const {
    return different_page_count_ == 0 && compared_bytes_ == copy_->size_bytes();
  }

 private:
  void ComparePage(int64_t gpa_bytes, absl::string_view guest,
                   absl::string_view copy);

  const GuestCopy* const copy_;
  const std::vector<SlotRange> slots_;
  const size_t max_details_;
  int64_t compared_bytes_ = 0;
  int64_t different_page_count_ = 0;
  std::vector<PageDifference> differences_;
};

}  // namespace mmud::client

#endif  // CLIENT_GUEST_COMPARISON_H_
