// A trace file: the whole file, with its checksums put right for half of the
// changes, so that what is behind them is read too.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/guest/guest_access.h"
#include "tests/fuzz/target.h"
#include "trace/bytes.h"
#include "trace/trace_block.h"
#include "trace/trace_header.h"
#include "trace/trace_reader.h"
#include "trace/trace_record.h"

namespace mmud::fuzz {
namespace {

// A file in memory, with a path.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : fd_(memfd_create("trace", 0)) {
    FUZZ_CHECK(fd_ >= 0, "memfd_create");
    FUZZ_CHECK(write(fd_, bytes.data(), bytes.size()) ==
                   static_cast<ssize_t>(bytes.size()),
               "write");
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

 private:
  const int fd_;
};

void CheckRefusal(const absl::Status& status) {
  FUZZ_CHECK(absl::IsInvalidArgument(status) || absl::IsDataLoss(status),
             status);
  FUZZ_CHECK(!status.message().empty(), status);
}

// Reads to the end and returns the number of accesses.
uint64_t ReadAll(trace::TraceReader* reader) {
  uint64_t count = 0;
  mmu::GuestAccess access;
  for (;;) {
    const absl::StatusOr<bool> more = reader->Next(&access);
    FUZZ_CHECK(more.ok(), more.status());
    if (!*more) return count;
    ++count;
  }
}

void Run(std::string_view input) {
  const MemoryFile file(input);
  auto reader = trace::TraceReader::Open(file.path());
  if (!reader.ok()) return CheckRefusal(reader.status());
  const absl::Status verified = (*reader)->Verify();
  if (!verified.ok()) return CheckRefusal(verified);
  // What was verified is read without an error, as often as wanted.
  const uint64_t count = ReadAll(reader->get());
  FUZZ_CHECK(count == (*reader)->info().access_count, count);
  FUZZ_CHECK((*reader)->Rewind().ok(), "rewind");
  FUZZ_CHECK(ReadAll(reader->get()) == count, count);
  // A verified header is the one that its facts encode to.
  const std::string header = trace::EncodeHeader((*reader)->info());
  FUZZ_CHECK(trace::HeaderBytes((*reader)->info()) == header.size(),
             header.size());
}

void PutU32(uint32_t value, size_t at, std::string* out) {
  std::string bytes;
  trace::AppendU32(bytes, value);
  out->replace(at, bytes.size(), bytes);
}

// Gives the header and all whole blocks the checksums of what they have.
void FixChecksums(std::string* file) {
  if (file->size() < trace::kFixedHeaderBytes + 4) return;
  const size_t texts = size_t{trace::ReadU32(*file, 80)} +
                       trace::ReadU32(*file, 84) + trace::kFixedHeaderBytes;
  if (texts + 4 > file->size()) return;
  PutU32(static_cast<uint32_t>(texts + 4), 12, file);
  PutU32(trace::Crc32(std::string_view(*file).substr(0, texts)), texts, file);
  for (size_t at = texts + 4; at + trace::kBlockHeaderBytes <= file->size();) {
    const size_t contents = at + trace::kBlockHeaderBytes;
    const size_t length = std::min<size_t>(trace::ReadU32(*file, at + 12),
                                           file->size() - contents);
    const std::string_view all(*file);
    PutU32(trace::Crc32(all.substr(contents, length),
                        trace::Crc32(all.substr(at, 16))),
           at + 16, file);
    at = contents + length;
  }
}

std::string Mutate(std::string input, Random& random) {
  input = MutateBytes(std::move(input), random);
  if (Below(random, 2) == 0) FixChecksums(&input);
  return input;
}

std::string MakeTrace(int records, std::string command) {
  trace::TraceBlockEncoder block;
  trace::TraceInfo info;
  info.command = std::move(command);
  info.origin = "made for a test";
  for (int i = 0; i < records; ++i) {
    const auto op = static_cast<trace::TraceOp>(i % trace::kTraceOps);
    block.Add({.op = op,
               .address = 0x400000u + static_cast<uint64_t>(i) * 4096,
               .size_bytes = static_cast<uint32_t>(1 << (i % 7))});
    ++info.record_count;
    switch (op) {
      case trace::TraceOp::kFetch:
        ++info.fetch_count;
        info.has_fetches = true;
        break;
      case trace::TraceOp::kLoad:
        ++info.load_count;
        break;
      case trace::TraceOp::kStore:
        ++info.store_count;
        break;
      case trace::TraceOp::kModify:
        ++info.load_count;
        ++info.store_count;
        break;
    }
  }
  info.access_count = info.load_count + info.store_count + info.fetch_count;
  info.page_count = static_cast<uint64_t>(records);
  info.seen_record_count = info.record_count;
  return trace::EncodeHeader(info) + (block.empty() ? "" : block.Take());
}

std::vector<Seed> Seeds() {
  return {{"small", MakeTrace(8, "/bin/true")},
          {"larger", MakeTrace(300, "sort --parallel=2 words")},
          {"no_records", MakeTrace(0, "")}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds, .mutate = Mutate}; }

}  // namespace mmud::fuzz
