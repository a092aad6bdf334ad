// One page of memory at very many virtual addresses.

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/kernel/page_tables.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"
#include "tests/selftests/paging_guest.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::PagingGuest;
using ::mmu::testing::Slot;

// Maximum number of SPTEs of a page (SHD-14).
constexpr uint64_t kMostMappings = 1001;

std::unique_ptr<Vm> MakeGuest(MmuMode mode, EntryFormat format) {
  VmConfig config;
  config.mmu = mode;
  config.format = format;
  // The direct map of the first 2 MiB, which contain the tables, is one SPTE.
  // The tested page is above, so the direct map does not map it.
  config.memslots = {Slot(0, 0, 16 << 20)};
  return MakeVmFrom(config);
}

// Covers: TST-41, SHD-14
TEST(RmapChainTest, APageWithTooManyMappingsLosesThemAll) {
  auto vm = MakeGuest(MmuMode::kShadow, EntryFormat::kNpt);
  PagingGuest guest(*vm);
  const Gfn page = guest.NewPages(512);
  const Gva base(0x4000'0000);
  const auto gva = [&](uint64_t i) { return base + i * kPageSize; };
  for (uint64_t i = 0; i <= kMostMappings; ++i) {
    guest.Map(gva(i), page, gpte::kPresent | gpte::kWrite | gpte::kUser);
  }
  const uint64_t others = vm->Stats().pages_4k;
  for (uint64_t i = 0; i < kMostMappings; ++i) {
    ASSERT_EQ(guest.Write(gva(i)), std::nullopt);
  }
  EXPECT_EQ(vm->Stats().pages_4k, others + kMostMappings);
  EXPECT_EQ(vm->Stats().max_mmu_rmap_size, kMostMappings - 1);
  EXPECT_EQ(AuditFindings(*vm), "");

  // One more mapping zaps all mappings of the page, and the access maps the
  // page again. The page before it in the block of eight was accessed, so it is
  // mapped ahead (SHD-53).
  ASSERT_EQ(guest.Write(gva(kMostMappings)), std::nullopt);
  EXPECT_EQ(vm->Stats().pages_4k, others + 2);
  EXPECT_EQ(vm->Stats().max_mmu_rmap_size, kMostMappings);
  EXPECT_EQ(AuditFindings(*vm), "");

  // All addresses still map the same page.
  uint64_t word = 77;
  ASSERT_EQ(guest.Access(gva(3), AccessKind::kWrite, Privilege::kUser, &word),
            std::nullopt);
  for (uint64_t i = 0; i <= kMostMappings; ++i) {
    ASSERT_EQ(guest.ValueAt(gva(i)), 77u) << i;
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The same for an L2 guest, where rmaps are those of L1's pages.
// Covers: TST-41
TEST(RmapChainTest, APageOfL1MayHaveAsManyNestedAddresses) {
  auto vm = MakeGuest(MmuMode::kNested, EntryFormat::kEpt);
  L1Processor cpu(*vm->state().vcpus[0], Level::k512G);
  L1Hypervisor l1(cpu, vm->GuestSpace(), {.ad_bits = true});
  ASSERT_TRUE(l1.Boot().ok());
  const auto nested = [](uint64_t i) { return ToGpa(Gfn(i)); };
  uint64_t word = 7;
  ASSERT_TRUE(l1.Access(nested(0), AccessKind::kWrite, &word).ok());
  for (uint64_t i = 1; i <= kMostMappings; ++i) {
    ASSERT_TRUE(l1.Alias(nested(0), nested(i)).ok());
  }
  for (uint64_t i = 1; i <= kMostMappings; ++i) {
    word = i;
    ASSERT_TRUE(l1.Access(nested(i), AccessKind::kWrite, &word).ok());
    ASSERT_TRUE(l1.Access(nested(i - 1), AccessKind::kRead, &word).ok());
    ASSERT_EQ(word, i);
  }
  EXPECT_EQ(vm->Stats().max_mmu_rmap_size, kMostMappings);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
