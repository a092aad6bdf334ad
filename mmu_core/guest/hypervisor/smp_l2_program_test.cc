#include "mmu_core/guest/hypervisor/smp_l2_program.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/fake_l1_machine.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeL1Cpu;
using ::mmu::testing::FakeL1Machine;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;

GpaSpace Space() {
  return *GpaSpace::Create({GfnRange::Of(Gfn(0), kMemory / kPageSize)});
}

struct Case {
  std::string name;
  L1HypervisorOptions options;
  int cpus = 2;
  uint64_t stride_bytes = kPageSize;
};

// A processor that does not invalidate when it is told to.
class ForgetfulCpu final : public L1Cpu {
 public:
  explicit ForgetfulCpu(L1Cpu& cpu) : cpu_(cpu) {}

  bool Access(Gpa gpa, int size_bytes, AccessKind kind,
              uint64_t* word) override {
    return cpu_.Access(gpa, size_bytes, kind, word);
  }
  void Pause() override { cpu_.Pause(); }
  void InveptSingleContext(Gpa) override {}
  void InveptGlobal() override {}
  void InvalidateVpid(Invvpid, uint32_t, Gva) override {}
  void FlushAsid() override {}
  void EnterL2(const NestedPaging& paging) override { cpu_.EnterL2(paging); }
  Outcome L2Access(const NestedAccess& access, uint64_t* word,
                   NestedExit* exit) override {
    return cpu_.L2Access(access, word, exit);
  }
  CombinedMappings& combined() override { return cpu_.combined(); }
  void LeaveL2() override { cpu_.LeaveL2(); }
  absl::Status status() const override { return cpu_.status(); }

 private:
  L1Cpu& cpu_;
};

enum class Cpus : uint8_t { kRight, kForgetful };

// The programs of all processors of a machine, and what became of them.
class Programs {
 public:
  Programs(FakeL1Machine& machine, const SmpL2Options& options,
           Cpus cpus = Cpus::kRight)
      : machine_(machine), shared_(Space(), options) {
    for (int i = 0; i < options.cpus; ++i) {
      L1Cpu* cpu = &machine.cpu(i);
      if (cpus == Cpus::kForgetful) {
        forgetful_.push_back(std::make_unique<ForgetfulCpu>(*cpu));
        cpu = forgetful_.back().get();
      }
      programs_.push_back(std::make_unique<SmpL2Program>(*cpu, shared_, i));
    }
    EXPECT_TRUE(programs_[0]->hypervisor().Boot().ok());
  }

  // The first error of a processor.
  absl::Status Run(int steps) {
    std::vector<absl::Status> ends(programs_.size());
    machine_.Run([&](int i) {
      SmpL2Program& program = *programs_[static_cast<size_t>(i)];
      absl::Status& status = ends[static_cast<size_t>(i)];
      for (int n = 0; n < steps && status.ok(); ++n) status = program.Step();
      if (status.ok()) status = program.Verify();
      program.hypervisor().Rest();
    });
    for (const absl::Status& status : ends) {
      if (!status.ok() && !absl::IsAborted(status)) return status;
    }
    return absl::OkStatus();
  }
  L1HypervisorStats Sum() {
    L1HypervisorStats sum;
    for (const auto& program : programs_) {
      const L1HypervisorStats& one = program->hypervisor().stats();
      sum.splits += one.splits;
      sum.merges += one.merges;
      sum.frees += one.frees;
      sum.invalidations += one.invalidations;
      sum.interrupts += one.interrupts;
    }
    return sum;
  }

 private:
  FakeL1Machine& machine_;
  SmpL2Shared shared_;
  std::vector<std::unique_ptr<ForgetfulCpu>> forgetful_;
  std::vector<std::unique_ptr<SmpL2Program>> programs_;
};

class SmpL2ProgramTest : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(
    Tables, SmpL2ProgramTest,
    ::testing::Values(
        Case{"Ept", {}}, Case{"EptThreeProcessors", {}, 3},
        Case{"EptAccessedDirty", {.ad_bits = true}},
        Case{"EptFarApart", {.ad_bits = true}, 2, 2 * kMiB},
        Case{"Npt", {.tables = GuestTables::kNpt}},
        Case{"NptFarApart", {.tables = GuestTables::kNpt}, 2, 2 * kMiB},
        Case{"NptFiveLevels",
             {.tables = GuestTables::kNpt, .root_level = Level::k256T}}),
    [](const auto& row) { return row.param.name; });

// Every read finds what it may find, in many interleavings. The processors'
// caches keep everything that they were not told to invalidate.
TEST_P(SmpL2ProgramTest, NoProcessorUsesWhatAnotherTookAway) {
  const bool far_apart = GetParam().stride_bytes != kPageSize;
  L1HypervisorStats sum;
  // A step of three processors costs several times one of two.
  const uint64_t seeds = GetParam().cpus > 2 ? 1 : 2;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    FakeL1Machine machine(kMemory, GetParam().cpus, seed);
    Programs programs(machine,
                      {.hypervisor = GetParam().options,
                       .cpus = GetParam().cpus,
                       .guests = 2,
                       .pages = 8,
                       .stride_bytes = GetParam().stride_bytes,
                       .seed = seed,
                       .steps_per_promote = far_apart ? uint64_t{0} : 512,
                       .steps_per_take_dirty = 64});
    const absl::Status status = programs.Run(1'500);
    ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status;
    const L1HypervisorStats one = programs.Sum();
    sum.frees += one.frees;
    sum.merges += one.merges;
    sum.splits += one.splits;
    sum.invalidations += one.invalidations;
    sum.interrupts += one.interrupts;
  }
  // Near pages share a table.
  if (far_apart) {
    EXPECT_GT(sum.frees, 0u);
  }
  EXPECT_EQ(sum.merges > 0, !far_apart);
  EXPECT_EQ(sum.splits > 0, !far_apart);
  EXPECT_GT(sum.interrupts, 20u);
  EXPECT_GT(sum.invalidations, sum.interrupts);
}

SmpL2Options NoChanges(const Case& row) {
  SmpL2Options options = {.hypervisor = row.options,
                          .cpus = row.cpus,
                          .guests = 2,
                          .pages = 8,
                          .stride_bytes = row.stride_bytes};
  for (uint64_t* steps :
       {&options.steps_per_unmap, &options.steps_per_free_table,
        &options.steps_per_protect, &options.steps_per_remap,
        &options.steps_per_promote, &options.steps_per_demote,
        &options.steps_per_take_dirty}) {
    *steps = 0;
  }
  return options;
}

TEST_P(SmpL2ProgramTest, ARightThatOutlivesItsEntryIsNoticed) {
  SmpL2Options options = NoChanges(GetParam());
  options.steps_per_protect = 16;
  FakeL1Machine machine(kMemory, GetParam().cpus, 1);
  EXPECT_THAT(Programs(machine, options, Cpus::kForgetful).Run(1'500).message(),
              ::testing::HasSubstr("which is read-only"));
}

TEST(SmpL2ProgramsTest, TheSeedDecidesTheInterleaving) {
  const auto run = [](uint64_t seed) {
    FakeL1Machine machine(kMemory, 2, seed);
    Programs programs(machine, {.pages = 8, .seed = 1});
    EXPECT_TRUE(programs.Run(500).ok());
    return programs.Sum().interrupts;
  };
  const uint64_t first = run(1);
  EXPECT_EQ(run(1), first);
  EXPECT_NE(run(2), first);
}

}  // namespace
}  // namespace mmu
