#include "server/convert/page_chunk_builder.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "google/protobuf/repeated_field.h"
#include "mmu_core/base/address.h"
#include "wire/crc32c.h"

namespace mmud {
namespace {

// 24 bytes each at most: they fit into the room that a message has beyond its
// data.
constexpr int kMaxExtentsPerChunk = 2048;

bool IsZero(absl::Span<const std::byte> page) {
  return page[0] == std::byte{0} &&
         std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

void Extend(mmu::Gpa gpa,
            google::protobuf::RepeatedPtrField<v1::Extent>* extents) {
  const auto at = static_cast<int64_t>(gpa.value());
  constexpr auto kPage = static_cast<int64_t>(mmu::kPageSize);
  if (!extents->empty()) {
    v1::Extent& last = *extents->rbegin();
    if (last.gpa_bytes() + last.size_bytes() == at) {
      last.set_size_bytes(last.size_bytes() + kPage);
      return;
    }
  }
  v1::Extent* extent = extents->Add();
  extent->set_gpa_bytes(at);
  extent->set_size_bytes(kPage);
}

}  // namespace

void PageChunkBuilder::Add(mmu::Gpa gpa, absl::Span<const std::byte> page) {
  ++pages_;
  if (IsZero(page)) {
    ++zero_pages_;
    Extend(gpa, chunk_.mutable_zero_extents());
    return;
  }
  Extend(gpa, chunk_.mutable_data_extents());
  if (chunk_.data().empty()) chunk_.mutable_data()->reserve(max_data_bytes_);
  chunk_.mutable_data()->append(reinterpret_cast<const char*>(page.data()),
                                page.size());
}

bool PageChunkBuilder::full() const {
  return chunk_.data().size() + mmu::kPageSize > max_data_bytes_ ||
         chunk_.data_extents_size() + chunk_.zero_extents_size() >=
             kMaxExtentsPerChunk;
}

v1::PageChunk PageChunkBuilder::Take() {
  const std::string& data = chunk_.data();
  chunk_.set_crc32c(Crc32c(data));
  totals_.set_crc32c(ExtendCrc32c(totals_.crc32c(), data));
  totals_.set_page_count(totals_.page_count() + static_cast<int64_t>(pages_));
  totals_.set_zero_page_count(totals_.zero_page_count() +
                              static_cast<int64_t>(zero_pages_));
  totals_.set_data_size_bytes(totals_.data_size_bytes() +
                              static_cast<int64_t>(data.size()));
  totals_.set_chunk_count(totals_.chunk_count() + 1);
  pages_ = zero_pages_ = 0;
  v1::PageChunk taken = std::move(chunk_);
  chunk_ = v1::PageChunk();
  return taken;
}

}  // namespace mmud
