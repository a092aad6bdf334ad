// Checks that the traces in traces/ are undamaged and name their origin.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "trace/trace_header.h"
#include "trace/trace_reader.h"

namespace mmud::trace {
namespace {

using ::testing::HasSubstr;

struct Expected {
  std::string name;
  uint64_t min_accesses;
  uint64_t min_pages;
};

class RecordedTracesTest : public testing::TestWithParam<Expected> {};

TEST_P(RecordedTracesTest, IsWholeAndStatesItsOrigin) {
  const auto reader = TraceReader::Open("traces/" + GetParam().name + ".trace");
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->Verify(), absl::OkStatus());
  const TraceInfo& info = (*reader)->info();
  EXPECT_GE(info.access_count, GetParam().min_accesses);
  EXPECT_GE(info.page_count, GetParam().min_pages);
  EXPECT_GT(info.load_count, 0u);
  EXPECT_GT(info.store_count, 0u);
  EXPECT_FALSE(info.cut_at_limit);
  EXPECT_THAT(info.command, HasSubstr(GetParam().name));
  EXPECT_THAT(info.origin, HasSubstr("made by traces/record.sh"));
  EXPECT_LE((*reader)->file_bytes(), 1'600'000u);
}

INSTANTIATE_TEST_SUITE_P(All, RecordedTracesTest,
                         testing::Values(Expected{"sort", 500'000, 2000},
                                         Expected{"sqlite3", 500'000, 1000},
                                         Expected{"gzip", 500'000, 100}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mmud::trace
