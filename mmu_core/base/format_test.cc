#include "mmu_core/base/format.h"

#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/failing_allocations.h"

namespace mmu {
namespace {

TEST(FormatTest, SaysWhatIsAskedFor) {
  EXPECT_EQ(Format("page %d of %s: %#x", 7, "slot 3", 255),
            "page 7 of slot 3: 0xff");
  EXPECT_EQ(Format("%s", ""), "");
}

TEST(FormatTest, LongTextsAreWhole) {
  for (const size_t size : {510, 511, 512, 513, 5000}) {
    const std::string text(size, 'x');
    EXPECT_EQ(Format("%s", text), text);
    EXPECT_EQ(Format("<%s>", text), "<" + text + ">");
  }
}

// Covers: SLOT-14
TEST(FormatTest, WithoutMemoryItThrowsAndDoesNotEndTheProgram) {
  const std::string text(5000, 'x');
  for (const std::string& value : {text, text.substr(0, 100)}) {
    bool thrown = false;
    const testing::Attempt attempt = testing::FailOneAllocation(1, [&] {
      try {
        const std::string made = Format("%s", value);
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
      return absl::OkStatus();
    });
    EXPECT_TRUE(attempt.failed);
    EXPECT_TRUE(thrown);
  }
}

}  // namespace
}  // namespace mmu
