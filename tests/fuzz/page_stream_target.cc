// The chunks of ReadPages as the client takes them. An input is a list of
// messages (messages.h).

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_stream.h"
#include "client/mmu_client/range_set.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "tests/fuzz/messages.h"
#include "tests/fuzz/target.h"
#include "wire/crc32c.h"

namespace mmud::fuzz {
namespace {

using client::GpaRange;
using client::kPageBytes;

// The ranges that the client asked for: two, with a gap.
const std::vector<GpaRange>& Asked() {
  static const auto& asked = *new std::vector<GpaRange>{
      {0x10000, 3 * kPageBytes}, {0x20000, 2 * kPageBytes}};
  return asked;
}

bool IsAsked(int64_t gpa_bytes) {
  for (const GpaRange& range : Asked()) {
    if (gpa_bytes >= range.gpa_bytes && gpa_bytes < range.end_bytes()) {
      return true;
    }
  }
  return false;
}

// Expects only pages that were asked for, each once.
class Sink final : public client::PageSink {
 public:
  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override {
    Take({gpa_bytes, static_cast<int64_t>(data.size())});
    // Reads all bytes, for the sanitizers.
    sum_ += Crc32c(data);
    return absl::OkStatus();
  }
  absl::Status OnZeros(GpaRange range) override {
    Take(range);
    return absl::OkStatus();
  }
  const std::set<int64_t>& pages() const { return pages_; }

 private:
  void Take(GpaRange range) {
    FUZZ_CHECK(range.size_bytes > 0 && range.size_bytes <= 3 * kPageBytes &&
                   range.size_bytes % kPageBytes == 0,
               range.gpa_bytes << "+" << range.size_bytes);
    for (int64_t at = range.gpa_bytes; at < range.gpa_bytes + range.size_bytes;
         at += kPageBytes) {
      FUZZ_CHECK(IsAsked(at), at << " was not asked for");
      FUZZ_CHECK(pages_.insert(at).second, at << " came twice");
    }
  }
  std::set<int64_t> pages_;
  uint64_t sum_ = 0;
};

void Run(std::string_view input) {
  client::RangeSet missing(Asked());
  Sink sink;
  client::ReadTotals totals;
  client::PageStream stream(&missing, &sink, &totals);
  absl::Status status;
  for (const std::string& bytes : SplitMessages(input)) {
    v1::ReadPagesResponse message;
    if (!message.ParseFromString(bytes)) break;
    status = stream.OnMessage(message);
    if (!status.ok()) break;
  }
  if (!status.ok()) {
    FUZZ_CHECK(absl::IsDataLoss(status) && !status.message().empty(), status);
    return;
  }
  const auto count = static_cast<int64_t>(sink.pages().size());
  FUZZ_CHECK(totals.page_count == count, totals.page_count);
  FUZZ_CHECK(totals.zero_page_count * kPageBytes + totals.data_size_bytes ==
                 count * kPageBytes,
             totals.data_size_bytes);
  // A good end means that all pages came.
  FUZZ_CHECK(!stream.OnEnd().ok() || (count == 5 && missing.empty()), count);
}

// Gives the chunks their checksums and the trailer its totals.
void FixTotals(std::vector<std::string>* messages) {
  uint32_t crc = 0;
  int64_t pages = 0;
  int64_t chunks = 0;
  for (std::string& bytes : *messages) {
    v1::ReadPagesResponse message;
    if (!message.ParseFromString(bytes)) continue;
    if (message.has_chunk()) {
      v1::PageChunk& chunk = *message.mutable_chunk();
      chunk.set_crc32c(Crc32c(chunk.data()));
      crc = ExtendCrc32c(crc, chunk.data());
      ++chunks;
      const auto add = [&pages](const v1::Extent& extent) {
        // Like the code under test, but wrong numbers may wrap here.
        pages = static_cast<int64_t>(
            static_cast<uint64_t>(pages) +
            static_cast<uint64_t>(extent.size_bytes() / kPageBytes));
      };
      for (const v1::Extent& extent : chunk.data_extents()) add(extent);
      for (const v1::Extent& extent : chunk.zero_extents()) add(extent);
    } else if (message.has_trailer()) {
      message.mutable_trailer()->set_crc32c(crc);
      message.mutable_trailer()->set_page_count(pages);
      message.mutable_trailer()->set_chunk_count(chunks);
    }
    bytes = message.SerializeAsString();
  }
}

std::string Mutate(std::string input, Random& random) {
  std::vector<std::string> messages = MutateMessages(
      SplitMessages(input), v1::ReadPagesResponse::default_instance(), random);
  if (Below(random, 2) == 0) FixTotals(&messages);
  return JoinMessages(messages);
}

void Add(GpaRange range, google::protobuf::RepeatedPtrField<v1::Extent>* to) {
  v1::Extent* extent = to->Add();
  extent->set_gpa_bytes(range.gpa_bytes);
  extent->set_size_bytes(range.size_bytes);
}

std::vector<Seed> Seeds() {
  v1::ReadPagesResponse data;
  Add({0x10000, 2 * kPageBytes}, data.mutable_chunk()->mutable_data_extents());
  data.mutable_chunk()->set_data(std::string(2 * kPageBytes, 'd'));
  v1::ReadPagesResponse zeros;
  Add({0x12000, kPageBytes}, zeros.mutable_chunk()->mutable_zero_extents());
  Add(Asked()[1], zeros.mutable_chunk()->mutable_zero_extents());
  v1::ReadPagesResponse trailer;
  trailer.mutable_trailer();
  std::vector<std::string> both = {data.SerializeAsString(),
                                   zeros.SerializeAsString(),
                                   trailer.SerializeAsString()};
  FixTotals(&both);
  v1::ReadPagesResponse all;
  for (const GpaRange& range : Asked()) {
    Add(range, all.mutable_chunk()->mutable_zero_extents());
  }
  std::vector<std::string> one = {all.SerializeAsString(),
                                  trailer.SerializeAsString()};
  FixTotals(&one);
  return {{"data_and_zeros", JoinMessages(both)}, {"zeros", JoinMessages(one)}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds, .mutate = Mutate}; }

}  // namespace mmud::fuzz
