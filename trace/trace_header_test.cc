#include "trace/trace_header.h"

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "trace/bytes.h"

namespace mmud::trace {
namespace {

using ::testing::HasSubstr;

TraceInfo SomeInfo() {
  TraceInfo info;
  info.command = "sort -o out in";
  info.origin = "a test";
  info.access_count = 1;
  info.record_count = 2;
  info.page_count = 3;
  info.seen_record_count = 4;
  info.load_count = 5;
  info.store_count = 6;
  info.fetch_count = 7;
  info.filter_lines = 8;
  info.has_fetches = true;
  info.cut_at_limit = true;
  return info;
}

TEST(TraceHeaderTest, ComesBackAsItWasWritten) {
  const std::string bytes = EncodeHeader(SomeInfo());
  EXPECT_EQ(bytes.size(), HeaderBytes(SomeInfo()));
  EXPECT_EQ(HeaderBytesFrom(bytes).value(), bytes.size());
  EXPECT_EQ(DecodeHeader(bytes).value(), SomeInfo());
}

TEST(TraceHeaderTest, TextsMayBeEmptyOrHoldAnyByte) {
  TraceInfo info;
  EXPECT_EQ(DecodeHeader(EncodeHeader(info)).value(), info);
  info.command = std::string("a\0b\n\xff", 5);
  EXPECT_EQ(DecodeHeader(EncodeHeader(info)).value(), info);
}

TEST(TraceHeaderTest, OtherFilesAreNoTraces) {
  for (const std::string& other :
       {std::string(), std::string("MMUDTRCX"), std::string(200, '\0'),
        std::string("#!/bin/sh\n")}) {
    const absl::Status status = DecodeHeader(other).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("byte 0: not a trace file"));
  }
}

TEST(TraceHeaderTest, OtherVersionIsNamed) {
  std::string bytes = EncodeHeader(SomeInfo());
  bytes[8] = 2;
  const absl::Status status = DecodeHeader(bytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("byte 8: version 2: must be 1"));
}

TEST(TraceHeaderTest, AbsurdLengthsAreRefusedBeforeAnythingIsAllocated) {
  std::string bytes = EncodeHeader(SomeInfo()).substr(0, kFixedHeaderBytes);
  std::string huge;
  AppendU32(huge, 0xffffffff);
  bytes.replace(84, 4, huge);
  const absl::Status status = HeaderBytesFrom(bytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 16384"));
}

TEST(TraceHeaderTest, EveryTruncationIsAnError) {
  const std::string bytes = EncodeHeader(SomeInfo());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(DecodeHeader(bytes.substr(0, size)).ok()) << size;
  }
}

TEST(TraceHeaderTest, EveryFlippedBitIsAnError) {
  const std::string bytes = EncodeHeader(SomeInfo());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string bad = bytes;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(DecodeHeader(bad).ok()) << "bit " << bit;
  }
}

}  // namespace
}  // namespace mmud::trace
