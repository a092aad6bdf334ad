#include "mmu_core/vm/core/nx_parameters.h"

#include <cerrno>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::Exec;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;

VmConfig Config() {
  VmConfig config;
  config.memslots = {Slot(0, 0, uint64_t{4} << 20, Level::k2M)};
  return config;
}

// Covers: SPTE-50
TEST(NxParametersTest, EverySpellingMeansOnOrOff) {
  for (const char* on : {"force", "1", "y", "Y", "on"}) {
    NxParameters parameters(ItlbMultihit::kNo);
    EXPECT_TRUE(parameters.SetNxHugePages(on).ok()) << on;
    EXPECT_EQ(parameters.nx_huge_pages(), "Y") << on;
    for (const char* off : {"off", "0", "n", "N"}) {
      EXPECT_TRUE(parameters.SetNxHugePages(off).ok()) << off;
      EXPECT_EQ(parameters.nx_huge_pages(), "N") << off;
      EXPECT_TRUE(parameters.SetNxHugePages(on).ok());
    }
  }
}

// Covers: SPTE-50
TEST(NxParametersTest, AutoLooksAtTheProcessor) {
  NxParameters immune(ItlbMultihit::kNo);
  EXPECT_TRUE(immune.SetNxHugePages("auto").ok());
  EXPECT_EQ(immune.nx_huge_pages(), "N");
  NxParameters affected(ItlbMultihit::kYes);
  EXPECT_TRUE(affected.SetNxHugePages("auto").ok());
  EXPECT_EQ(affected.nx_huge_pages(), "Y");
}

// Covers: SPTE-50
TEST(NxParametersTest, OtherWordsAreRefusedAndChangeNothing) {
  NxParameters parameters(ItlbMultihit::kNo);
  ASSERT_TRUE(parameters.SetNxHugePages("force").ok());
  for (const char* word : {"", "yes", "Off", "2"}) {
    const absl::Status status = parameters.SetNxHugePages(word);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
    EXPECT_EQ(DetailOf(status).kvm_errno, EINVAL);
    EXPECT_EQ(DetailOf(status).field, "nx_huge_pages");
  }
  EXPECT_EQ(parameters.nx_huge_pages(), "Y");
}

// Covers: SPTE-50
TEST(NxParametersTest, NeverIsForTheTimeBeforeTheFirstVmAndForEver) {
  NxParameters parameters(ItlbMultihit::kYes);
  auto vm = MakeVmFrom(Config(), parameters);
  const absl::Status busy = parameters.SetNxHugePages("never");
  EXPECT_EQ(DetailOf(busy).kvm_errno, EBUSY);
  EXPECT_EQ(parameters.nx_huge_pages(), "N");
  vm.reset();
  EXPECT_TRUE(parameters.SetNxHugePages("never").ok());
  EXPECT_EQ(parameters.nx_huge_pages(), "never");
  for (const char* word : {"off", "force", "auto", "never", "rubbish"}) {
    EXPECT_EQ(DetailOf(parameters.SetNxHugePages(word)).kvm_errno, EPERM)
        << word;
  }
  EXPECT_EQ(parameters.nx_huge_pages(), "never");
}

// Covers: SPTE-50
TEST(NxParametersTest, AChangeReplacesAllRootsOfAllVmsAndTheSameValueNone) {
  NxParameters parameters(ItlbMultihit::kNo);
  auto a = MakeVmFrom(Config(), parameters);
  auto b = MakeVmFrom(Config(), parameters);
  const auto root_of = [](Vm& vm) {
    Read(vm, 0);
    return vm.state().vcpus[0]->root()->id();
  };
  uint64_t root_a = root_of(*a), root_b = root_of(*b);
  ASSERT_TRUE(parameters.SetNxHugePages("off").ok());
  EXPECT_EQ(root_of(*a), root_a);
  EXPECT_EQ(root_of(*b), root_b);
  for (const char* word : {"force", "off"}) {
    ASSERT_TRUE(parameters.SetNxHugePages(word).ok());
    EXPECT_EQ(a->Stats().pages_2m, 0u) << "nothing of the old rule is mapped";
    EXPECT_NE(root_of(*a), root_a);
    EXPECT_NE(root_of(*b), root_b);
    root_a = root_of(*a);
    root_b = root_of(*b);
  }
}

TEST(NxParametersTest, AVmMadeWhileItIsOnHasIt) {
  NxParameters parameters(ItlbMultihit::kNo);
  ASSERT_TRUE(parameters.SetNxHugePages("force").ok());
  auto vm = MakeVmFrom(Config(), parameters);
  Exec(*vm, 0);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k4K);
  VmConfig config = Config();
  config.nx_huge_pages = VmConfig::NxHugePages::kOptOut;
  auto free = MakeVmFrom(config, parameters);
  Exec(*free, 0);
  EXPECT_EQ(LevelOf(free->state(), Gfn(0)), Level::k2M);
}

}  // namespace
}  // namespace mmu
