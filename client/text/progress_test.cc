#include "client/text/progress.h"

#include <optional>
#include <sstream>
#include <string>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {
namespace {

class ProgressTest : public testing::Test {
 protected:
  Progress New(ProgressStyle style) {
    return Progress(
        &out_, style, "split", [this] { return now_; },
        [this] { return columns_; });
  }

  std::ostringstream out_;
  mmu::MonotonicTime now_;
  int columns_ = 80;
};

TEST_F(ProgressTest, BarIsRedrawnInPlaceAndCoversTheLineBefore) {
  Progress progress = New(ProgressStyle::kBar);
  progress.Update(0.0, "a long line");
  now_ += absl::Seconds(1);
  progress.Update(0.5, "short");
  progress.Finish("done");
  EXPECT_EQ(out_.str(),
            "\rsplit [..............................]   0%  a long line"
            "\rsplit [###############...............]  50%  short      "
            "\rsplit [##############################] 100%  done \n");
}

TEST_F(ProgressTest, LinesComeEveryTwoSecondsAndAtTheEnd) {
  Progress progress = New(ProgressStyle::kLines);
  for (int i = 0; i <= 30; ++i) {
    progress.Update(i / 100.0, "");
    now_ += absl::Milliseconds(100);
  }
  progress.Finish("done");
  EXPECT_EQ(out_.str(), "split   0%\nsplit  20%\nsplit 100%  done\n");
}

TEST_F(ProgressTest, UnknownShareHasNoBar) {
  Progress progress = New(ProgressStyle::kBar);
  progress.Update(std::nullopt, "7 accesses");
  EXPECT_EQ(out_.str(), "\rsplit  7 accesses");
}

TEST_F(ProgressTest, BarIsDrawnAtMostTenTimesASecond) {
  Progress progress = New(ProgressStyle::kBar);
  progress.Update(0.1, "");
  const std::string first = out_.str();
  now_ += absl::Milliseconds(99);
  progress.Update(0.2, "");
  EXPECT_EQ(out_.str(), first);
}

TEST_F(ProgressTest, UnfinishedBarEndsItsLine) {
  { New(ProgressStyle::kBar).Update(0.1, ""); }
  EXPECT_EQ(out_.str().back(), '\n');
}

TEST_F(ProgressTest, WorkThatEndedEarlyStaysWhereItWas) {
  Progress progress = New(ProgressStyle::kLines);
  progress.Finish("cancelled", 0.25);
  EXPECT_EQ(out_.str(), "split  25%  cancelled\n");
}

TEST_F(ProgressTest, LineIsNarrowerThanTheScreenWhateverIsInIt) {
  const std::string words =
      "1.5 GiB of 4 GiB, split 1,024 of 2M, 2 of 1G, 12.3 s left";
  for (int columns = 20; columns <= 120; ++columns) {
    columns_ = columns;
    Progress progress = New(ProgressStyle::kBar);
    out_.str("");
    progress.Update(0.375, words);
    EXPECT_LT(out_.str().size() - 1, columns) << out_.str();
  }
}

TEST_F(ProgressTest, BarGetsShorterBeforeWordsAreCut) {
  const std::string words = "1.5 GiB of 4 GiB, split 1,024 of 2M, 2 of 1G";
  Progress progress = New(ProgressStyle::kBar);
  progress.Update(0.5, words);
  EXPECT_EQ(out_.str(), "\rsplit [##########..........]  50%  " + words);
  out_.str("");
  now_ += absl::Seconds(1);
  columns_ = 50;  // the window was made smaller
  progress.Update(0.5, words);
  EXPECT_EQ(out_.str(), "\rsplit [####....]  50%  1.5 GiB of 4 GiB, split...");
}

TEST_F(ProgressTest, CharactersAreCountedNotBytes) {
  columns_ = 30;
  Progress progress = New(ProgressStyle::kBar);
  progress.Update(std::nullopt, "\u00e4\u00f6\u00fc is three columns");
  EXPECT_EQ(out_.str(), "\rsplit  \u00e4\u00f6\u00fc is three columns");
}

TEST_F(ProgressTest, QuietWritesNothing) {
  Progress progress = New(ProgressStyle::kQuiet);
  progress.Update(0.1, "x");
  progress.Finish("done");
  EXPECT_EQ(out_.str(), "");
}

}  // namespace
}  // namespace mmud::client
