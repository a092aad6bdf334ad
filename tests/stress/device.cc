#include "tests/stress/device.h"

#include <cstring>

#include "absl/strings/str_format.h"
#include "mmu_core/memory/guest_words.h"

namespace mmu::stress {
namespace {

constexpr uint64_t kWordInPage = kPageSize - sizeof(uint64_t);
constexpr int kWrites = 16;

}  // namespace

Device::Device(const MemslotTable& slots, GfnRange pages)
    : pages_(pages),
      memory_(slots, /*as_id=*/0, /*ring=*/nullptr),
      words_(pages.pages()) {}

Gpa Device::WordOf(uint64_t page) const {
  return ToGpa(pages_.start + page) + kWordInPage;
}

std::string Device::Write(std::mt19937_64& random) {
  const std::lock_guard<std::mutex> lock(mu_);
  for (int i = 0; i < kWrites; ++i) {
    const uint64_t page = random() % words_.size();
    uint64_t& word = words_[page];
    const GuestWordResult result =
        memory_.CompareExchange(WordOf(page), WordSize::k8, word, word + 1);
    if (result == GuestWordResult::kDone) {
      ++word;
    } else if (result != GuestWordResult::kHostReadonly) {
      return absl::StrFormat(
          "the device's write to page %d came to %d, after it wrote %d", page,
          static_cast<int>(result), word);
    }
  }
  return "";
}

std::string Device::CheckCopy(absl::Span<const std::byte> copy) const {
  for (uint64_t page = 0; page < words_.size(); ++page) {
    uint64_t word;
    std::memcpy(&word, &copy.at(WordOf(page).value()), sizeof(word));
    if (word == words_[page]) continue;
    return absl::StrFormat(
        "lost dirty page: the device wrote %d to page %d, and the copy has %d",
        words_[page], page, word);
  }
  return "";
}

}  // namespace mmu::stress
