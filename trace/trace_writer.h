// Writes a trace file.

#ifndef TRACE_TRACE_WRITER_H_
#define TRACE_TRACE_WRITER_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trace/trace_block.h"
#include "trace/trace_header.h"
#include "trace/trace_record.h"

namespace mmud::trace {

// The file gets its name only when Finish succeeds. Until then, and after any
// failure, there is at most `path`.partial, which the destructor removes. The
// writer uses about 2 MiB and a set of the pages seen. Thread-compatible.
class TraceWriter {
 public:
  // Uses only the texts, filter_lines and has_fetches of `info`. Texts that are
  // too long for a header are cut. Errors of the file system name the file.
  static absl::StatusOr<std::unique_ptr<TraceWriter>> Create(
      const std::string& path, const TraceInfo& info);
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  // INVALID_ARGUMENT if the size is not in 1..kMaxAccessBytes.
  absl::Status Add(const TraceRecord& record);

  uint64_t access_count() const { return info_.access_count; }

  // Completes the header, gives the file its name and returns the header. The
  // writer must not be used afterwards, even after an error.
  absl::StatusOr<TraceInfo> Finish(uint64_t seen_record_count,
                                   bool cut_at_limit);

 private:
  TraceWriter(std::string path, TraceInfo info, std::FILE* file);

  void Count(const TraceRecord& record);
  absl::Status Write(const std::string& bytes);
  absl::Status FileError(int error_number, const char* doing) const;

  const std::string path_;
  const std::string partial_path_;
  TraceInfo info_;
  std::FILE* file_;  // null once closed
  TraceBlockEncoder block_;
  absl::flat_hash_set<uint64_t> pages_;
  uint64_t last_page_ = ~uint64_t{0};
};

}  // namespace mmud::trace

#endif  // TRACE_TRACE_WRITER_H_
