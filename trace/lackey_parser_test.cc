#include "trace/lackey_parser.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

namespace mmud::trace {
namespace {

using Records = std::vector<TraceRecord>;
using Continue = LackeyParser::Continue;

constexpr std::string_view kOutput =
    "==4553== Lackey, an example Valgrind tool\n"
    "==4553== \n"
    "I  0401ab70,3\n"
    " S 1fff000708,8\n"
    "hello from the program\n"
    " L 1fff000700,16\r\n"
    " M 04033e06,1";

const Records kRecords = {{TraceOp::kFetch, 0x0401ab70, 3},
                          {TraceOp::kStore, 0x1fff000708, 8},
                          {TraceOp::kLoad, 0x1fff000700, 16},
                          {TraceOp::kModify, 0x04033e06, 1}};

Records Parse(std::string_view text, size_t chunk_bytes) {
  LackeyParser parser;
  Records records;
  const auto take = [&records](const TraceRecord& record) {
    records.push_back(record);
    return Continue::kYes;
  };
  for (size_t i = 0; i < text.size(); i += chunk_bytes) {
    EXPECT_EQ(parser.Feed(text.substr(i, chunk_bytes), take), Continue::kYes);
  }
  parser.Finish(take);
  return records;
}

TEST(LackeyParserTest, KnowsTheFourKindsOfLines) {
  EXPECT_EQ(ParseLackeyLine("I  04001090,3"),
            (TraceRecord{TraceOp::kFetch, 0x4001090, 3}));
  EXPECT_EQ(ParseLackeyLine(" L 1ffeffe7e8,8"),
            (TraceRecord{TraceOp::kLoad, 0x1ffeffe7e8, 8}));
  EXPECT_EQ(ParseLackeyLine(" S ffffffffffffffff,4096"),
            (TraceRecord{TraceOp::kStore, ~uint64_t{0}, 4096}));
  EXPECT_EQ(ParseLackeyLine(" M 0,1"), (TraceRecord{TraceOp::kModify, 0, 1}));
}

TEST(LackeyParserTest, AnythingElseIsNoAccess) {
  for (const std::string_view line : {"",
                                      "I",
                                      "I  ",
                                      " L ",
                                      " L ,",
                                      " L ,8",
                                      " L 10,",
                                      " L 10",
                                      " L 10,0",
                                      " L 10,4097",
                                      " L 10,-1",
                                      " L 10,8 ",
                                      " L -10,8",
                                      " L 0x10,8",
                                      " L g,8",
                                      " L 10,99999999999",
                                      " L 11111111111111111,8",
                                      "L  10,8",
                                      "  L 10,8",
                                      " X 10,8",
                                      "==1== L 10,8",
                                      " L  10,8"}) {
    EXPECT_EQ(ParseLackeyLine(line), std::nullopt) << "'" << line << "'";
  }
}

TEST(LackeyParserTest, ResultDoesNotDependOnWhereTheStreamIsCut) {
  for (size_t chunk = 1; chunk <= kOutput.size(); ++chunk) {
    EXPECT_EQ(Parse(kOutput, chunk), kRecords) << "chunks of " << chunk;
  }
}

TEST(LackeyParserTest, KeepsTheLastOtherLinesForErrorMessages) {
  LackeyParser parser;
  const auto none = [](const TraceRecord&) { return Continue::kYes; };
  parser.Feed("==1== first\n\n L 10,8\nsecond\n", none);
  EXPECT_EQ(parser.other_lines(), 3u);
  EXPECT_EQ(parser.notes(), (std::deque<std::string>{"==1== first", "second"}));
  for (int i = 0; i < 100; ++i) parser.Feed("again\n", none);
  EXPECT_EQ(parser.notes().size(), LackeyParser::kMaxNotes);
}

TEST(LackeyParserTest, EndlessLineIsSkippedAndNotCollected) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += std::string(1000, 'x');
  text += "\n L 10,8\n";
  EXPECT_EQ(Parse(text, 777), (Records{{TraceOp::kLoad, 0x10, 8}}));
}

TEST(LackeyParserTest, ALongLineIsNoAccessWhereverTheStreamIsCut) {
  // Its start alone would be an access.
  const std::string line = " L 10,4" + std::string(4096, '0');
  for (const char* end : {"\n", ""}) {
    const std::string text = line + end;
    for (const size_t cut : {size_t{0}, size_t{7}, text.size()}) {
      int records = 0;
      const auto count = [&records](const TraceRecord&) {
        ++records;
        return LackeyParser::Continue::kYes;
      };
      LackeyParser parser;
      parser.Feed(std::string_view(text).substr(0, cut), count);
      parser.Feed(std::string_view(text).substr(cut), count);
      parser.Finish(count);
      EXPECT_EQ(records, 0) << cut;
      EXPECT_EQ(parser.other_lines(), 1u) << cut;
      EXPECT_TRUE(parser.notes().empty()) << cut;
    }
  }
}

TEST(LackeyParserTest, StopsAtOnceWhenTold) {
  LackeyParser parser;
  int calls = 0;
  const auto stop = [&calls](const TraceRecord&) {
    ++calls;
    return Continue::kNo;
  };
  EXPECT_EQ(parser.Feed(" L 10,8\n L 20,8\n", stop), Continue::kNo);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace mmud::trace
