// mmuctl trace record, info. They need no daemon.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/text/message_json.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "nlohmann/json.hpp"
#include "trace/trace_header.h"
#include "trace/trace_reader.h"
#include "trace/trace_recorder.h"

namespace mmud::client {
namespace {

struct RecordArguments {
  trace::RecordOptions options;
  std::vector<std::string> command;
};

absl::Status PrintInfo(Context& context, const std::string& path,
                       const trace::TraceInfo& info, uint64_t file_bytes) {
  const Json json = {{"path", path},
                     {"command", info.command},
                     {"origin", info.origin},
                     {"access_count", info.access_count},
                     {"load_count", info.load_count},
                     {"store_count", info.store_count},
                     {"fetch_count", info.fetch_count},
                     {"page_count", info.page_count},
                     {"seen_record_count", info.seen_record_count},
                     {"filter_line_count", info.filter_lines},
                     {"cut_at_limit", info.cut_at_limit},
                     {"file_size_bytes", file_bytes}};
  const auto count = [](uint64_t n) {
    return FormatCount(static_cast<int64_t>(n));
  };
  KeyValues values;
  values.Add(
      "file",
      absl::StrCat(path, ", ", FormatBytes(static_cast<int64_t>(file_bytes))));
  values.Add("command", info.command);
  values.Add("origin", info.origin);
  values.Add("accesses", absl::StrCat(count(info.access_count), ": ",
                                      count(info.load_count), " loads, ",
                                      count(info.store_count), " stores, ",
                                      count(info.fetch_count), " fetches"));
  values.Add(
      "pages",
      absl::StrCat(count(info.page_count), ", ",
                   FormatBytes(static_cast<int64_t>(info.page_count * 4096))));
  values.Add("filter",
             info.filter_lines == 0
                 ? "none"
                 : absl::StrCat("repeats within ", info.filter_lines,
                                " cache lines left out, ",
                                count(info.seen_record_count), " seen"));
  values.Add("cut", info.cut_at_limit ? "at --max-accesses" : "no");
  return context.Print(json, values.ToString());
}

absl::Status Record(Context& context, const RecordArguments& arguments) {
  trace::RecordOptions options = arguments.options;
  if (options.output_path.empty()) {
    options.output_path = absl::StrCat(
        std::filesystem::path(arguments.command.front()).filename().string(),
        ".trace");
  }
  const auto progress = context.NewProgress("record");
  const uint64_t limit = options.max_accesses;
  options.on_progress = [&](const trace::RecordProgress& state) {
    std::optional<double> share;
    if (limit > 0) {
      share =
          static_cast<double>(state.access_count) / static_cast<double>(limit);
    }
    progress->Update(
        share,
        absl::StrCat(FormatCount(static_cast<int64_t>(state.access_count)),
                     " accesses"));
  };
  const absl::StatusOr<trace::TraceSummary> summary =
      trace::RecordTrace(arguments.command, options);
  if (!summary.ok()) return summary.status();
  progress->Finish("done");
  if (absl::Status status = PrintInfo(context, options.output_path,
                                      summary->info, summary->file_bytes);
      !status.ok()) {
    return status;
  }
  if (!summary->stopped_at_limit && summary->exit_code != 0) {
    context.err()
        << "note: the program "
        << (summary->term_signal != 0
                ? absl::StrCat("was ended by signal ", summary->term_signal)
                : absl::StrCat("exited with code ", summary->exit_code))
        << "; its trace was kept\n";
    context.exit_code = kExitFailed;
  }
  return absl::OkStatus();
}

struct InfoArguments {
  std::string path;
};

absl::Status Info(Context& context, const InfoArguments& arguments) {
  const absl::StatusOr<std::unique_ptr<trace::TraceReader>> reader =
      trace::TraceReader::Open(arguments.path);
  if (!reader.ok()) return reader.status();
  // The header says nothing about the blocks behind it.
  if (absl::Status status = (*reader)->Verify(); !status.ok()) return status;
  return PrintInfo(context, arguments.path, (*reader)->info(),
                   (*reader)->file_bytes());
}

}  // namespace

void AddTraceCommands(CLI::App& app, Context& context) {
  CLI::App* group = AddGroup(
      app, "trace",
      "Records and shows traces of real programs. Needs no daemon.",
      "mmuctl trace record -o traces/sort.trace -- sort /etc/services\n"
      "mmuctl trace info traces/sort.trace");

  auto record = std::make_shared<RecordArguments>();
  CLI::App* command = AddCommand(
      *group, "record",
      "Runs a program under valgrind and records its loads and stores.",
      "mmuctl trace record -- sort /etc/services\n"
      "mmuctl trace record -o gzip.trace --max-accesses 5000000 -- gzip -c "
      "/usr/bin/perl > /dev/null");
  command
      ->add_option("-o,--output", record->options.output_path,
                   "trace file to write (default: PROGRAM.trace, here)")
      ->type_name("FILE");
  command->add_option("--max-accesses", record->options.max_accesses,
                      "stop the program after this many accesses; 0: no limit");
  command->add_option("--filter-lines", record->options.filter_lines,
                      "leave out accesses to the last N cache lines of 64 "
                      "bytes; 0: record everything (default: 16)");
  command->add_flag_function(
      "--fetches",
      [record](int64_t) {
        record->options.fetches = trace::FetchRecording::kKeep;
      },
      "record instruction fetches too");
  command->add_option("--origin", record->options.origin,
                      "origin of the trace, stored in the file");
  command->add_option("--valgrind", record->options.valgrind,
                      "valgrind program to run");
  command
      ->add_option("PROGRAM", record->command,
                   "program and its arguments, after --")
      ->required()
      ->expected(1, 100000);
  Run(command, context, record, Record);

  auto info = std::make_shared<InfoArguments>();
  command = AddCommand(
      *group, "info",
      "Reads a trace file to its end, checks it, and shows its properties.",
      "mmuctl trace info traces/sort.trace");
  command->add_option("FILE", info->path, "trace file")->required();
  Run(command, context, info, Info);
}

}  // namespace mmud::client
