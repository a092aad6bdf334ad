// The pages that ClearDirtyLog names, as a bitmap or as extents. An input is
// one message SlotPages.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/named_pages.h"
#include "server/convert/dirty_log_codec.h"
#include "tests/fuzz/any_message.h"
#include "tests/fuzz/target.h"

namespace mmud::fuzz {
namespace {

constexpr uint64_t kSlotStart = uint64_t{1} << 30;
constexpr uint64_t kSlotPages = 1000;  // not a multiple of 64

// Encodes pages and decodes the chunks: the same pages.
void CheckRoundTrip(const NamedPages& named, const mmu::MemslotConfig& slot,
                    v1::DirtyLogEncoding encoding) {
  DirtyPageEncoder encoder(
      slot.slot, mmu::Gpa(kSlotStart + named.first_page * mmu::kPageSize),
      named.mask, named.page_count, encoding, 1024);
  std::vector<uint64_t> seen(named.mask.size(), 0);
  while (const auto chunk = encoder.Next()) {
    const absl::StatusOr<NamedPages> pages =
        DecodeSlotPages(PagesOf(*chunk), slot);
    FUZZ_CHECK(pages.ok(), pages.status());
    const uint64_t first = pages->first_page - named.first_page;
    FUZZ_CHECK(first % 64 == 0, first);
    for (size_t i = 0; i < pages->mask.size(); ++i) {
      FUZZ_CHECK(first / 64 + i < seen.size(), first);
      seen[first / 64 + i] |= pages->mask[i];
    }
  }
  FUZZ_CHECK(seen == named.mask, encoding);
}

void Run(std::string_view input) {
  v1::SlotPages pages;
  if (!pages.ParseFromArray(input.data(), static_cast<int>(input.size()))) {
    return;
  }
  mmu::MemslotConfig slot;
  slot.slot = 3;
  slot.gpa = mmu::Gpa(kSlotStart);
  slot.size_bytes = kSlotPages * mmu::kPageSize;
  const absl::StatusOr<NamedPages> named = DecodeSlotPages(pages, slot);
  if (!named.ok()) {
    FUZZ_CHECK(mmu::DetailOf(named.status()).reason != mmu::Reason::kNone,
               named.status());
    return;
  }
  FUZZ_CHECK(named->first_page % 64 == 0 &&
                 named->first_page + named->page_count <= kSlotPages,
             named->first_page << "+" << named->page_count);
  FUZZ_CHECK(named->mask.size() == (named->page_count + 63) / 64,
             named->mask.size());
  if (const uint64_t used = named->page_count % 64; used != 0) {
    FUZZ_CHECK(named->mask.back() >> used == 0, named->page_count);
  }
  if (named->page_count == 0) return;  // allowed, and clears nothing
  CheckRoundTrip(*named, slot, v1::DIRTY_LOG_ENCODING_BITMAP);
  CheckRoundTrip(*named, slot, v1::DIRTY_LOG_ENCODING_EXTENTS);
}

std::string Mutate(std::string input, Random& random) {
  if (Below(random, 4) == 0) return MutateBytes(std::move(input), random);
  v1::SlotPages pages;
  pages.ParsePartialFromString(input);
  MutateMessage(&pages, random);
  return pages.SerializePartialAsString();
}

std::vector<Seed> Seeds() {
  v1::SlotPages bitmap;
  bitmap.set_slot(3);
  bitmap.set_start_gpa_bytes(kSlotStart);
  bitmap.set_size_bytes(128 * 4096);
  bitmap.set_bitmap(std::string(16, '\x0f'));
  v1::SlotPages extents;
  extents.set_slot(3);
  extents.set_start_gpa_bytes(kSlotStart);
  extents.set_size_bytes(kSlotPages * 4096);
  for (int64_t i = 0; i < 3; ++i) {
    v1::Extent* extent = extents.mutable_extents()->add_extents();
    extent->set_gpa_bytes(static_cast<int64_t>(kSlotStart) + i * 64 * 4096);
    extent->set_size_bytes(4096 * (i + 1));
  }
  return {{"bitmap", bitmap.SerializeAsString()},
          {"extents", extents.SerializeAsString()}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds, .mutate = Mutate}; }

}  // namespace mmud::fuzz
