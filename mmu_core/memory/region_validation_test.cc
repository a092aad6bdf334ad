// The requests that SetRegion refuses, the errnos, and the order of the checks.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/memory/region_test_util.h"

namespace mmu {
namespace {

// The error in one line: "REASON field errno", or "OK".
std::string Verdict(const absl::Status& status) {
  if (status.ok()) return "OK";
  const ErrorDetail detail = DetailOf(status);
  return std::string(ToString(detail.reason)) + " " + detail.field + " " +
         std::string(ErrnoName(detail.kvm_errno));
}

class RegionValidationTest : public testing::Test {
 protected:
  std::string Set(const RegionRequest& request) {
    return Verdict(t_.Set(request));
  }

  TestTable t_;
};

// Covers: SLOT-01
TEST_F(RegionValidationTest, UserIdsEndAt32763) {
  EXPECT_EQ(Set(Region(32764, 0, 1)), "INVALID_SLOT slot EINVAL");
  EXPECT_EQ(Set(Region(32763, 0, 1)), "OK");
}

// Covers: SLOT-01
TEST_F(RegionValidationTest, IdIsCheckedBeforeAnythingElse) {
  RegionRequest request = Region(32764, 0, 1, 1u << 3);
  request.size_bytes = 4097;
  EXPECT_EQ(Set(request), "INVALID_SLOT slot EINVAL");
  request.slot = 0;
  EXPECT_EQ(Set(request), "INVALID_FLAGS flags EINVAL");
  request.flags = 0;
  request.gpa = Gpa(0x800);
  EXPECT_EQ(Set(request), "UNALIGNED size_bytes EINVAL");
  request.size_bytes = 4096;
  request.userspace_addr = Hva(0x800);
  EXPECT_EQ(Set(request), "UNALIGNED gpa EINVAL");
  request.gpa = Gpa(0);
  request.slot = 2u << 16;
  EXPECT_EQ(Set(request), "UNALIGNED userspace_addr EINVAL");
  request.userspace_addr = Hva(0x1000);
  request.gpa = Gpa(~uint64_t{0xfff});
  EXPECT_EQ(Set(request), "INVALID_SLOT slot EINVAL");
}

// Covers: SLOT-02
TEST_F(RegionValidationTest, OnlyLogDirtyAndReadonlyAreFlags) {
  for (uint32_t bit = 2; bit < 32; ++bit) {
    EXPECT_EQ(Set(Region(0, 0, 1, 1u << bit)), "INVALID_FLAGS flags EINVAL")
        << "bit " << bit;
  }
  EXPECT_EQ(Set(Region(0, 0, 1, 1u << 0)), "OK");
  EXPECT_EQ(Set(Region(1, 1, 1, 1u << 1)), "OK");
  EXPECT_EQ(Set(Region(2, 2, 1, 3)), "OK");
}

// Covers: SLOT-03
TEST_F(RegionValidationTest, SizeAndGpaAreWholePages) {
  RegionRequest request = Region(0, 0, 1);
  request.size_bytes = 4097;
  EXPECT_EQ(Set(request), "UNALIGNED size_bytes EINVAL");
  request = Region(0, 0, 1);
  request.gpa = Gpa(0x800);
  EXPECT_EQ(Set(request), "UNALIGNED gpa EINVAL");
}

// Covers: SLOT-04
TEST_F(RegionValidationTest, UserAddressIsAlignedUntaggedAndBelowTheEnd) {
  RegionRequest request = Region(0, 0, 2);
  request.userspace_addr = Hva(0x10000800);
  EXPECT_EQ(Set(request), "UNALIGNED userspace_addr EINVAL");
  request.userspace_addr = Hva((uint64_t{1} << 62) | 0x10000000);
  EXPECT_EQ(Set(request), "INVALID_RANGE userspace_addr EINVAL");
  request.userspace_addr = Hva(kUserAddressEnd - kPageSize);
  EXPECT_EQ(Set(request), "INVALID_RANGE userspace_addr EINVAL");
  request.userspace_addr = Hva(~kPageMask);
  EXPECT_EQ(Set(request), "INVALID_RANGE userspace_addr EINVAL");
  request.userspace_addr = Hva(kUserAddressEnd - 2 * kPageSize);
  EXPECT_EQ(Set(request), "OK");
}

// Covers: SLOT-04
TEST_F(RegionValidationTest, UserAddressNeedNotBeAccessible) {
  void* memory =
      mmap(nullptr, kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  RegionRequest request = Region(0, 0, 1);
  request.userspace_addr = Hva(reinterpret_cast<uint64_t>(memory));
  EXPECT_EQ(Set(request), "OK");
  munmap(memory, kPageSize);
}

TEST_F(RegionValidationTest, SlotLiesInItsBacking) {
  HostMemory host;
  RegionRequest request = Region(0, 0, 4);
  request.backing =
      host.Allocate({BackingKind::kMetadataOnly, 4 * kPageSize, Level::k4K})
          .value();
  EXPECT_EQ(Set(request), "INVALID_RANGE userspace_addr EINVAL");
  request.userspace_addr = request.backing->hva() + kPageSize;
  EXPECT_EQ(Set(request), "INVALID_RANGE userspace_addr EINVAL");
  request.size_bytes = 3 * kPageSize;
  EXPECT_EQ(Set(request), "OK");
}

// Covers: SLOT-05, TRM-07
TEST_F(RegionValidationTest, ThereAreTwoAddressSpaces) {
  EXPECT_EQ(Set(InSpace(Region(0, 0, 1), 1)), "OK");
  EXPECT_NE(t_.Find(0, 1), nullptr);
  EXPECT_EQ(t_.Find(0, 0), nullptr);
  EXPECT_EQ(Set(InSpace(Region(0, 0, 1), 2)), "INVALID_SLOT slot EINVAL");
  EXPECT_EQ(Set(InSpace(Region(0, 0, 1), 0xffff)), "INVALID_SLOT slot EINVAL");
}

// Covers: SLOT-06
TEST_F(RegionValidationTest, GpaPlusSizeDoesNotWrap) {
  RegionRequest request = Region(0, 0, 2);
  request.gpa = Gpa(~uint64_t{0xfff});
  EXPECT_EQ(Set(request), "GPA_OUT_OF_RANGE gpa EINVAL");
  request.size_bytes = 4096;  // ends exactly at 2^64
  EXPECT_EQ(Set(request), "GPA_OUT_OF_RANGE gpa EINVAL");
}

// Covers: SLOT-07
TEST_F(RegionValidationTest, SlotHasLessThanEightTebibytes) {
  EXPECT_EQ(Set(Region(0, 0, uint64_t{1} << 31)),
            "TOO_MANY_PAGES size_bytes EINVAL");
  EXPECT_EQ(Set(Region(0, 0, (uint64_t{1} << 31) - 1)), "OK");
}

// Covers: SLOT-08
TEST_F(RegionValidationTest, DeletingTwiceFails) {
  const RegionRequest region = Region(3, 16, 16);
  EXPECT_EQ(Set(region), "OK");
  EXPECT_EQ(Set(Deleted(region)), "OK");
  EXPECT_EQ(t_.Find(16), nullptr);
  EXPECT_EQ(Set(Deleted(region)), "MEMSLOT_NOT_FOUND slot EINVAL");
}

// Covers: SLOT-08
TEST_F(RegionValidationTest, DeletingMoreThanIsAccountedForFails) {
  const RegionRequest region = Region(3, 16, 16);
  ASSERT_EQ(Set(region), "OK");
  t_.table.SetTotalPagesForTest(15);
  EXPECT_EQ(Set(Deleted(region)), "ACCOUNTING  EIO");
  EXPECT_NE(t_.Find(16), nullptr);
}

// Covers: SLOT-09
TEST_F(RegionValidationTest, TotalOfPagesDoesNotOverflow) {
  t_.table.SetTotalPagesForTest(~uint64_t{0} - 10);
  EXPECT_EQ(Set(Region(0, 0, 11)), "INVALID_SIZE size_bytes EINVAL");
  EXPECT_EQ(Set(Region(0, 0, 10)), "OK");
}

// Covers: SLOT-10
TEST_F(RegionValidationTest, HvaSizeAndReadonlyOfALiveSlotAreFixed) {
  const RegionRequest region = Region(0, 16, 16);
  ASSERT_EQ(Set(region), "OK");
  RegionRequest request = region;
  request.userspace_addr += kPageSize;
  EXPECT_EQ(Set(request), "MEMSLOT_IMMUTABLE userspace_addr EINVAL");
  request = region;
  request.size_bytes += kPageSize;
  EXPECT_EQ(Set(request), "MEMSLOT_IMMUTABLE size_bytes EINVAL");
  EXPECT_EQ(Set(WithFlags(region, kMemslotReadonly)),
            "MEMSLOT_IMMUTABLE flags EINVAL");
  // A move cannot be used to change the flag.
  EXPECT_EQ(Set(WithFlags(MovedTo(region, 64), kMemslotReadonly)),
            "MEMSLOT_IMMUTABLE flags EINVAL");
  EXPECT_EQ(t_.generation(), uint64_t{2});  // that of the creation
}

// Covers: SLOT-12
TEST_F(RegionValidationTest, SlotsOfOneAddressSpaceDoNotOverlap) {
  ASSERT_EQ(Set(Region(0, 16, 16)), "OK");
  EXPECT_EQ(Set(Region(1, 31, 16)), "REGION_OVERLAP gpa EEXIST");
  EXPECT_EQ(Set(Region(1, 1, 16)), "REGION_OVERLAP gpa EEXIST");
  EXPECT_EQ(Set(Region(1, 20, 1)), "REGION_OVERLAP gpa EEXIST");
  EXPECT_EQ(Set(Region(1, 0, 64)), "REGION_OVERLAP gpa EEXIST");
  EXPECT_EQ(Set(InSpace(Region(1, 16, 16), 1)), "OK");
  EXPECT_EQ(Set(Region(1, 32, 16)), "OK");
  EXPECT_EQ(Set(Region(2, 0, 16)), "OK");
}

// Covers: SLOT-12
TEST_F(RegionValidationTest, MovedSlotMayOverlapItsOldRangeOnly) {
  const RegionRequest region = Region(0, 16, 16);
  ASSERT_EQ(Set(region), "OK");
  ASSERT_EQ(Set(Region(1, 48, 16)), "OK");
  EXPECT_EQ(Set(MovedTo(region, 33)), "REGION_OVERLAP gpa EEXIST");
  EXPECT_EQ(Set(MovedTo(region, 24)), "OK");
  EXPECT_EQ(t_.Find(24)->id, uint32_t{0});
  EXPECT_EQ(t_.Find(16), nullptr);
}

// Covers: SLOT-13, TRM-06
TEST_F(RegionValidationTest, LastPageMayBeTheHighestGfnAndNoHigher) {
  EXPECT_EQ(Set(Region(0, kTestMaxGfn - 1, 3)), "GPA_OUT_OF_RANGE gpa EINVAL");
  EXPECT_EQ(Set(Region(0, kTestMaxGfn - 1, 2)), "OK");
  EXPECT_EQ(Set(MovedTo(Region(0, kTestMaxGfn - 1, 2), kTestMaxGfn)),
            "GPA_OUT_OF_RANGE gpa EINVAL");
  EXPECT_NE(t_.Find(kTestMaxGfn), nullptr);
}

TEST_F(RegionValidationTest, RefusedRequestChangesNothingAndTellsNobody) {
  ASSERT_EQ(Set(Region(0, 16, 16)), "OK");
  t_.hooks.events.clear();
  const uint64_t generation = t_.generation();
  EXPECT_NE(Set(Region(1, 31, 16)), "OK");
  EXPECT_NE(Set(MovedTo(Region(0, 16, 16), kTestMaxGfn)), "OK");
  EXPECT_NE(Set(Deleted(Region(7, 0, 0))), "OK");
  EXPECT_EQ(t_.generation(), generation);
  EXPECT_EQ(t_.table.total_pages(), uint64_t{16});
  EXPECT_TRUE(t_.hooks.events.empty());
}

TEST_F(RegionValidationTest, MessageNamesFieldValueAndRule) {
  RegionRequest request = Region(0, 0, 1);
  request.size_bytes = 4097;
  const absl::Status status = t_.Set(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "size_bytes is 4097, but must be a multiple of 4096; round it");
}

}  // namespace
}  // namespace mmu
