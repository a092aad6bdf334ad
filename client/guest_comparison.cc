#include "client/guest_comparison.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace mmud::client {
namespace {

constexpr int64_t kWordBytes = 8;

uint64_t WordAt(absl::string_view page, int64_t offset) {
  uint64_t word;
  std::memcpy(&word, page.data() + offset, sizeof(word));
  return word;
}

absl::string_view ZeroPage() {
  static const auto* const zeros = new std::string(kPageBytes, '\0');
  return *zeros;
}

}  // namespace

std::string ToString(const PageDifference& difference) {
  return absl::StrFormat(
      "gpa %#x (slot %d, gfn %#x, page %d of the slot): %d bytes differ from "
      "byte %d on: 0x%016x in the guest, 0x%016x in the copy",
      difference.gpa_bytes, difference.slot, difference.gfn,
      difference.page_of_slot, difference.byte_count, difference.first_byte,
      difference.in_guest, difference.in_copy);
}

GuestComparison::GuestComparison(const GuestCopy* copy,
                                 std::vector<SlotRange> slots,
                                 size_t max_details)
    : copy_(copy), slots_(std::move(slots)), max_details_(max_details) {}

absl::Status GuestComparison::OnData(int64_t gpa_bytes,
                                     absl::string_view data) {
  const int64_t size = static_cast<int64_t>(data.size());
  const absl::string_view copy = copy_->Bytes({gpa_bytes, size});
  if (copy.data() == nullptr) {
    return absl::OutOfRangeError(
        absl::StrFormat("gpa %#x is not part of the copy", gpa_bytes));
  }
  compared_bytes_ += size;
  if (std::memcmp(copy.data(), data.data(), size) == 0) {
    return absl::OkStatus();
  }
  for (int64_t at = 0; at < size; at += kPageBytes) {
    ComparePage(gpa_bytes + at, data.substr(at, kPageBytes),
                copy.substr(at, kPageBytes));
  }
  return absl::OkStatus();
}

absl::Status GuestComparison::OnZeros(GpaRange range) {
  const absl::string_view copy = copy_->Bytes(range);
  if (copy.data() == nullptr) {
    return absl::OutOfRangeError(
        absl::StrFormat("gpa %#x is not part of the copy", range.gpa_bytes));
  }
  compared_bytes_ += range.size_bytes;
  for (int64_t at = 0; at < range.size_bytes; at += kPageBytes) {
    ComparePage(range.gpa_bytes + at, ZeroPage(), copy.substr(at, kPageBytes));
  }
  return absl::OkStatus();
}

void GuestComparison::ComparePage(int64_t gpa_bytes, absl::string_view guest,
                                  absl::string_view copy) {
  if (std::memcmp(guest.data(), copy.data(), kPageBytes) == 0) return;
  ++different_page_count_;
  if (differences_.size() >= max_details_) return;
  PageDifference difference;
  difference.gpa_bytes = gpa_bytes;
  difference.gfn = gpa_bytes / kPageBytes;
  for (const SlotRange& slot : slots_) {
    if (gpa_bytes >= slot.range.gpa_bytes &&
        gpa_bytes < slot.range.end_bytes()) {
      difference.slot = slot.slot;
      difference.page_of_slot = (gpa_bytes - slot.range.gpa_bytes) / kPageBytes;
    }
  }
  difference.first_byte =
      std::mismatch(guest.begin(), guest.end(), copy.begin()).first -
      guest.begin();
  for (int64_t i = 0; i < kPageBytes; ++i) {
    if (guest[i] != copy[i]) ++difference.byte_count;
  }
  const int64_t word = difference.first_byte / kWordBytes * kWordBytes;
  difference.in_guest = WordAt(guest, word);
  difference.in_copy = WordAt(copy, word);
  differences_.push_back(difference);
}

}  // namespace mmud::client
