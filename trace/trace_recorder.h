// Records a trace of a real program by running it under valgrind.

#ifndef TRACE_TRACE_RECORDER_H_
#define TRACE_TRACE_RECORDER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trace/trace_header.h"

namespace mmud::trace {

enum class FetchRecording : uint8_t { kDrop, kKeep };

struct RecordProgress {
  uint64_t seen_record_count = 0;  // loads, stores, modifies; kept fetches
  uint64_t access_count = 0;       // recorded
};

struct RecordOptions {
  std::string output_path;
  // Origin of the trace, for readers of the file. If empty, the file says
  // "recorded with valgrind ...".
  std::string origin;
  std::string valgrind = "valgrind";  // a path, or a name to find in PATH
  FetchRecording fetches = FetchRecording::kDrop;
  // See trace_filter.h; 0 records every access.
  uint32_t filter_lines = 16;
  // Stop the program after this number of recorded accesses; 0 means no limit.
  uint64_t max_accesses = 0;
  // Called now and then from the recording thread, if set.
  std::function<void(const RecordProgress&)> on_progress;
};

struct TraceSummary {
  TraceInfo info;
  uint64_t file_bytes = 0;
  // How the program ended. exit_code is -1 if it did not exit by itself.
  int exit_code = -1;
  int term_signal = 0;            // 0 unless a signal ended it
  bool stopped_at_limit = false;  // the recorder killed it
};

// Runs `args` (program and arguments; the program is looked up in PATH) under
// valgrind's lackey and writes its loads and stores to options.output_path.
// Blocks until the program ends. The program uses the caller's standard
// streams; valgrind's output goes through a separate pipe, so the two do not
// mix. A program that fails is still recorded: see exit_code.
//
// INVALID_ARGUMENT if args or output_path is empty, NOT_FOUND if the program
// does not exist, FAILED_PRECONDITION if valgrind does not exist or reported no
// access (with valgrind's last lines), or an error of the file system. On error
// there is no output file.
absl::StatusOr<TraceSummary> RecordTrace(const std::vector<std::string>& args,
                                         const RecordOptions& options);

}  // namespace mmud::trace

#endif  // TRACE_TRACE_RECORDER_H_
