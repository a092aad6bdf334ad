#include "server/control/reload_actions.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

using ::testing::ElementsAre;

TEST(ReloadActionsTest, RunsEachActionInItsOrder) {
  ReloadActions actions;
  std::vector<std::string> ran;
  for (const char* name : {"policy", "certificates"}) {
    actions.Add(name, [&ran, name] {
      ran.push_back(name);
      return absl::OkStatus();
    });
  }
  EXPECT_EQ(actions.Run(), ReloadResult::kSucceeded);
  EXPECT_THAT(ran, ElementsAre("policy", "certificates"));
  EXPECT_EQ(actions.Run(), ReloadResult::kSucceeded);
  EXPECT_EQ(ran.size(), 4u);
  EXPECT_THAT(actions.counts(), ElementsAre(2, 0));
}

TEST(ReloadActionsTest, AFailureIsCountedAndDoesNotStopTheOthers) {
  ReloadActions actions;
  absl::Status first = absl::InvalidArgumentError("no such file");
  int others = 0;
  actions.Add("policy", [&first] { return first; });
  actions.Add("certificates", [&others] {
    ++others;
    return absl::OkStatus();
  });
  testing::internal::CaptureStderr();
  EXPECT_EQ(actions.Run(), ReloadResult::kFailed);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, testing::HasSubstr("policy"));
  EXPECT_THAT(log, testing::HasSubstr("no such file"));
  EXPECT_EQ(others, 1);
  first = absl::OkStatus();
  EXPECT_EQ(actions.Run(), ReloadResult::kSucceeded);
  EXPECT_EQ(others, 2);
  EXPECT_THAT(actions.counts(), ElementsAre(1, 1));
}

TEST(ReloadActionsTest, WithoutActionsARunSucceeds) {
  ReloadActions actions;
  EXPECT_EQ(actions.Run(), ReloadResult::kSucceeded);
  EXPECT_THAT(actions.counts(), ElementsAre(1, 0));
}

TEST(ReloadActionsTest, ResultsHaveNamesForTheMetric) {
  EXPECT_STREQ(ReloadResultName(ReloadResult::kSucceeded), "success");
  EXPECT_STREQ(ReloadResultName(ReloadResult::kFailed), "failure");
}

}  // namespace
}  // namespace mmud
