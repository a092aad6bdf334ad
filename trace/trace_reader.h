// Reads a trace file as a stream that a vCPU can replay.

#ifndef TRACE_TRACE_READER_H_
#define TRACE_TRACE_READER_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/trace_stream.h"
#include "trace/trace_block.h"
#include "trace/trace_header.h"
#include "trace/trace_record.h"

namespace mmud::trace {

// Holds one block in memory, 2 MiB at most, however large the file is. A
// checksum covers every byte, and the counts of the header are compared at the
// end. So damage leads to an error and never to wrong data. Errors name the
// file, the offset and the rule. Thread-compatible; several readers of one file
// are independent.
class TraceReader final : public mmu::TraceStream {
 public:
  // NOT_FOUND TRACE_NOT_FOUND if `path` leads to no regular file that may be
  // read, for any errno. RESOURCE_EXHAUSTED if the process lacks descriptors
  // (LIMIT_EXCEEDED) or memory (RESOURCE_EXHAUSTED_MEMORY). INVALID_ARGUMENT if
  // the file is not a trace or has another version. DATA_LOSS if the file is
  // damaged or the device cannot read it.
  static absl::StatusOr<std::unique_ptr<TraceReader>> Open(
      const std::string& path);
  ~TraceReader() override;
  TraceReader(const TraceReader&) = delete;
  TraceReader& operator=(const TraceReader&) = delete;

  const TraceInfo& info() const { return info_; }
  const std::string& path() const { return path_; }
  uint64_t file_bytes() const { return file_bytes_; }

  // Returns a modify as two accesses, a load and a store.
  absl::StatusOr<bool> Next(mmu::GuestAccess* access) override;
  absl::Status Rewind() override;

  // Reads the whole file and rewinds. A caller that verifies first refuses a
  // damaged file before it uses any of its accesses.
  absl::Status Verify();

 private:
  TraceReader(std::string path, std::FILE* file);

  absl::Status ReadHeader();
  absl::StatusOr<bool> NextRecord(TraceRecord* record);
  // Decodes the next block. False at the end of the file.
  absl::StatusOr<bool> NextBlock();
  absl::Status CheckCounts() const;
  // Reads `size` bytes from offset_ on; fewer only at the end of the file.
  absl::StatusOr<std::string> Read(size_t size);
  // Adds the file and, if `offset` is not kNoOffset, the offset to the message
  // of `status`.
  absl::Status InFile(const absl::Status& status, uint64_t offset) const;

  static constexpr uint64_t kNoOffset = ~uint64_t{0};

  const std::string path_;
  std::FILE* const file_;
  uint64_t file_bytes_ = 0;
  TraceInfo info_;
  uint64_t first_block_offset_ = 0;

  uint64_t offset_ = 0;        // of the next byte to read
  uint64_t block_offset_ = 0;  // of the block being decoded
  uint32_t blocks_ = 0;
  TraceBlockDecoder block_;
  uint64_t records_ = 0;
  uint64_t accesses_ = 0;
  bool store_owed_ = false;  // store_ is the next access
  mmu::GuestAccess store_;
  absl::Status status_;
};

}  // namespace mmud::trace

#endif  // TRACE_TRACE_READER_H_
