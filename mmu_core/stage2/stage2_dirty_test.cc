// Writes that the processor notes in descriptors.

#include "mmu_core/stage2/stage2_dirty.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_bitmap.h"
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
