#include "mmu_core/memory/host_memory.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/backing.h"

namespace mmu {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kGib = uint64_t{1} << 30;

std::shared_ptr<Backing> Allocate(const HostMemory& host, BackingKind kind,
                                  uint64_t size, Level level = Level::k4K) {
  return host.Allocate({kind, size, level}).value();
}

class BackingKindTest : public testing::TestWithParam<BackingKind> {};

TEST_P(BackingKindTest, HvaAndPfnAreCongruentModuloEveryPageSize) {
  HostMemory host;
  for (uint64_t size : {kPageSize, 3 * kMib, kGib + kPageSize}) {
    const auto backing = Allocate(host, GetParam(), size, Level::k1G);
    EXPECT_EQ(backing->hva().value() % kGib, uint64_t{0});
    EXPECT_EQ(backing->base_pfn().value() % PagesPer(Level::k1G), uint64_t{0});
    EXPECT_EQ(backing->size_bytes(), size);
    EXPECT_EQ(backing->host_page_level(), Level::k1G);
    EXPECT_EQ(backing->kind(), GetParam());
    EXPECT_EQ(backing->PfnOf(backing->hva() + (size - 1)),
              backing->base_pfn() + (size - 1) / kPageSize);
  }
}

// Covers: SLOT-42
TEST_P(BackingKindTest, HvaAndPfnAreCongruentToTheGuestAddress) {
  HostMemory host;
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    for (const uint64_t gpa :
         {uint64_t{0}, kPageSize, kMib, kMib + kPageSize, 512 * kMib,
          kGib - kPageSize, 5 * kGib + 3 * kMib}) {
      const uint64_t size = kGib + 3 * kPageSize;
      const auto backing = host.Allocate({.kind = GetParam(),
                                          .size_bytes = size,
                                          .host_page_level = level,
                                          .gpa = Gpa(gpa)})
                               .value();
      EXPECT_EQ((backing->hva().value() - gpa) % BytesPer(level), 0u) << gpa;
      EXPECT_EQ(((backing->hva().value() >> kPageShift) -
                 backing->base_pfn().value()) %
                    PagesPer(Level::k1G),
                0u);
      // Either both the first and the last page have memory or neither has; the
      // pages around them have none.
      const Pfn last = backing->base_pfn() + (size - 1) / kPageSize;
      EXPECT_EQ(host.PointerTo(backing->base_pfn()),
                backing->PointerTo(backing->hva()));
      EXPECT_EQ(host.PointerTo(last),
                backing->PointerTo(backing->hva() + (size - kPageSize)));
      EXPECT_EQ(host.PointerTo(backing->base_pfn() - 1), nullptr);
      EXPECT_EQ(host.PointerTo(last + 1), nullptr);
    }
  }
}

TEST_P(BackingKindTest, TwoBackingsShareNeitherAddressesNorFrames) {
  HostMemory host;
  const auto a = Allocate(host, GetParam(), kGib + kPageSize);
  const auto b = Allocate(host, GetParam(), kGib + kPageSize);
  EXPECT_TRUE(a->hva() + a->size_bytes() <= b->hva() ||
              b->hva() + b->size_bytes() <= a->hva());
  const uint64_t pages = a->size_bytes() >> kPageShift;
  EXPECT_TRUE(a->base_pfn() + pages <= b->base_pfn() ||
              b->base_pfn() + pages <= a->base_pfn());
}

TEST_P(BackingKindTest, ImpossibleSizesAreRefused) {
  HostMemory host;
  for (uint64_t size : {uint64_t{0}, uint64_t{1}, kPageSize + 1,
                        kMaxBackingBytes + kPageSize, ~kPageMask}) {
    const absl::Status status =
        host.Allocate({GetParam(), size, Level::k4K}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_EQ(DetailOf(status).reason, Reason::kInvalidSize);
    EXPECT_EQ(DetailOf(status).field, "size_bytes");
    EXPECT_EQ(DetailOf(status).kvm_errno, EINVAL);
    EXPECT_NE(status.message().find(std::to_string(size)), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, BackingKindTest,
                         testing::Values(BackingKind::kAnonymous,
                                         BackingKind::kMemfd,
                                         BackingKind::kMetadataOnly));

class ContentsTest : public testing::TestWithParam<BackingKind> {};

TEST_P(ContentsTest, MemoryIsZeroAndHoldsWhatIsWritten) {
  HostMemory host;
  const auto backing = Allocate(host, GetParam(), kGib + 2 * kPageSize);
  ASSERT_TRUE(backing->has_contents());
  const Pfn last = backing->base_pfn() + PagesPer(Level::k1G) + 1;
  for (Pfn pfn : {backing->base_pfn(), last}) {
    std::byte* page = host.PointerTo(pfn);
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(page[0], std::byte{0});
    EXPECT_EQ(page[kPageSize - 1], std::byte{0});
    page[kPageSize - 1] = std::byte{0x5a};
  }
  const Hva hva = backing->hva() + backing->size_bytes() - 1;
  EXPECT_EQ(*backing->PointerTo(hva), std::byte{0x5a});
  EXPECT_EQ(host.PointerTo(last + 1), nullptr);
}

TEST_P(ContentsTest, FramesOfAFreedBackingAreGoneForGood) {
  HostMemory host;
  auto backing = Allocate(host, GetParam(), kMib);
  const Pfn pfn = backing->base_pfn();
  ASSERT_NE(host.PointerTo(pfn), nullptr);
  backing.reset();
  EXPECT_EQ(host.PointerTo(pfn), nullptr);
  EXPECT_NE(Allocate(host, GetParam(), kMib)->base_pfn(), pfn);
}

TEST_P(ContentsTest, BackingOutlivesTheHostMemory) {
  auto host = std::make_unique<HostMemory>();
  const auto backing = Allocate(*host, GetParam(), kMib);
  host.reset();
  *backing->PointerTo(backing->hva()) = std::byte{1};
  EXPECT_EQ(*backing->PointerTo(backing->hva()), std::byte{1});
}

TEST_P(ContentsTest, ExhaustedAddressSpaceIsAnErrorAndLeavesNothing) {
  HostMemory host;
  std::vector<std::shared_ptr<Backing>> backings;
  absl::Status status;
  // 47 bits of address space have room for at most two of these backings.
  for (int i = 0; i < 3 && status.ok(); ++i) {
    absl::StatusOr<std::shared_ptr<Backing>> backing =
        host.Allocate({GetParam(), kMaxBackingBytes, Level::k4K});
    status = backing.status();
    if (backing.ok()) backings.push_back(*backing);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).reason, Reason::kResourceExhaustedMemory);
  EXPECT_EQ(DetailOf(status).kvm_errno, ENOMEM);
  EXPECT_NE(status.message().find(std::to_string(kMaxBackingBytes)),
            std::string::npos);
  backings.clear();
  EXPECT_TRUE(host.Allocate({GetParam(), kMib, Level::k4K}).ok());
}

INSTANTIATE_TEST_SUITE_P(Kinds, ContentsTest,
                         testing::Values(BackingKind::kAnonymous,
                                         BackingKind::kMemfd));

TEST(MetadataOnlyTest, FramesExistWithoutMemory) {
  HostMemory host;
  const auto backing =
      Allocate(host, BackingKind::kMetadataOnly, uint64_t{4} << 40);
  EXPECT_FALSE(backing->has_contents());
  EXPECT_EQ(host.PointerTo(backing->base_pfn()), nullptr);
  EXPECT_EQ(backing->PointerTo(backing->hva()), nullptr);
  EXPECT_GE(backing->hva().value(), kSyntheticHvaBase);
  EXPECT_LE(backing->hva().value() + backing->size_bytes(), kUserAddressEnd);
}

TEST(MetadataOnlyTest, FrameNumbersRunOutAsAnError) {
  HostMemory host;
  absl::Status status;
  std::vector<std::shared_ptr<Backing>> backings;
  while (status.ok() && backings.size() < 100) {
    absl::StatusOr<std::shared_ptr<Backing>> backing = host.Allocate(
        {BackingKind::kMetadataOnly, kMaxBackingBytes, Level::k1G});
    status = backing.status();
    if (backing.ok()) backings.push_back(*backing);
  }
  EXPECT_EQ(DetailOf(status).reason, Reason::kResourceExhaustedMemory);
  EXPECT_EQ(backings.size(), size_t{63});
}

TEST(BackingTest, ContainsWholeRangesOnly) {
  HostMemory host;
  const auto backing = Allocate(host, BackingKind::kMetadataOnly, 8192);
  EXPECT_TRUE(backing->Contains(backing->hva(), 8192));
  EXPECT_FALSE(backing->Contains(backing->hva(), 8193));
  EXPECT_FALSE(backing->Contains(backing->hva() + 1, 8192));
  EXPECT_FALSE(backing->Contains(backing->hva() - 1, 1));
  EXPECT_FALSE(backing->Contains(backing->hva() + 8192, 1));
}

}  // namespace
}  // namespace mmu
