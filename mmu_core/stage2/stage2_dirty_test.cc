// Writes that the processor notes in descriptors.

#include "mmu_core/stage2/stage2_dirty.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/stage2/stage2_age.h"
#include "mmu_core/stage2/stage2_log.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/stage2_world.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

using ::mmu::testing::LockTrace;
using ::mmu::testing::S2Mapping;
using ::mmu::testing::Stage2TestCpu;
using ::mmu::testing::Stage2World;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

template <TableGeometry G>
class Stage2DirtyTest : public ::testing::Test {
 protected:
  using Cpu = Stage2TestCpu<G>;
  static constexpr uint64_t kGranule = kGfnsPerGranule<G>;

  Stage2DirtyTest()
      : world_(
            {.pages = PagesPer<G>(Level{2}),
             .hardware_access_flag = Stage2Options::HardwareAccessFlag::kYes,
             .hardware_dirty_state = Stage2Options::HardwareDirtyState::kYes}),
        cpu_(world_) {
    world_.slot().dirty_bitmap =
        std::make_shared<DirtyBitmap>(world_.slot().npages, InitiallySet::kNo);
  }

  Gfn Granule(uint64_t i) const { return world_.At(i * kGranule); }
  // Makes the processor write to granule `i`, without a fault.
  void Write(uint64_t i) {
    EXPECT_EQ(cpu_.Try(Granule(i), AccessKind::kWrite), Cpu::Result::kDone);
  }
  // Clears `pages` of the first granules, as a clear of the log does.
  void Clear(uint64_t pages) {
    MmuWriteLocked lock(world_.lock(), LockOp::kClear);
    AlsoProtected also;
    ReprotectStage2(world_.state(), lock, world_.slot(),
                    GfnRange::Of(world_.At(0), 64),
                    PageMask{world_.At(0), pages}, also, nullptr);
  }
  void Flush() {
    TlbFlushBatch batch(world_.remote().Of(MmuKind::kTdp), FlushScope::kRange,
                        FlushReason::kClearDirty);
    batch.FlushAlways(world_.slot().range(), nullptr);
  }
  void Collect() { CollectNotedWrites(world_.state(), world_.slot(), nullptr); }
  // The pages that are marked, of the first 64.
  uint64_t Marked() const {
    uint64_t marked = 0;
    for (uint64_t i = 0; i < 64; ++i) {
      marked |= uint64_t{world_.slot().dirty_bitmap->Test(i)} << i;
    }
    return marked;
  }
  // All pages of granule `i`, as bits.
  static uint64_t PagesOf(uint64_t i) {
    return ((uint64_t{1} << kGranule) - 1) << (i * kGranule);
  }

  mutable Stage2World<G> world_;
  Cpu cpu_;
};
using Granules = ::testing::Types<Arm4K, Arm16K, Arm64K>;
TYPED_TEST_SUITE(Stage2DirtyTest, Granules);

// Covers: ARM-36
TYPED_TEST(Stage2DirtyTest, TheFirstWriteIsNotedWithoutAFault) {
  this->world_.SetLogging(true);
  this->cpu_.Access(this->Granule(1), AccessKind::kRead);
  EXPECT_THAT(this->world_.Mappings(),
              ElementsAre(S2Mapping{this->kGranule, 1, "rxad"}));
  this->Collect();
  EXPECT_EQ(this->Marked(), 0u);
  this->Write(1);
  EXPECT_THAT(this->world_.Mappings(),
              ElementsAre(S2Mapping{this->kGranule, 1, "rwxad"}));
  EXPECT_EQ(this->Marked(), 0u);
  this->Collect();
  EXPECT_EQ(this->Marked(), this->PagesOf(1));
}

TYPED_TEST(Stage2DirtyTest, AWriteThatFaultsIsMarkedAtOnce) {
  this->world_.SetLogging(true);
  this->cpu_.Access(this->Granule(0), AccessKind::kWrite);
  EXPECT_EQ(this->cpu_.TakeFaults(), 1);
  EXPECT_EQ(this->Marked(), this->PagesOf(0));
}

TYPED_TEST(Stage2DirtyTest, TheStartOfALogMakesPagesCleanAndBlocksReadOnly) {
  this->world_.SetLogging(true);
  this->cpu_.Access(this->Granule(0), AccessKind::kWrite);
  this->world_.slot().dirty_bitmap->TakeAll(
      0, this->world_.slot().dirty_bitmap->word_count(),
      [](uint64_t, uint64_t) {});
  const auto start = [this] {
    {
      MmuWriteLocked lock(this->world_.lock(), LockOp::kEnable);
      WriteProtectStage2(this->world_.state(), lock,
                         this->world_.slot().range(), nullptr);
    }
    this->Flush();
  };
  start();
  EXPECT_THAT(this->world_.Mappings(), ElementsAre(S2Mapping{0, 1, "rxad"}));
  // What was written before the log is not in it.
  EXPECT_EQ(this->Marked(), 0u);
  this->world_.Unmap(this->world_.slot().range());
  this->world_.SetLogging(false);
  this->cpu_.Access(this->Granule(0), AccessKind::kRead);
  this->world_.SetLogging(true);
  start();
  EXPECT_THAT(this->world_.Mappings(), ElementsAre(S2Mapping{0, 2, "rxa"}));
}

// A clear protects whole granules, and those in between. What was written there
// and is not cleared stays in the log.
// Covers: DL-17
TYPED_TEST(Stage2DirtyTest, AClearMarksTheWritesThatItDoesNotClear) {
  this->world_.SetLogging(true);
  for (uint64_t i = 0; i < 3; ++i) {
    this->cpu_.Access(this->Granule(i), AccessKind::kRead);
    this->Write(i);
  }
  const uint64_t cleared = 1 | this->PagesOf(2);
  this->Clear(cleared);
  this->Flush();
  const uint64_t all = this->PagesOf(0) | this->PagesOf(1) | this->PagesOf(2);
  EXPECT_EQ(this->Marked(), all & ~cleared);
  // Each first write after the clear is noted again.
  for (uint64_t i = 0; i < 3; ++i) this->Write(i);
  this->Collect();
  EXPECT_EQ(this->Marked(), all);
}

TYPED_TEST(Stage2DirtyTest, AnUnmapMarksWhatWasWritten) {
  this->world_.SetLogging(true);
  for (uint64_t i = 0; i < 2; ++i) {
    this->cpu_.Access(this->Granule(i), AccessKind::kRead);
  }
  this->Write(1);
  this->world_.Unmap(this->world_.slot().range());
  EXPECT_THAT(this->world_.Mappings(), IsEmpty());
  EXPECT_EQ(this->Marked(), this->PagesOf(1));
}

TYPED_TEST(Stage2DirtyTest, WithoutALogNoWriteIsMarked) {
  this->world_.SetLogging(true);
  this->cpu_.Access(this->Granule(0), AccessKind::kRead);
  this->Write(0);
  this->world_.SetLogging(false);
  this->world_.Unmap(this->world_.slot().range());
  EXPECT_EQ(this->Marked(), 0u);
}

// The processor writes while another bit of the page's descriptor is cleared:
// AF, or by a new log S2AP[1]. Its note stays.
TYPED_TEST(Stage2DirtyTest, AWriteBetweenTheLookAndTheChangeIsNoted) {
  this->world_.SetLogging(true);
  const uint64_t granule = this->kGranule;
  for (const bool ages : {true, false}) {
    this->world_.Unmap(this->world_.slot().range());
    this->cpu_.Access(this->Granule(0), AccessKind::kRead);
    // Writable without a note, for the log to protect.
    if (!ages) this->cpu_.Access(this->Granule(1), AccessKind::kWrite);
    int times = 0;
    {
      LockTrace trace([&](const LockTrace::Event& event) {
        if (event.point != HookPoint::kEntryToAnd || times++ != 0) return;
        // Before the first change, to the page that is changed.
        if (ages) {
          this->Write(0);
        } else {
          this->cpu_.Access(this->Granule(1), AccessKind::kRead);
        }
      });
      if (ages) {
        EXPECT_EQ(this->world_.AgeAll().young_page_count, granule);
      } else {
        MmuWriteLocked lock(this->world_.lock(), LockOp::kAge);
        WriteProtectStage2(this->world_.state(), lock,
                           this->world_.slot().range(), nullptr);
      }
    }
    EXPECT_GT(times, 0);
    this->Flush();
    if (ages) {
      EXPECT_THAT(this->world_.Mappings(),
                  ElementsAre(S2Mapping{0, 1, "rwxd"}));
      this->Collect();
      EXPECT_EQ(this->Marked(), this->PagesOf(0));
    } else {
      EXPECT_THAT(
          this->world_.Mappings(),
          ElementsAre(S2Mapping{0, 1, "rxad"}, S2Mapping{granule, 1, "rxad"}));
    }
  }
}

// A range may begin and end inside of granules, whose other pages do not count.
TYPED_TEST(Stage2DirtyTest, AgeingCountsThePagesOfTheRangeAlone) {
  const uint64_t granule = this->kGranule;
  // Granules 0 to 4 are mapped, all but 3 are young.
  for (const uint64_t i : {0, 1, 2, 3, 4}) {
    this->world_.SetLogging(true);
    this->cpu_.Access(this->Granule(i), AccessKind::kRead);
  }
  const auto age = [this](uint64_t first, uint64_t end, AgeMode mode) {
    const GfnRange range = {this->world_.At(first), this->world_.At(end)};
    AgeResult result = AgeResult::For(range);
    result.mapped.resize(result.young.size());
    MmuWriteLocked lock(this->world_.lock(), LockOp::kAge);
    AgeStage2(this->world_.state(), lock, range, mode, result, nullptr);
    return result;
  };
  age(3 * granule, 4 * granule, AgeMode::kTestAndClear);
  this->Flush();
  // From the last page of granule 0 to the first page of granule 6.
  const uint64_t first = granule - 1;
  const uint64_t end = 6 * granule + 1;
  const AgeResult result = age(first, end, AgeMode::kTest);
  std::vector<uint64_t> young(WordsFor(end - first));
  std::vector<uint64_t> mapped(WordsFor(end - first));
  uint64_t old_pages = 0;
  for (uint64_t page = first; page < end; ++page) {
    const uint64_t i = page / granule;
    if (i > 4) continue;
    const uint64_t bit = page - first;
    mapped[bit / kWordBits] |= BitOf(bit);
    if (i == 3) {
      ++old_pages;
    } else {
      young[bit / kWordBits] |= BitOf(bit);
    }
  }
  EXPECT_EQ(result.young, young);
  EXPECT_EQ(result.mapped, mapped);
  EXPECT_EQ(result.old_page_count, old_pages);
  EXPECT_EQ(result.young_page_count, CountBits(absl::MakeConstSpan(young)));
}

// At the moment before S2AP[1] goes, a log that looks at the descriptor finds
// the note, and after it the mark: the mark must be there already.
TYPED_TEST(Stage2DirtyTest, Race53TheMarkComesBeforeTheNoteGoes) {
  this->world_.SetLogging(true);
  for (const bool unmap : {false, true}) {
    this->cpu_.Access(this->Granule(0), AccessKind::kRead);
    this->Write(0);
    std::vector<uint64_t> marked;
    {
      LockTrace trace([&](const LockTrace::Event& event) {
        if (event.point == HookPoint::kSnapshotToExchange) {
          marked.push_back(this->Marked());
        }
      });
      if (unmap) {
        this->world_.Unmap(this->world_.slot().range());
      } else {
        this->Clear(uint64_t{1} << 63);
        this->Flush();
      }
    }
    EXPECT_THAT(marked, ElementsAre(this->PagesOf(0))) << unmap;
    this->world_.slot().dirty_bitmap->TakeAll(
        0, this->world_.slot().dirty_bitmap->word_count(),
        [](uint64_t, uint64_t) {});
  }
}

// The processor writes between the look at the descriptor and the exchange,
// which therefore fails.
TYPED_TEST(Stage2DirtyTest, Race53AWriteBeforeTheExchangeIsMarked) {
  this->world_.SetLogging(true);
  this->cpu_.Access(this->Granule(0), AccessKind::kRead);
  int tries = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point == HookPoint::kSnapshotToExchange && tries++ == 0) {
        this->Write(0);
      }
    });
    this->world_.Unmap(this->world_.slot().range());
  }
  EXPECT_EQ(tries, 2);
  EXPECT_EQ(this->Marked(), this->PagesOf(0));
}

}  // namespace
}  // namespace mmu
