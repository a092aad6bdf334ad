// Guests with their own page tables, and nested guests, on whole VMs.

#include "mmu_core/vm/vcpu/shadow_vcpu.h"

#include <cstdint>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/kernel/guest_kernel.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"

namespace mmu::testing {
namespace {

std::unique_ptr<Vm> MakeShadowVm(MmuMode mode, uint64_t bytes,
                                 EntryFormat format = EntryFormat::kNpt,
                                 Level host_page = Level::k4K,
                                 int root_levels = 4) {
  VmConfig config;
  config.mmu = mode;
  config.format = format;
  config.root_levels = root_levels;
  config.memslots = {Slot(0, 0, bytes, host_page)};
  return MakeVmFrom(config);
}

uint64_t ReadAt(GuestKernel& kernel, Gva gva) {
  uint64_t word = 0;
  EXPECT_TRUE(kernel.Access(gva, AccessKind::kRead, &word).ok());
  return word;
}
void WriteAt(GuestKernel& kernel, Gva gva, uint64_t word) {
  EXPECT_TRUE(kernel.Access(gva, AccessKind::kWrite, &word).ok());
}

struct NamedGeometry {
  const char* name;
  const PagingGeometry* geometry;
};

class ShadowedKernelTest : public ::testing::TestWithParam<NamedGeometry> {
 protected:
  ShadowedKernelTest()
      : vm_(MakeShadowVm(MmuMode::kShadow, 64 * kMiB)),
        cpu_(*vm_->state().vcpus[0]),
        kernel_(cpu_, vm_->GuestSpace(), {.geometry = *GetParam().geometry}) {}

  std::unique_ptr<Vm> vm_;
  GuestProcessor cpu_;
  GuestKernel kernel_;
};

// Covers: SHD-46
TEST_P(ShadowedKernelTest, BootsAndItsProgramsFindWhatTheyWrote) {
  ASSERT_TRUE(kernel_.Boot().ok());
  constexpr uint64_t kPages = 600;
  for (uint64_t i = 0; i < kPages; ++i) {
    WriteAt(kernel_, Gva(0x400000 + i * kPageSize), i + 7);
  }
  for (uint64_t i = 0; i < kPages; ++i) {
    ASSERT_EQ(ReadAt(kernel_, Gva(0x400000 + i * kPageSize)), i + 7);
  }
  EXPECT_GE(vm_->VcpuStats()[0].pf_guest, kPages);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SHD-32
TEST_P(ShadowedKernelTest, ForksShareUntilOneWrites) {
  ASSERT_TRUE(kernel_.Boot().ok());
  const Gva gva(0x400000);
  WriteAt(kernel_, gva, 1);
  const auto child = kernel_.Fork();
  ASSERT_TRUE(child.ok());
  WriteAt(kernel_, gva, 2);
  ASSERT_TRUE(kernel_.SwitchTo(*child, Cr3Load::kFlush).ok());
  EXPECT_EQ(ReadAt(kernel_, gva), 1u);
  WriteAt(kernel_, gva, 3);
  ASSERT_TRUE(kernel_.SwitchTo(1, Cr3Load::kKeep).ok());
  EXPECT_EQ(ReadAt(kernel_, gva), 2u);
  ASSERT_TRUE(kernel_.Exit(*child).ok());
  ASSERT_TRUE(kernel_.Unmap(gva, kPageSize).ok());
  EXPECT_EQ(ReadAt(kernel_, gva), 0u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(
    Modes, ShadowedKernelTest,
    ::testing::Values(NamedGeometry{"TwoLevel", &PagingGeometry::k32Bit},
                      NamedGeometry{"Pae", &PagingGeometry::kPae},
                      NamedGeometry{"FourLevel", &PagingGeometry::k4Level},
                      NamedGeometry{"FiveLevel", &PagingGeometry::k5Level}),
    [](const auto& p) { return std::string(p.param.name); });

// Covers: PF-43
TEST(TdpShadowTest, DirectShadowPagesMapWhatTheTdpMmuWould) {
  for (const EntryFormat format : {EntryFormat::kEpt, EntryFormat::kNpt}) {
    auto vm = MakeShadowVm(MmuMode::kTdpShadow, 8 * kMiB, format, Level::k2M);
    for (uint64_t gpa = 0; gpa < 8 * kMiB; gpa += kPageSize) {
      ASSERT_EQ(Write(*vm, gpa, gpa + 1), AccessOutcome::kDone);
    }
    for (uint64_t gpa = 0; gpa < 8 * kMiB; gpa += kPageSize) {
      ASSERT_EQ(ReadValue(*vm, gpa), gpa + 1);
    }
    EXPECT_EQ(vm->Stats().pages_2m, 4u);
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

struct Nesting {
  const char* name;
  EntryFormat format;
  int root_levels;
  Level l1_levels;
  bool ad_bits;
};

class NestedTest : public ::testing::TestWithParam<Nesting> {
 protected:
  NestedTest()
      : vm_(MakeShadowVm(MmuMode::kNested, 64 * kMiB, GetParam().format,
                         Level::k4K, GetParam().root_levels)),
        cpu_(*vm_->state().vcpus[0],
             GetParam().root_levels == 5 ? Level::k256T : Level::k512G),
        l1_(cpu_, vm_->GuestSpace(),
            {.tables = GetParam().format == EntryFormat::kEpt
                           ? GuestTables::kEpt
                           : GuestTables::kNpt,
             .root_level = GetParam().l1_levels,
             .ad_bits = GetParam().ad_bits}) {}

  uint64_t ReadL2(uint64_t nested) {
    uint64_t word = 0;
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kRead, &word).ok());
    return word;
  }
  void WriteL2(uint64_t nested, uint64_t word) {
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kWrite, &word).ok());
  }

  std::unique_ptr<Vm> vm_;
  L1Processor cpu_;
  L1Hypervisor l1_;
};

// Covers: SHD-60
TEST_P(NestedTest, L2RunsThroughTablesOfL1) {
  ASSERT_TRUE(l1_.Boot().ok());
  for (uint64_t i = 0; i < 600; ++i) WriteL2(i * kPageSize, i + 9);
  for (uint64_t i = 0; i < 600; ++i) ASSERT_EQ(ReadL2(i * kPageSize), i + 9);
  // The contents are in L1's memory, at the frame that L1 names.
  const auto frame = l1_.FrameOf(Gpa(5 * kPageSize));
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(ReadValue(*vm_, ToGpa(*frame).value()), 14u);
  ASSERT_TRUE(l1_.Unmap(Gpa(5 * kPageSize), kPageSize).ok());
  EXPECT_EQ(ReadL2(5 * kPageSize), 0u);
  ASSERT_TRUE(l1_.Remap(Gpa(6 * kPageSize)).ok());
  EXPECT_EQ(ReadL2(6 * kPageSize), 15u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, NestedTest,
    ::testing::Values(Nesting{"Ept", EntryFormat::kEpt, 4, Level::k512G, true},
                      Nesting{"EptWithoutAd", EntryFormat::kEpt, 4,
                              Level::k512G, false},
                      Nesting{"Ept5", EntryFormat::kEpt, 5, Level::k256T, true},
                      Nesting{"Npt", EntryFormat::kNpt, 4, Level::k512G, true},
                      // A passthrough page above L1's four levels.
                      Nesting{"NptUnderFiveLevels", EntryFormat::kNpt, 5,
                              Level::k512G, true}),
    [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace mmu::testing
