#include "client/top/view.h"

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/top/columns.h"
#include "client/top/example_test_util.h"
#include "client/top/marks.h"
#include "client/top/model.h"
#include "client/top/sample.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {
namespace {

// A screen of testdata.
std::string Golden(const std::string& name) {
  std::ifstream file(absl::StrCat("client/top/testdata/", name, ".screen"));
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

ViewOptions Screen(int width, int height) {
  ViewOptions options;
  options.width = width;
  options.height = height;
  options.charset = Charset::kUtf8;
  options.address = "unix:/run/mmud/mmud.sock";
  options.selected = "uid-alpha";
  options.help = "the keys";
  return options;
}

// Every line fits, and there are as many as the screen has.
void ExpectFits(const std::vector<Line>& lines, const ViewOptions& options) {
  EXPECT_EQ(lines.size(), static_cast<size_t>(options.height));
  for (const Line& line : lines) {
    int width = 0;
    for (const Span& span : line) width += WidthOf(span.text);
    EXPECT_LE(width, options.width) << PlainText({line});
  }
}

TEST(ViewOverview, ShowsTheVmsOnScreensOfSeveralSizes) {
  for (const auto& [name, width, height] :
       {std::tuple<std::string, int, int>{"overview_80x24", 80, 24},
        {"overview_120x40", 120, 40},
        {"overview_40x12", 40, 12}}) {
    const ViewOptions options = Screen(width, height);
    const std::vector<Line> lines = ViewOverview(ExampleModel(), options);
    ExpectFits(lines, options);
    EXPECT_EQ(PlainText(lines), Golden(name)) << name;
  }
}

TEST(ViewDetail, ShowsOneVmOnScreensOfSeveralSizes) {
  for (const auto& [name, width, height] :
       {std::tuple<std::string, int, int>{"detail_80x24", 80, 24},
        {"detail_120x40", 120, 40}}) {
    const ViewOptions options = Screen(width, height);
    const std::vector<Line> lines = ViewDetail(ExampleModel(), options);
    ExpectFits(lines, options);
    EXPECT_EQ(PlainText(lines), Golden(name)) << name;
  }
}

TEST(ViewDetail, SaysThatTheVmIsGone) {
  ViewOptions options = Screen(80, 24);
  options.selected = "another uid";
  EXPECT_TRUE(absl::StrContains(PlainText(ViewDetail(ExampleModel(), options)),
                                "the VM does not exist any more"));
}

TEST(Views, NoLineIsWiderThanAnyScreen) {
  const TopModel model = ExampleModel();
  for (int width = 1; width <= 200; ++width) {
    for (const int height : {1, 2, 3, 5, 8, 24, 50}) {
      const ViewOptions options = Screen(width, height);
      ExpectFits(ViewOverview(model, options), options);
      ExpectFits(ViewDetail(model, options), options);
    }
  }
}

TEST(ViewOverview, AWiderScreenOnlyAddsColumns) {
  std::vector<std::string> before;
  for (int width = 1; width <= 200; ++width) {
    std::vector<std::string> titles;
    for (const PlacedColumn& column : ColumnsFor(width)) {
      titles.push_back(column.title);
    }
    for (const std::string& title : before) {
      EXPECT_NE(std::find(titles.begin(), titles.end(), title), titles.end())
          << title << " at " << width;
    }
    before = titles;
  }
  EXPECT_EQ(before.size(), 13u);
}

TEST(ViewOverview, AnswersThatAreMissingAreShownWithTheOldValues) {
  TopModel model = ExampleModel();
  model.AddFailure(absl::UnavailableError("connection refused"),
                   mmu::MonotonicTime() + absl::Seconds(30));
  model.AddFailure(absl::UnavailableError("connection refused"),
                   mmu::MonotonicTime() + absl::Seconds(42));
  const std::string text = PlainText(ViewOverview(model, Screen(80, 24)));
  EXPECT_TRUE(absl::StrContains(
      text, "NO ANSWER for 12.0 s (old values below): connection refused\n"))
      << text;
  EXPECT_TRUE(absl::StrContains(text, "\nalpha ")) << text;
}

TEST(ViewOverview, TheSelectedVmIsShownWhenTheListDoesNotFit) {
  TopSample sample = ExampleSample(0);
  sample.vms.clear();
  for (int number = 10; number < 60; ++number) {
    VmSample vm;
    vm.id = absl::StrCat("vm", number);
    vm.uid = absl::StrCat("uid", number);
    sample.vms.push_back(vm);
  }
  TopModel model;
  model.Add(sample);
  ViewOptions options = Screen(80, 24);
  options.sort = SortKey::kName;
  options.selected = "uid10";
  std::string text = PlainText(ViewOverview(model, options));
  EXPECT_TRUE(absl::StrContains(text, "\nvm10 ")) << text;
  EXPECT_TRUE(absl::StrContains(text, "\n... 32 more VMs\n")) << text;
  options.selected = "uid59";
  text = PlainText(ViewOverview(model, options));
  EXPECT_FALSE(absl::StrContains(text, "\nvm10 ")) << text;
  EXPECT_TRUE(absl::StrContains(text, "\nvm59 ")) << text;
}

// The ids of the VMs from top to bottom.
std::vector<std::string> Order(const TopModel& model, SortKey key,
                               SortOrder order) {
  std::vector<std::string> ids;
  for (const VmTrend* vm : Sorted(model, key, order)) {
    ids.push_back(vm->sample.id.substr(0, 5));
  }
  return ids;
}

TEST(Sorted, NumbersDescendAndNamesAscend) {
  const TopModel model = ExampleModel();
  using Ids = std::vector<std::string>;
  EXPECT_EQ(Order(model, SortKey::kName, SortOrder::kUsual),
            Ids({"alpha", "beta", "gamma"}));
  EXPECT_EQ(Order(model, SortKey::kName, SortOrder::kReversed),
            Ids({"gamma", "beta", "alpha"}));
  EXPECT_EQ(Order(model, SortKey::kFaults, SortOrder::kUsual),
            Ids({"alpha", "gamma", "beta"}));
  EXPECT_EQ(Order(model, SortKey::kFaults, SortOrder::kReversed),
            Ids({"beta", "gamma", "alpha"}));
}

TEST(ViewOverview, TextOfOthersCannotSteerTheTerminal) {
  TopSample sample = ExampleSample(0);
  sample.vms[0].log->owner = "\x1b[2J";
  TopModel model;
  model.Add(sample);
  const std::string text = PlainText(ViewOverview(model, Screen(120, 24)));
  EXPECT_FALSE(absl::StrContains(text, "\x1b")) << text;
  EXPECT_TRUE(absl::StrContains(text, "?[2J")) << text;
}

}  // namespace
}  // namespace mmud::client
