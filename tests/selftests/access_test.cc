// The accesses that a shadowed guest's entries and control registers allow: all
// combinations, and the cases that failed once.

#include "mmu_core/base/access.h"

#include <cstdint>
#include <memory>
#include <optional>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/kernel/page_tables.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "tests/selftests/paging_guest.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::PagingGuest;
using ::mmu::testing::Slot;

constexpr uint64_t kP = gpte::kPresent;
constexpr uint64_t kW = gpte::kWrite;
constexpr uint64_t kU = gpte::kUser;
constexpr uint64_t kA = gpte::kAccessed;
constexpr uint64_t kD = gpte::kDirty;
constexpr uint64_t kPs = gpte::kPageSize;
constexpr uint64_t kNx = guest_entry::kNx;
constexpr uint64_t kReserved = uint64_t{1} << 50;
constexpr Gva kGva(0x4020'3000);
constexpr Privilege kUser = Privilege::kUser;
constexpr Privilege kKernel = Privilege::kSupervisor;
constexpr std::optional<uint64_t> kDone = std::nullopt;

class AccessTest : public ::testing::TestWithParam<Level> {
 protected:
  AccessTest() : vm_(MakeGuest(GetParam())), guest_(*vm_) {}
  ~AccessTest() override { EXPECT_EQ(AuditFindings(*vm_), ""); }

  static std::unique_ptr<Vm> MakeGuest(Level host_page) {
    VmConfig config;
    config.mmu = MmuMode::kShadow;
    config.format = EntryFormat::kNpt;
    config.memslots = {Slot(0, 0, 16 << 20, host_page)};
    return MakeVmFrom(config);
  }

  std::unique_ptr<Vm> vm_;
  PagingGuest guest_;
};

INSTANTIATE_TEST_SUITE_P(HostPages, AccessTest,
                         ::testing::Values(Level::k4K, Level::k2M),
                         [](const auto& row) {
                           return row.param == Level::k4K ? "Small" : "Huge";
                         });

// The rules of SDM vol. 3, 4.6 and 4.7, for two entries.
struct Machine {
  bool wp;
  bool smep;
};
std::optional<uint64_t> Expected(const Machine& m, uint64_t upper,
                                 uint64_t lower, AccessKind kind,
                                 Privilege who) {
  uint64_t code = 0;
  if (kind == AccessKind::kWrite) code |= kPferrWrite;
  if (kind == AccessKind::kExec) code |= kPferrFetch;
  if (who == kUser) code |= kPferrUser;
  if ((upper & kP) == 0) return code;
  if ((lower & kP) == 0) return code;
  if (((upper | lower) & kReserved) != 0) {
    return code | kPferrPresent | kPferrReserved;
  }
  const bool user_page = (upper & lower & kU) != 0;
  const bool writable = (upper & lower & kW) != 0;
  const bool executable = ((upper | lower) & kNx) == 0;
  bool allowed = who == kKernel || user_page;
  if (kind == AccessKind::kWrite) {
    allowed &= writable || (who == kKernel && !m.wp);
  }
  if (kind == AccessKind::kExec) {
    allowed &= executable && !(who == kKernel && user_page && m.smep);
  }
  return allowed ? kDone : std::optional(code | kPferrPresent);
}

// Covers: TST-40, ROLE-07
TEST_P(AccessTest, EveryCombinationIsAsTheManualSays) {
  const Gfn page = guest_.NewPage();
  guest_.Map(kGva, page, kP | kW | kU);
  const GuestPte leaf = guest_.Find(kGva);
  // The entry above is in the directory's page.
  const Gfn directory = guest_.NewPage();
  const Gfn table = ToGfn(leaf.where);
  guest_.Map(kGva, directory, kP | kW | kU, 3);
  const Gpa upper_at = ToGpa(directory) + (kGva.value() >> 21 & 511) * 8;
  guest_.Store(upper_at, ToGpa(table).value() | kP | kW | kU);
  guest_.cpu().Invlpg(kGva);

  constexpr uint64_t kUpper[] = {kP, kW, kU, kNx};
  constexpr uint64_t kLower[] = {kP, kW, kU, kNx, kA, kD, kReserved};
  uint64_t faults = 0;
  for (const Machine m : {Machine{true, false}, Machine{false, false},
                          Machine{true, true}, Machine{false, true}}) {
    guest_.SetProtection(m.wp, m.smep);
    for (uint64_t u = 0; u < 16; ++u) {
      uint64_t upper = ToGpa(table).value();
      for (int i = 0; i < 4; ++i) upper |= (u >> i & 1) != 0 ? kUpper[i] : 0;
      guest_.Store(upper_at, upper);
      for (uint64_t l = 0; l < 128; ++l) {
        uint64_t lower = ToGpa(page).value();
        for (int i = 0; i < 7; ++i) lower |= (l >> i & 1) != 0 ? kLower[i] : 0;
        // Make all accesses with one setting of the bits.
        for (const AccessKind kind :
             {AccessKind::kRead, AccessKind::kWrite, AccessKind::kExec}) {
          for (const Privilege who : {kUser, kKernel}) {
            guest_.Store(leaf.where, lower);
            guest_.cpu().Invlpg(kGva);
            const std::optional<uint64_t> expected =
                Expected(m, upper, lower, kind, who);
            ASSERT_EQ(guest_.Access(kGva, kind, who), expected)
                << ToString(kind) << (who == kUser ? " by a user" : "")
                << (m.wp ? " WP" : "") << (m.smep ? " SMEP" : "") << " upper 0x"
                << std::hex << upper << " lower 0x" << lower;
            const uint64_t set =
                kA | (kind == AccessKind::kWrite ? kD : uint64_t{0});
            ASSERT_EQ(guest_.Load(leaf.where),
                      expected == kDone ? lower | set : lower);
            faults += expected != kDone ? 1 : 0;
          }
        }
      }
    }
  }
  EXPECT_GT(faults, 10'000u);
}

// A prefetched mapping, made by a fault on a page beside it, causes the same
// error codes as a mapping made by an access.
// Covers: TST-40, SHD-53
TEST_P(AccessTest, TheErrorCodeOfAPrefetchedEntryIsThatOfItsOwn) {
  // The first page of the block of eight pages that one fault maps.
  const Gva neighbour(kGva.value() & ~uint64_t{0x7fff});
  const Gva accessed = neighbour + kPageSize;
  guest_.Map(accessed, guest_.NewPage(), kP | kW | kU | kA | kD);
  guest_.Map(neighbour, guest_.NewPage(), kP | kU | kNx | kA);
  const uint64_t before = vm_->Stats().pages_4k;
  EXPECT_EQ(guest_.Read(accessed), kDone);
  EXPECT_EQ(vm_->Stats().pages_4k, before + 2);
  EXPECT_EQ(guest_.Fetch(neighbour), kPferrPresent | kPferrUser | kPferrFetch);
  EXPECT_EQ(guest_.Write(neighbour), kPferrPresent | kPferrUser | kPferrWrite);
  EXPECT_EQ(guest_.Read(neighbour), kDone);
}

// Covers: TST-40
TEST_P(AccessTest, AWriteToALargePageSetsDirtyAlsoWithoutWriteProtection) {
  const Gfn page = guest_.NewPages(512);
  guest_.Map(kGva, page, kP | kU | kPs, 2);
  guest_.SetProtection(/*wp=*/false, /*smep=*/false);
  EXPECT_EQ(guest_.Read(kGva), kDone);
  EXPECT_EQ(guest_.Find(kGva).value & (kA | kD), kA);
  EXPECT_EQ(guest_.Write(kGva, kKernel), kDone);
  EXPECT_EQ(guest_.Find(kGva).value & (kA | kD), kA | kD);
}

// Covers: TST-40, ROLE-07
TEST_P(AccessTest, WhatAKernelWroteWithoutWriteProtectionUsersCannot) {
  guest_.Map(kGva, guest_.NewPage(), kP | kU);
  guest_.SetProtection(/*wp=*/false, /*smep=*/false);
  EXPECT_EQ(guest_.Write(kGva, kKernel), kDone);
  EXPECT_EQ(guest_.Write(kGva), kPferrPresent | kPferrWrite | kPferrUser);
  EXPECT_EQ(guest_.Read(kGva), kDone);
  EXPECT_EQ(guest_.Fetch(kGva), kDone);
  EXPECT_EQ(guest_.Write(kGva, kKernel), kDone) << "and it may again";
}

// With WP clear and SMEP set, a kernel may write to a user page but must not
// execute it, not even through a mapping that was made for the write.
// Covers: TST-40
TEST_P(AccessTest, SmepHoldsForPagesThatAKernelMayWriteForLackOfWp) {
  guest_.Map(kGva, guest_.NewPage(), kP | kU);
  guest_.SetProtection(/*wp=*/false, /*smep=*/true);
  EXPECT_EQ(guest_.Write(kGva, kKernel), kDone);
  EXPECT_EQ(guest_.Fetch(kGva, kKernel), kPferrPresent | kPferrFetch);
  EXPECT_EQ(guest_.Fetch(kGva), kDone);
  guest_.SetProtection(/*wp=*/false, /*smep=*/false);
  EXPECT_EQ(guest_.Fetch(kGva, kKernel), kDone);
  EXPECT_EQ(guest_.Write(kGva, kKernel), kDone);
  guest_.SetProtection(/*wp=*/false, /*smep=*/true);
  EXPECT_EQ(guest_.Fetch(kGva, kKernel), kPferrPresent | kPferrFetch);
}

// Covers: TST-40
TEST_P(AccessTest, SwitchingWriteProtectionHoldsAtOnce) {
  guest_.Map(kGva, guest_.NewPage(), kP | kU);
  for (int round = 0; round < 3; ++round) {
    guest_.SetProtection(/*wp=*/false, /*smep=*/false);
    EXPECT_EQ(guest_.Write(kGva, kKernel), kDone);
    guest_.SetProtection(/*wp=*/true, /*smep=*/false);
    EXPECT_EQ(guest_.Write(kGva, kKernel), kPferrPresent | kPferrWrite);
    EXPECT_EQ(guest_.Read(kGva, kKernel), kDone);
  }
}

// Two addresses lead to the same table, but the entries above grant different
// rights.
// Covers: TST-40
TEST_P(AccessTest, ATableReachedOnTwoWaysGrantsWhatEachWayDoes) {
  const Gva plain(0x4000'0000);
  guest_.Map(plain, guest_.NewPage(), kP | kW | kU);
  const Gfn table = ToGfn(guest_.Find(plain).where);
  constexpr uint64_t kWays[] = {kP | kW | kU, kP | kU, kP | kW, kP,
                                kP | kW | kU | kNx};
  const auto gva = [&](uint64_t way) {
    return plain + (way + 1) * (uint64_t{1} << 21);
  };
  for (uint64_t way = 0; way < 5; ++way) {
    guest_.Map(gva(way), table, kWays[way], 2);
  }
  // Use both orders, so that each address is the first to be mapped.
  for (int round = 0; round < 2; ++round) {
    for (uint64_t i = 0; i < 5; ++i) {
      const uint64_t way = round == 0 ? i : 4 - i;
      for (const AccessKind kind :
           {AccessKind::kRead, AccessKind::kWrite, AccessKind::kExec}) {
        for (const Privilege who : {kUser, kKernel}) {
          EXPECT_EQ(
              guest_.Access(gva(way), kind, who),
              Expected({true, false}, kWays[way], kP | kW | kU, kind, who))
              << "way " << way << " " << ToString(kind);
        }
      }
    }
  }
}

// A writable large page and a read-only one map the same memory.
// Covers: TST-40
TEST_P(AccessTest, LargePagesOfTheSameMemoryKeepTheirOwnRights) {
  const Gfn page = guest_.NewPages(512);
  const Gva read_only(0x4000'0000);
  const Gva writable(0x8000'0000);
  guest_.Map(read_only, page, kP | kU | kPs, 2);
  guest_.Map(writable, page, kP | kW | kU | kPs, 2);
  for (uint64_t i = 0; i < 512; i += 37) {
    const uint64_t offset = i * kPageSize;
    EXPECT_EQ(guest_.Read(read_only + offset), kDone);
    uint64_t word = i + 1;
    EXPECT_EQ(
        guest_.Access(writable + offset, AccessKind::kWrite, kUser, &word),
        kDone);
    EXPECT_EQ(guest_.Write(read_only + offset),
              kPferrPresent | kPferrWrite | kPferrUser);
    EXPECT_EQ(guest_.ValueAt(read_only + offset), i + 1);
  }
  // Replace the large page by a small page, and map the large page again.
  const Gfn other = guest_.NewPage();
  guest_.Map(Gva(0xc000'0000), other, kP | kW | kU);
  const GuestPte large = guest_.Find(writable);
  ASSERT_TRUE(guest_.tables().SplitLarge(large));
  guest_.cpu().Invlpg(writable);
  const GuestPte small = guest_.Find(writable + kPageSize);
  guest_.Store(small.where, ToGpa(other).value() | kP | kW | kU);
  guest_.cpu().Invlpg(writable + kPageSize);
  uint64_t word = 99;
  EXPECT_EQ(
      guest_.Access(writable + kPageSize, AccessKind::kWrite, kUser, &word),
      kDone);
  EXPECT_EQ(guest_.ValueAt(Gva(0xc000'0000)), 99u);
  EXPECT_EQ(guest_.ValueAt(writable), 1u);
  EXPECT_EQ(guest_.ValueAt(read_only + kPageSize), 0u);
  guest_.Store(large.where, large.value);
  guest_.cpu().Invlpg(writable);
  EXPECT_EQ(guest_.ValueAt(writable + kPageSize), 0u);
}

}  // namespace
}  // namespace mmu
