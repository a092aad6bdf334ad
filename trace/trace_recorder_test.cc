// Runs the real valgrind on small programs of the system.

#include "trace/trace_recorder.h"

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "trace/trace_reader.h"

namespace mmud::trace {
namespace {

using ::testing::HasSubstr;

RecordOptions OptionsFor(const std::string& name) {
  RecordOptions options;
  options.output_path = testing::TempDir() + "/" + name + ".trace";
  std::filesystem::remove(options.output_path);
  return options;
}

TEST(TraceRecorderTest, RecordsARealProgram) {
  RecordOptions options = OptionsFor("true");
  uint64_t reported = 0;
  options.on_progress = [&reported](const RecordProgress& progress) {
    reported = progress.access_count;
  };
  const absl::StatusOr<TraceSummary> summary =
      RecordTrace({"true", "with", "arguments"}, options);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->exit_code, 0);
  EXPECT_EQ(summary->term_signal, 0);
  EXPECT_FALSE(summary->stopped_at_limit);
  EXPECT_EQ(summary->info.command, "true with arguments");
  // Even `true` makes accesses while it is loaded and linked.
  EXPECT_GT(summary->info.load_count, 1000u);
  EXPECT_GT(summary->info.store_count, 100u);
  EXPECT_GT(summary->info.page_count, 10u);
  EXPECT_EQ(summary->info.fetch_count, 0u);
  EXPECT_GT(summary->info.seen_record_count, summary->info.record_count);
  EXPECT_EQ(reported, summary->info.access_count);

  const auto reader = TraceReader::Open(options.output_path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->Verify(), absl::OkStatus());
  EXPECT_EQ((*reader)->info(), summary->info);
  EXPECT_EQ((*reader)->file_bytes(), summary->file_bytes);
}

TEST(TraceRecorderTest, RecordsInstructionFetchesWhenAsked) {
  RecordOptions options = OptionsFor("fetches");
  options.fetches = FetchRecording::kKeep;
  options.filter_lines = 0;
  options.max_accesses = 5000;
  const absl::StatusOr<TraceSummary> summary = RecordTrace({"true"}, options);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_GT(summary->info.fetch_count, 2000u);
  EXPECT_TRUE(summary->info.has_fetches);
}

TEST(TraceRecorderTest, StopsTheProgramAtTheLimit) {
  RecordOptions options = OptionsFor("limit");
  options.max_accesses = 500;
  // Without the limit, sha256sum would never end.
  const absl::StatusOr<TraceSummary> summary =
      RecordTrace({"sha256sum", "/dev/zero"}, options);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_TRUE(summary->stopped_at_limit);
  EXPECT_TRUE(summary->info.cut_at_limit);
  EXPECT_EQ(summary->exit_code, -1);
  // A modify is two accesses, so the count may exceed the limit by one.
  EXPECT_GE(summary->info.access_count, 500u);
  EXPECT_LE(summary->info.access_count, 501u);
}

TEST(TraceRecorderTest, ReportsHowAFailingProgramEnded) {
  absl::StatusOr<TraceSummary> summary =
      RecordTrace({"sh", "-c", "exit 7"}, OptionsFor("fails"));
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->exit_code, 7);
  summary = RecordTrace({"sh", "-c", "kill -TERM $$"}, OptionsFor("killed"));
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->exit_code, -1);
  EXPECT_EQ(summary->term_signal, SIGTERM);
}

TEST(TraceRecorderTest, MissingProgramIsNamed) {
  for (const std::string program : {"no-such-program", "/no/such/program"}) {
    const RecordOptions options = OptionsFor("missing");
    const absl::Status status = RecordTrace({program}, options).status();
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(program));
    EXPECT_FALSE(std::filesystem::exists(options.output_path));
  }
}

TEST(TraceRecorderTest, MissingValgrindSaysWhatToInstall) {
  RecordOptions options = OptionsFor("no_valgrind");
  options.valgrind = "no-such-valgrind";
  const absl::Status status = RecordTrace({"true"}, options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("install the package 'valgrind'"));
}

TEST(TraceRecorderTest, ValgrindThatReportsNothingIsAnErrorAndLeavesNoFile) {
  RecordOptions options = OptionsFor("silent");
  options.valgrind = "echo";
  const absl::Status status = RecordTrace({"true"}, options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_FALSE(std::filesystem::exists(options.output_path));
  EXPECT_FALSE(std::filesystem::exists(options.output_path + ".partial"));
}

TEST(TraceRecorderTest, EmptyArgumentsAreRefused) {
  EXPECT_TRUE(
      absl::IsInvalidArgument(RecordTrace({}, OptionsFor("empty")).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RecordTrace({"true"}, {}).status()));
}

TEST(TraceRecorderTest, UnwritableOutputIsAnErrorBeforeTheProgramRuns) {
  RecordOptions options;
  options.output_path = "/nonexistent/folder/x.trace";
  EXPECT_TRUE(
      absl::IsNotFound(RecordTrace({"sleep", "1000000"}, options).status()));
}

}  // namespace
}  // namespace mmud::trace
