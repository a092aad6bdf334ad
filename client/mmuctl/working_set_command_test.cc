// mmuctl workingset: what is asked for, drawn and written.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "client/mmuctl/fake_aging_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

std::string Read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string PagePath() { return testing::TempDir() + "/alpha.html"; }

TEST(WorkingSetCommandTest, ItIsDrawn) {
  FakeAging daemon;
  daemon.AddGeneration();
  daemon.AddGeneration();
  const Result result = daemon.Run({"workingset", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.reading.vm(), "vms/alpha");
  EXPECT_TRUE(daemon.reading.windows().empty());
  EXPECT_EQ(daemon.reading.heat_map_unit(), v1::PAGE_SIZE_4K);
  EXPECT_TRUE(Contains(result.out, "VM:         vms/alpha\n")) << result.out;
  EXPECT_TRUE(Contains(result.out, "    1m       24 KiB  75.0%  at most"))
      << result.out;
  EXPECT_TRUE(Contains(result.out, "  2     0s - 10s  16 KiB  50.0%  "))
      << result.out;
  EXPECT_TRUE(Contains(result.out, "slot 0: 0, 32 KiB, 4 KiB per character\n"))
      << result.out;
  EXPECT_TRUE(Contains(result.out,
                       "coverage:   in the map of guest memory, "
                       "unmapped memory is never young too\n"))
      << result.out;
  // The output is no terminal.
  EXPECT_FALSE(Contains(result.out, "\x1b")) << result.out;
}

TEST(WorkingSetCommandTest, OptionsReachTheDaemon) {
  FakeAging daemon;
  daemon.AddGeneration();
  const Result result =
      daemon.Run({"workingset", "alpha", "--window", "30s", "--window", "5m",
                  "--unit", "2m", "--width", "4"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  ASSERT_EQ(daemon.reading.windows_size(), 2);
  EXPECT_EQ(daemon.reading.windows(0).seconds(), 30);
  EXPECT_EQ(daemon.reading.windows(1).seconds(), 300);
  EXPECT_EQ(daemon.reading.heat_map_unit(), v1::PAGE_SIZE_2M);
}

TEST(WorkingSetCommandTest, TheUnitIsTheSmallestThatIsAllowed) {
  FakeAging daemon;
  daemon.AddGeneration();
  daemon.memory_bytes = int64_t{1} << 40;
  ASSERT_EQ(daemon.Run({"workingset", "alpha"}).exit_code, kExitOk);
  EXPECT_EQ(daemon.reading.heat_map_unit(), v1::PAGE_SIZE_2M);
}

TEST(WorkingSetCommandTest, JsonIsTheResponseWithAMapOnRequest) {
  FakeAging daemon;
  daemon.AddGeneration();
  Result result = daemon.Run({"--json", "workingset", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  Json set = Json::parse(result.out, nullptr, false)["working_set"];
  EXPECT_EQ(set["vm"], "vms/alpha") << result.out;
  EXPECT_EQ(set["heat_maps"].size(), 0u) << result.out;
  result = daemon.Run({"--json", "workingset", "alpha", "--unit", "4k"});
  set = Json::parse(result.out, nullptr, false)["working_set"];
  EXPECT_EQ(set["heat_maps"].size(), 1u) << result.out;
}

TEST(WorkingSetCommandTest, ThePageIsWrittenAndNamed) {
  FakeAging daemon;
  daemon.AddGeneration();
  daemon.AddGeneration();
  std::remove(PagePath().c_str());
  const Result result =
      daemon.Run({"workingset", "alpha", "--html", PagePath()});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "\npage: " + PagePath() + ", "))
      << result.out;
  const std::string page = Read(PagePath());
  EXPECT_TRUE(Contains(page, "<h1>Working set of vms/alpha</h1>"));
  // A timeline of two generations.
  EXPECT_TRUE(Contains(page, "<h2>Over time</h2>"));
  EXPECT_TRUE(Contains(page, "</html>\n"));
}

TEST(WorkingSetCommandTest, APageThatCannotBeWrittenIsAnError) {
  FakeAging daemon;
  daemon.AddGeneration();
  Result result =
      daemon.Run({"workingset", "alpha", "--html", "/none/alpha.html"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(result.err,
                       "--html: '/none/alpha.html' cannot be written: No such "
                       "file or directory; give a file in a folder"))
      << result.err;
  EXPECT_TRUE(daemon.reading.vm().empty());
  result = daemon.Run({"workingset", "alpha", "--html", "/dev/full"});
  EXPECT_EQ(result.exit_code, kExitInternal);
  EXPECT_TRUE(Contains(result.err, "No space left on device")) << result.err;
  EXPECT_EQ(result.out, "");
}

TEST(WorkingSetCommandTest, WatchingShowsItUntilAnError) {
  FakeAging daemon;
  daemon.AddGeneration();
  daemon.readings_left = 3;
  const Result result = daemon.Run(
      {"workingset", "alpha", "--watch", "100ms", "--html", PagePath()});
  EXPECT_EQ(result.exit_code, kExitConflict);
  int drawn = 0;
  for (size_t at = 0; (at = result.out.find("VM:  ", at)) != std::string::npos;
       ++at) {
    ++drawn;
  }
  EXPECT_EQ(drawn, 3) << result.out;
  EXPECT_TRUE(std::filesystem::exists(PagePath()));
}

TEST(WorkingSetCommandTest, WatchMayHaveNoInterval) {
  FakeAging daemon;
  // There is no generation, so each of them ends at once.
  for (const std::vector<std::string>& line :
       std::vector<std::vector<std::string>>{
           {"workingset", "alpha", "--watch"},
           {"workingset", "alpha", "--watch", "--width", "32"},
           {"workingset", "alpha", "--watch=2s"}}) {
    EXPECT_EQ(daemon.Run(line).exit_code, kExitConflict);
  }
  for (const char* interval : {"0s", "inf", "alpha"}) {
    const Result result =
        daemon.Run({"workingset", "alpha", "--watch", interval});
    EXPECT_EQ(result.exit_code, kExitUsage) << interval;
    EXPECT_TRUE(Contains(result.err, "--watch")) << result.err;
  }
}

TEST(WorkingSetCommandTest, WithoutGenerationsTheErrorSaysHowToMakeThem) {
  FakeAging daemon;
  const Result result = daemon.Run({"workingset", "alpha"});
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(result.err, " generation alpha; or ")) << result.err;
  EXPECT_TRUE(Contains(result.err, " ager alpha --on\n")) << result.err;
}

TEST(WorkingSetCommandTest, ItIsForgotten) {
  FakeAging daemon;
  const Result result = daemon.Run({"workingset", "alpha", "--forget"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.forgotten, "vms/alpha");
  EXPECT_TRUE(Contains(result.out, "switched its ager off")) << result.out;
  EXPECT_EQ(
      daemon.Run({"workingset", "alpha", "--forget", "--watch"}).exit_code,
      kExitUsage);
}

TEST(WorkingSetCommandTest, WrongOptionsAreUsageErrors) {
  FakeAging daemon;
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{"--window", "inf"},
                                             {"--window", "soon"},
                                             {"--width", "0"},
                                             {"--unit", "64k"}}) {
    std::vector<std::string> line = {"workingset", "alpha"};
    line.insert(line.end(), options.begin(), options.end());
    const Result result = daemon.Run(line);
    EXPECT_EQ(result.exit_code, kExitUsage) << options[1];
    EXPECT_TRUE(Contains(result.err, options[0])) << result.err;
  }
}

}  // namespace
}  // namespace mmud::client
