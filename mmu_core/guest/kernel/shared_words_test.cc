#include "mmu_core/guest/kernel/shared_words.h"

#include <cstdint>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace mmu {
namespace {

constexpr int kMe = 0;
constexpr int kOther = 1;

class SharedWordsTest : public ::testing::Test {
 protected:
  void Write(int cpu, uint64_t word) {
    const auto before = words_.BeginWrite(cpu, 0, word);
    ASSERT_TRUE(words_.EndWrite(before, cpu, 0, word).ok());
  }
  bool MayRead(SharedWords& words, int writer, uint64_t word) {
    return words.EndRead(words.BeginRead(writer, 0), kMe, writer, 0, word).ok();
  }
  bool MayRead(int writer, uint64_t word) {
    return MayRead(words_, writer, word);
  }
  void Unmap() {
    words_.BeginUnmap(0);
    words_.EndUnmap(0);
  }

  SharedWords words_{2, 1};
};

TEST_F(SharedWordsTest, ACpuReadsItsLastWrite) {
  EXPECT_TRUE(MayRead(kMe, 0));
  EXPECT_FALSE(MayRead(kMe, 1)) << "never written";
  Write(kMe, 5);
  Write(kMe, 7);
  EXPECT_TRUE(MayRead(kMe, 7));
  EXPECT_FALSE(MayRead(kMe, 5));
  EXPECT_FALSE(MayRead(kMe, 0));
  EXPECT_FALSE(MayRead(kMe, 8));
}

TEST_F(SharedWordsTest, AReadThatOverlapsAWriteFindsTheOldOrTheNewWord) {
  Write(kOther, 5);
  const auto read = words_.BeginRead(kOther, 0);
  const auto write = words_.BeginWrite(kOther, 0, 9);
  EXPECT_TRUE(words_.EndRead(read, kMe, kOther, 0, 5).ok());
  EXPECT_TRUE(words_.EndRead(read, kMe, kOther, 0, 9).ok());
  EXPECT_FALSE(words_.EndRead(read, kMe, kOther, 0, 4).ok());
  ASSERT_TRUE(words_.EndWrite(write, kOther, 0, 9).ok());
  EXPECT_TRUE(words_.EndRead(read, kMe, kOther, 0, 5).ok());
  EXPECT_FALSE(MayRead(kOther, 5)) << "a read that begins after the write";
}

TEST_F(SharedWordsTest, AnUnmapBetweenLeavesZero) {
  Write(kMe, 5);
  Unmap();
  EXPECT_FALSE(MayRead(kMe, 5)) << "the page was unmapped after the write";
  EXPECT_TRUE(MayRead(kMe, 0));
  EXPECT_FALSE(MayRead(kMe, 5));
  Write(kMe, 6);
  EXPECT_FALSE(MayRead(kMe, 0)) << "the unmap was done before the write";
}

TEST_F(SharedWordsTest, AnUnmapThatOverlapsLeavesBothPossible) {
  words_.BeginUnmap(0);
  Write(kMe, 5);
  EXPECT_TRUE(MayRead(kMe, 5));
  EXPECT_TRUE(MayRead(kOther, 0));
  words_.EndUnmap(0);
  EXPECT_TRUE(MayRead(kMe, 5));
  EXPECT_TRUE(MayRead(kMe, 0));
}

TEST_F(SharedWordsTest, AWriteToAReadOnlyPageIsNoticed) {
  ASSERT_TRUE(words_.TryClaim(0));
  EXPECT_FALSE(words_.TryClaim(0));
  const auto early = words_.BeginWrite(kMe, 0, 1);
  words_.SetReadOnly(0);
  words_.Release(0);
  EXPECT_TRUE(words_.EndWrite(early, kMe, 0, 1).ok()) << "it began before";
  const auto late = words_.BeginWrite(kMe, 0, 2);
  EXPECT_EQ(words_.EndWrite(late, kMe, 0, 2).code(),
            absl::StatusCode::kDataLoss);
  const auto during = words_.BeginWrite(kMe, 0, 3);
  words_.SetWritable(0);
  EXPECT_TRUE(words_.EndWrite(during, kMe, 0, 3).ok());
}

TEST_F(SharedWordsTest, AWriteThatIsDeniedChangesNothing) {
  Write(kMe, 5);
  const auto before = words_.BeginWrite(kMe, 0, 6);
  words_.WriteDenied(before, kMe, 0);
  EXPECT_FALSE(MayRead(kMe, 6));
  EXPECT_TRUE(MayRead(kMe, 5));
}

TEST_F(SharedWordsTest, AChildHasWhatWasThereDuringTheFork) {
  Write(kMe, 5);
  Write(kOther, 5);
  SharedWords child(words_);
  Write(kOther, 8);
  child.EndFork(words_);
  Write(kOther, 9);
  EXPECT_TRUE(MayRead(child, kMe, 5));
  EXPECT_FALSE(MayRead(child, kMe, 0));
  EXPECT_TRUE(MayRead(child, kOther, 5));
  EXPECT_TRUE(MayRead(child, kOther, 8));
  EXPECT_FALSE(MayRead(child, kOther, 9));
  EXPECT_FALSE(MayRead(child, kOther, 0));
}

TEST_F(SharedWordsTest, AChildOfAProcessThatIsBeingUnmappedMayHaveZeros) {
  Write(kMe, 5);
  SharedWords child(words_);
  Unmap();
  child.EndFork(words_);
  EXPECT_TRUE(MayRead(child, kMe, 0));
  EXPECT_FALSE(MayRead(child, kMe, 5)) << "its first read decides";
}

TEST_F(SharedWordsTest, AReadOnlyPageIsReadOnlyInTheChild) {
  words_.SetReadOnly(0);
  SharedWords child(words_);
  child.EndFork(words_);
  const auto write = child.BeginWrite(kMe, 0, 1);
  EXPECT_FALSE(child.EndWrite(write, kMe, 0, 1).ok());
  SharedWords another(words_);
  words_.SetWritable(0);
  another.EndFork(words_);
  const auto later = another.BeginWrite(kMe, 0, 1);
  EXPECT_TRUE(another.EndWrite(later, kMe, 0, 1).ok()) << "nobody knows";
}

}  // namespace
}  // namespace mmu
