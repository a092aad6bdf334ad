// Memory that a Backing does not own (memory/frame_lender.h).

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/testing/fake_lender.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeLender;

constexpr uint64_t kPages = 1024;  // 4 MiB
constexpr uint64_t k2MPages = PagesPer(Level::k2M);

class BorrowedBackingTest : public ::testing::Test {
 protected:
  Hva HvaOf(uint64_t page) const { return backing_->hva() + page * kPageSize; }
  Level LevelAt(uint64_t page) const {
    return backing_->MappingLevel(HvaOf(page), Level::k2M);
  }

  HostMemory host_;
  std::shared_ptr<FakeLender> lender_ = std::make_shared<FakeLender>(kPages);
  std::shared_ptr<Backing> backing_ =
      *host_.Borrow({.kind = BackingKind::kMemfd,
                     .address = lender_->address(),
                     .size_bytes = lender_->size_bytes(),
                     .host_page_level = Level::k2M},
                    lender_);
};

TEST_F(BorrowedBackingTest, ItIsWhereTheLenderHasIt) {
  EXPECT_TRUE(backing_->is_borrowed());
  EXPECT_TRUE(backing_->has_contents());
  EXPECT_EQ(backing_->PointerTo(HvaOf(3)), lender_->address() + 3 * kPageSize);
  EXPECT_EQ(host_.PointerTo(backing_->PfnOf(HvaOf(3))),
            lender_->address() + 3 * kPageSize);
  EXPECT_EQ((backing_->hva().value() >> kPageShift) % PagesPer(Level::k1G),
            backing_->base_pfn().value() % PagesPer(Level::k1G));
}

TEST_F(BorrowedBackingTest, WhatIsBorrowedIsNotUnmapped) {
  const Pfn pfn = backing_->base_pfn();
  lender_->address()[0] = std::byte{7};
  backing_.reset();
  EXPECT_EQ(host_.PointerTo(pfn), nullptr);
  EXPECT_EQ(lender_->address()[0], std::byte{7});
}

TEST_F(BorrowedBackingTest, TheLenderLivesAsLongAsTheBacking) {
  const std::weak_ptr<FakeLender> lender = lender_;
  lender_.reset();
  EXPECT_FALSE(lender.expired());
  backing_.reset();
  EXPECT_TRUE(lender.expired());
}

TEST_F(BorrowedBackingTest, EachPageIsInTheStateThatTheLenderSays) {
  EXPECT_FALSE(backing_->all_writable());
  lender_->Set(1, 2, FrameState::kReadOnly);
  lender_->Set(2, 3, FrameState::kReadWrite);
  EXPECT_EQ(backing_->StateOf(HvaOf(0)), FrameState::kMissing);
  EXPECT_EQ(backing_->StateOf(HvaOf(1)), FrameState::kReadOnly);
  EXPECT_EQ(backing_->StateOf(HvaOf(2)), FrameState::kReadWrite);
  EXPECT_FALSE(backing_->IsWritable(HvaOf(1)));
  EXPECT_TRUE(backing_->IsWritable(HvaOf(2)));
  lender_->Set(0, kPages, FrameState::kReadWrite);
  EXPECT_FALSE(backing_->all_writable()) << "it may change any time";
}

// Covers: SLOT-44
TEST_F(BorrowedBackingTest, AHugePageNeedsAllOfItsFramesInOneState) {
  lender_->Set(0, kPages, FrameState::kReadWrite);
  EXPECT_EQ(LevelAt(5), Level::k2M);
  for (const FrameState other : {FrameState::kMissing, FrameState::kReadOnly}) {
    lender_->Set(k2MPages - 1, k2MPages, other);
    EXPECT_EQ(LevelAt(5), Level::k4K);
    EXPECT_EQ(LevelAt(k2MPages - 1), Level::k4K);
    EXPECT_EQ(LevelAt(k2MPages), Level::k2M);
    lender_->Set(k2MPages - 1, k2MPages, FrameState::kReadWrite);
    EXPECT_EQ(LevelAt(5), Level::k2M);
  }
  lender_->Set(0, k2MPages, FrameState::kReadOnly);
  EXPECT_EQ(LevelAt(5), Level::k2M) << "as a whole it can be read";
  lender_->Set(0, k2MPages, FrameState::kMissing);
  EXPECT_EQ(LevelAt(5), Level::k4K);
}

TEST_F(BorrowedBackingTest, TheHostsRightsAndTheLendersHoldBoth) {
  lender_->Set(0, kPages, FrameState::kReadWrite);
  backing_->SetHostAccess(HvaOf(4), kPageSize, HostAccess::kReadOnly);
  EXPECT_EQ(backing_->StateOf(HvaOf(4)), FrameState::kReadOnly);
  EXPECT_EQ(LevelAt(0), Level::k4K);
  lender_->Set(4, 5, FrameState::kMissing);
  EXPECT_EQ(backing_->StateOf(HvaOf(4)), FrameState::kMissing);
  backing_->SetHostAccess(HvaOf(4), kPageSize, HostAccess::kReadWrite);
  EXPECT_EQ(backing_->StateOf(HvaOf(4)), FrameState::kMissing);
}

TEST_F(BorrowedBackingTest, AReadEndsAtTheFirstFrameThatIsMissing) {
  lender_->Set(0, 2, FrameState::kReadOnly);
  lender_->address()[kPageSize] = std::byte{9};
  std::array<std::byte, 3 * kPageSize> out;
  EXPECT_EQ(backing_->ReadBorrowed(HvaOf(0), absl::MakeSpan(out)),
            2 * kPageSize);
  EXPECT_EQ(out[kPageSize], std::byte{9});
  EXPECT_EQ(backing_->ReadBorrowed(HvaOf(2), absl::MakeSpan(out)), 0u);
}

TEST_F(BorrowedBackingTest, AFrameIsAskedForByItsPageInTheMemory) {
  EXPECT_EQ(*backing_->AskForFrame(HvaOf(6) + 8, AccessKind::kWrite),
            FrameAnswer::kReady);
  EXPECT_EQ(lender_->asked(),
            (std::vector<FakeLender::Asked>{{6, AccessKind::kWrite}}));
  EXPECT_TRUE(backing_->IsWritable(HvaOf(6)));
  lender_->Fail("gone");
  EXPECT_EQ(backing_->AskForFrame(HvaOf(7), AccessKind::kRead).status(),
            absl::UnavailableError("gone"));
}

TEST_F(BorrowedBackingTest, WhatIsNotPagesIsNotBorrowed) {
  for (const uint64_t size : {uint64_t{0}, kPageSize - 1, uint64_t{1} << 47}) {
    const absl::Status status =
        host_
            .Borrow({.address = lender_->address(), .size_bytes = size},
                    lender_)
            .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DetailOf(status).reason, Reason::kInvalidSize);
    EXPECT_EQ(DetailOf(status).kvm_errno, EINVAL);
  }
  EXPECT_EQ(lender_->address()[0], std::byte{0}) << "nothing was unmapped";
}

TEST(OwnedBackingTest, AllFramesAreThere) {
  HostMemory host;
  const auto backing =
      host.Allocate({BackingKind::kAnonymous, 4 * kPageSize}).value();
  EXPECT_FALSE(backing->is_borrowed());
  EXPECT_TRUE(backing->all_writable());
  EXPECT_EQ(backing->StateOf(backing->hva()), FrameState::kReadWrite);
  backing->SetHostAccess(backing->hva(), kPageSize, HostAccess::kReadOnly);
  EXPECT_EQ(backing->StateOf(backing->hva()), FrameState::kReadOnly);
  EXPECT_EQ(backing->StateOf(backing->hva() + kPageSize),
            FrameState::kReadWrite);
}

}  // namespace
}  // namespace mmu
