// The answers of HarvestDirtyLog as the client takes them. An input is a list
// of messages (messages.h); the daemon's end of the stream gives one after the
// other, whatever the client sends.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/harvest_stream.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "tests/fuzz/messages.h"
#include "tests/fuzz/target.h"
#include "wire/crc32c.h"

namespace mmud::fuzz {
namespace {

class Pipe final : public client::HarvestStream::Pipe {
 public:
  Pipe(std::vector<std::string> messages, int64_t* clears)
      : messages_(std::move(messages)), clears_(clears) {}

  bool Write(const v1::HarvestDirtyLogRequest& message) override {
    if (message.has_clear()) ++*clears_;
    return true;
  }
  bool Read(v1::HarvestDirtyLogResponse* message) override {
    return next_ < messages_.size() &&
           message->ParseFromString(messages_[next_++]);
  }
  absl::Status Finish() override { return absl::OkStatus(); }

 private:
  const std::vector<std::string> messages_;
  size_t next_ = 0;
  int64_t* const clears_;
};

void Run(std::string_view input) {
  int64_t clears = 0;
  int64_t cleared = 0;
  client::HarvestStream stream(
      std::make_unique<Pipe>(SplitMessages(input), &clears));
  v1::HarvestOpen open;
  open.set_vm("vms/alpha");
  absl::Status status = stream.Open(open);
  for (int64_t round = 1; status.ok() && round <= 3; ++round) {
    const auto sealed =
        stream.Run(round - 1, [&](const v1::DirtyLogChunk& chunk) {
          FUZZ_CHECK(Crc32c(client::ChunkPayload(chunk)) == chunk.crc32c(),
                     "a chunk with a wrong checksum is in flight");
          ++cleared;
          return absl::OkStatus();
        });
    status = sealed.status();
    // A round is over only when each chunk was cleared. No page is in flight
    // that was not asked to be cleared.
    FUZZ_CHECK(cleared <= clears, cleared << " of " << clears);
    if (status.ok()) status = stream.Acknowledge(round).status();
  }
  if (status.ok()) {
    FUZZ_CHECK(stream.Close().ok(), "close");
    return;
  }
  FUZZ_CHECK(absl::IsDataLoss(status) && !status.message().empty(), status);
  // A stream that failed does not go on.
  FUZZ_CHECK(stream.Acknowledge(1).status() == status, status);
  FUZZ_CHECK(stream.Close() == status, status);
}

// Gives the chunks their checksums and the trailers their totals.
void FixTotals(std::vector<std::string>* messages) {
  uint32_t crc = 0;
  int64_t chunks = 0;
  for (std::string& bytes : *messages) {
    v1::HarvestDirtyLogResponse message;
    if (!message.ParseFromString(bytes)) continue;
    if (message.has_sealed()) {
      crc = 0;
      chunks = 0;
    } else if (message.has_chunk()) {
      v1::DirtyLogChunk& pages = *message.mutable_chunk()->mutable_pages();
      const std::string payload = client::ChunkPayload(pages);
      pages.set_crc32c(Crc32c(payload));
      crc = ExtendCrc32c(crc, payload);
      ++chunks;
    } else if (message.has_trailer()) {
      message.mutable_trailer()->set_crc32c(crc);
      message.mutable_trailer()->set_chunk_count(chunks);
    }
    bytes = message.SerializeAsString();
  }
}

std::string Mutate(std::string input, Random& random) {
  std::vector<std::string> messages =
      MutateMessages(SplitMessages(input),
                     v1::HarvestDirtyLogResponse::default_instance(), random);
  if (Below(random, 2) == 0) FixTotals(&messages);
  return JoinMessages(messages);
}

std::vector<Seed> Seeds() {
  std::vector<std::string> messages;
  v1::HarvestDirtyLogResponse message;
  const auto add = [&] { messages.push_back(message.SerializeAsString()); };
  message.mutable_opened()->set_log_id("3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b");
  add();
  for (int64_t epoch = 1; epoch <= 2; ++epoch) {
    message.mutable_sealed()->set_epoch(epoch);
    add();
    for (int64_t number = 1; number <= 2; ++number) {
      v1::HarvestChunk& chunk = *message.mutable_chunk();
      chunk.set_number(number);
      chunk.mutable_pages()->set_gpa_bytes((number - 1) << 18);
      chunk.mutable_pages()->set_size_bytes(1 << 18);
      chunk.mutable_pages()->set_bitmap(std::string(8, '\x55'));
      add();
      message.mutable_cleared()->set_number(number);
      add();
    }
    message.mutable_trailer();
    add();
    message.mutable_acknowledged();
    add();
  }
  FixTotals(&messages);
  return {{"two_rounds", JoinMessages(messages)}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds, .mutate = Mutate}; }

}  // namespace mmud::fuzz
