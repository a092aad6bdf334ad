#include "trace/trace_recorder.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "trace/lackey_parser.h"
#include "trace/trace_filter.h"
#include "trace/trace_record.h"
#include "trace/trace_writer.h"
#include "trace/valgrind_process.h"

namespace mmud::trace {
namespace {

constexpr size_t kPipeBufferBytes = 64 * 1024;

// Filters the records that come from valgrind, writes them to the file, and
// stops at the limit.
class Recording {
 public:
  Recording(TraceWriter& writer, const RecordOptions& options)
      : writer_(writer), options_(options), filter_(options.filter_lines) {}

  LackeyParser::Continue Take(const TraceRecord& record) {
    if (record.op == TraceOp::kFetch &&
        options_.fetches == FetchRecording::kDrop) {
      return LackeyParser::Continue::kYes;
    }
    if (limit_reached_) return LackeyParser::Continue::kNo;
    if (!filter_.Keep(record)) return LackeyParser::Continue::kYes;
    status_ = writer_.Add(record);
    limit_reached_ = options_.max_accesses != 0 &&
                     writer_.access_count() >= options_.max_accesses;
    return status_.ok() && !limit_reached_ ? LackeyParser::Continue::kYes
                                           : LackeyParser::Continue::kNo;
  }

  void Report() const {
    if (options_.on_progress) {
      options_.on_progress({filter_.seen(), writer_.access_count()});
    }
  }

  bool limit_reached() const { return limit_reached_; }
  uint64_t seen() const { return filter_.seen(); }
  const absl::Status& status() const { return status_; }

 private:
  TraceWriter& writer_;
  const RecordOptions& options_;
  TraceFilter filter_;
  bool limit_reached_ = false;
  absl::Status status_;
};

// Reads the process's output to its end, to the limit or to an error.
absl::Status Pump(ValgrindProcess& process, LackeyParser& parser,
                  Recording& recording) {
  const auto take = [&recording](const TraceRecord& record) {
    return recording.Take(record);
  };
  std::vector<char> buffer(kPipeBufferBytes);
  while (true) {
    const absl::StatusOr<size_t> got =
        process.Read(buffer.data(), buffer.size());
    if (!got.ok()) return got.status();
    if (*got == 0) {
      parser.Finish(take);
      return recording.status();
    }
    if (parser.Feed(std::string_view(buffer.data(), *got), take) ==
        LackeyParser::Continue::kNo) {
      return recording.status();
    }
    recording.Report();
  }
}

TraceInfo InfoFor(const std::vector<std::string>& args,
                  const RecordOptions& options) {
  TraceInfo info;
  info.command = absl::StrJoin(args, " ");
  info.origin = options.origin.empty()
                    ? "recorded with valgrind --tool=lackey --trace-mem=yes"
                    : options.origin;
  info.filter_lines = options.filter_lines < TraceFilter::kMaxLines
                          ? options.filter_lines
                          : TraceFilter::kMaxLines;
  info.has_fetches = options.fetches == FetchRecording::kKeep;
  return info;
}

}  // namespace

absl::StatusOr<TraceSummary> RecordTrace(const std::vector<std::string>& args,
                                         const RecordOptions& options) {
  if (args.empty() || args[0].empty()) {
    return absl::InvalidArgumentError(
        "no program to record: give one and its arguments");
  }
  if (options.output_path.empty()) {
    return absl::InvalidArgumentError(
        "output_path is empty: give the trace file a name");
  }
  const absl::StatusOr<std::string> valgrind = FindProgram(options.valgrind);
  if (!valgrind.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "valgrind is needed to record a trace: ", valgrind.status().message(),
        "; install the package 'valgrind'"));
  }
  const absl::StatusOr<std::string> program = FindProgram(args[0]);
  if (!program.ok()) return program.status();

  absl::StatusOr<std::unique_ptr<TraceWriter>> writer =
      TraceWriter::Create(options.output_path, InfoFor(args, options));
  if (!writer.ok()) return writer.status();
  absl::StatusOr<std::unique_ptr<ValgrindProcess>> process =
      ValgrindProcess::Start(*valgrind, *program, args);
  if (!process.ok()) return process.status();

  LackeyParser parser;
  Recording recording(**writer, options);
  absl::Status status = Pump(**process, parser, recording);
  if (!status.ok()) return status;

  TraceSummary summary;
  summary.stopped_at_limit = recording.limit_reached();
  if (summary.stopped_at_limit) (*process)->Kill();
  const ValgrindProcess::Exit exit = (*process)->Wait();
  if (!summary.stopped_at_limit) {
    summary.exit_code = exit.exit_code;
    summary.term_signal = exit.term_signal;
  }
  if ((*writer)->access_count() == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("valgrind reported no access of '", args[0],
                     "'; it said: ", absl::StrJoin(parser.notes(), " | ")));
  }
  absl::StatusOr<TraceInfo> info =
      (*writer)->Finish(recording.seen(), recording.limit_reached());
  if (!info.ok()) return info.status();
  summary.info = *std::move(info);
  std::error_code ignored;
  summary.file_bytes = std::filesystem::file_size(options.output_path, ignored);
  recording.Report();
  return summary;
}

}  // namespace mmud::trace
