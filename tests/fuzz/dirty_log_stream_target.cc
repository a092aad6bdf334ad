// The chunks of ReadDirtyPages as the client takes them. An input is a list of
// messages (messages.h).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "tests/fuzz/messages.h"
#include "tests/fuzz/target.h"
#include "wire/crc32c.h"

namespace mmud::fuzz {
namespace {

using client::kPageBytes;

// A slot of a TiB makes a bitmap of 32 MiB: larger ones only take time here.
constexpr int64_t kMaxCoverage = int64_t{1} << 40;

bool IsTooLarge(const v1::ReadDirtyPagesResponse& message) {
  int64_t left = kMaxCoverage;
  for (const v1::SlotCoverage& part : message.header().coverage()) {
    // A range that no slot can have makes no bitmap.
    if (part.size_bytes() <= 0 || part.size_bytes() > INT64_MAX / 2) continue;
    if (part.size_bytes() > left) return true;
    left -= part.size_bytes();
  }
  return false;
}

void Run(std::string_view input) {
  client::SlotBitmaps pages;
  client::DirtyLogStream stream(&pages);
  absl::Status status;
  for (const std::string& bytes : SplitMessages(input)) {
    v1::ReadDirtyPagesResponse message;
    if (!message.ParseFromString(bytes) || IsTooLarge(message)) return;
    status = stream.OnMessage(message);
    if (!status.ok()) break;
  }
  if (!status.ok()) {
    FUZZ_CHECK(absl::IsDataLoss(status) && !status.message().empty(), status);
  }
  // Pages lie within what the header covers, whatever came later.
  int64_t count = 0;
  for (const auto& [slot, bitmap] : pages) {
    FUZZ_CHECK(bitmap.page_count() * kPageBytes <= bitmap.range().size_bytes,
               slot);
    const std::vector<client::GpaRange> ranges = bitmap.Ranges();
    FUZZ_CHECK(client::TotalBytes(ranges) == bitmap.size_bytes(), slot);
    count += bitmap.page_count();
  }
  if (stream.trailer()) {
    // A page that came twice counts twice.
    FUZZ_CHECK(count <= stream.trailer()->dirty_page_count(), count);
    FUZZ_CHECK(stream.OnEnd().ok(), "end");
  }
}

// Gives the chunks their checksums and the trailer its totals.
void FixTotals(std::vector<std::string>* messages) {
  uint32_t crc = 0;
  int64_t pages = 0;
  int64_t chunks = 0;
  for (std::string& bytes : *messages) {
    v1::ReadDirtyPagesResponse message;
    if (!message.ParseFromString(bytes)) continue;
    if (message.has_chunk()) {
      v1::DirtyLogChunk& chunk = *message.mutable_chunk();
      const std::string payload = client::ChunkPayload(chunk);
      chunk.set_crc32c(Crc32c(payload));
      crc = ExtendCrc32c(crc, payload);
      ++chunks;
      for (const char byte : chunk.bitmap()) {
        pages += __builtin_popcount(static_cast<unsigned char>(byte));
      }
      for (const v1::Extent& extent : chunk.extents().extents()) {
        pages = static_cast<int64_t>(
            static_cast<uint64_t>(pages) +
            static_cast<uint64_t>(extent.size_bytes() / kPageBytes));
      }
    } else if (message.has_trailer()) {
      message.mutable_trailer()->set_crc32c(crc);
      message.mutable_trailer()->set_dirty_page_count(pages);
      message.mutable_trailer()->set_chunk_count(chunks);
    }
    bytes = message.SerializeAsString();
  }
}

std::string Mutate(std::string input, Random& random) {
  std::vector<std::string> messages =
      MutateMessages(SplitMessages(input),
                     v1::ReadDirtyPagesResponse::default_instance(), random);
  if (Below(random, 2) == 0) FixTotals(&messages);
  return JoinMessages(messages);
}

std::vector<Seed> Seeds() {
  v1::ReadDirtyPagesResponse header;
  header.mutable_header()->set_log_id("3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b");
  header.mutable_header()->set_epoch(1);
  for (int slot = 0; slot < 2; ++slot) {
    v1::SlotCoverage* part = header.mutable_header()->add_coverage();
    part->set_slot(slot);
    part->set_gpa_bytes(slot * (int64_t{1} << 30));
    part->set_size_bytes(256 * kPageBytes);
  }
  v1::ReadDirtyPagesResponse bitmap;
  bitmap.mutable_chunk()->set_slot(0);
  bitmap.mutable_chunk()->set_size_bytes(64 * kPageBytes);
  bitmap.mutable_chunk()->set_bitmap(std::string("\1\0\0\0\0\0\0\x80", 8));
  v1::ReadDirtyPagesResponse extents;
  extents.mutable_chunk()->set_slot(1);
  extents.mutable_chunk()->set_gpa_bytes(int64_t{1} << 30);
  extents.mutable_chunk()->set_size_bytes(256 * kPageBytes);
  v1::Extent* extent =
      extents.mutable_chunk()->mutable_extents()->add_extents();
  extent->set_gpa_bytes((int64_t{1} << 30) + kPageBytes);
  extent->set_size_bytes(3 * kPageBytes);
  v1::ReadDirtyPagesResponse trailer;
  trailer.mutable_trailer();
  std::vector<std::string> messages = {
      header.SerializeAsString(), bitmap.SerializeAsString(),
      extents.SerializeAsString(), trailer.SerializeAsString()};
  FixTotals(&messages);
  return {{"two_slots", JoinMessages(messages)}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds, .mutate = Mutate}; }

}  // namespace mmud::fuzz
