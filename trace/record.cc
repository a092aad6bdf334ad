// Records a trace with a few fixed options; traces/record.sh uses it.
//
//   record OUTPUT ORIGIN FILTER_LINES MAX_ACCESSES PROGRAM [ARGS...]

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "trace/trace_recorder.h"

int main(int argc, char** argv) {
  constexpr int kFirstProgramWord = 5;
  mmud::trace::RecordOptions options;
  if (argc <= kFirstProgramWord ||
      !absl::SimpleAtoi(argv[3], &options.filter_lines) ||
      !absl::SimpleAtoi(argv[4], &options.max_accesses)) {
    std::fprintf(stderr,
                 "usage: %s OUTPUT ORIGIN FILTER_LINES MAX_ACCESSES PROGRAM "
                 "[ARGS...]\n",
                 argv[0]);
    return 2;
  }
  options.output_path = argv[1];
  options.origin = argv[2];
  const std::vector<std::string> args(argv + kFirstProgramWord, argv + argc);
  const absl::StatusOr<mmud::trace::TraceSummary> summary =
      mmud::trace::RecordTrace(args, options);
  if (!summary.ok()) {
    std::fprintf(stderr, "%s: %s\n", argv[0],
                 std::string(summary.status().message()).c_str());
    return 1;
  }
  std::printf("%s: %llu of %llu accesses seen, %llu pages, %llu bytes%s\n",
              argv[1],
              static_cast<unsigned long long>(summary->info.access_count),
              static_cast<unsigned long long>(summary->info.seen_record_count),
              static_cast<unsigned long long>(summary->info.page_count),
              static_cast<unsigned long long>(summary->file_bytes),
              summary->stopped_at_limit ? ", stopped at the limit" : "");
  if (summary->stopped_at_limit || summary->exit_code == 0) return 0;
  std::fprintf(stderr, "%s: %s ended with exit code %d, signal %d\n", argv[0],
               args[0].c_str(), summary->exit_code, summary->term_signal);
  return 1;
}
