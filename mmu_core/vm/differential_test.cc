// Runs the same guests on every kind of MMU. Compares the MMUs with each other
// and with flat memory, on which a reference processor walks the page tables.
//
//   the guest                      on                         and on
//   accesses by gpa                kTdp                       kTdpShadow, a map
//   accesses by gpa                kStage2, all granules      a map
//   a kernel and its processes     kShadow, four paging modes FakeGuestCpu
//   a hypervisor and its L2 guest  kNested, EPT and NPT       FakeL1Cpu
//
// The Accessed and Dirty bits in the guest's own tables may differ, because the
// TLB of the fakes keeps entries for longer. The dirty pages may differ as
// well: a page may be dirty without a write by the guest. Such a page is
//   - a table in which the walk set these bits,
//   - a page that was read, if the fault made it writable at once (DL-18), or
//   - a page mapped by a table that the guest edited, if the sync of this table
//     made the page writable (SHD-33).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"
#include "mmu_core/guest/hypervisor/l2_program.h"
#include "mmu_core/guest/kernel/fake_guest_cpu.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest/reference_memory.h"
#include "mmu_core/guest/virtual_workload.h"
#include "mmu_core/guest/virtual_workload_test_util.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

using LargePages = GuestKernelOptions::LargePages;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;
constexpr uint64_t kPages = kMemory / kPageSize;

GpaSpace Space() { return *GpaSpace::Create({GfnRange::Of(Gfn(0), kPages)}); }

std::unique_ptr<Vm> MakeMemoryOf(MmuMode mode, EntryFormat format,
                                 Level host_page = Level::k4K,
                                 int root_levels = 4) {
  VmConfig config;
  config.mmu = mode;
  config.format = format;
  config.root_levels = root_levels;
  config.memslots = {Slot(0, 0, kMemory, host_page)};
  return MakeVmFrom(config);
}

// Options of programs that change their tables often.
KernelProgramOptions BusyProcesses(const GuestKernelOptions& kernel) {
  return {.kernel = kernel,
          .check = ReadCheck::kYes,
          .accesses_per_switch = 20,
          .accesses_per_fork = 500,
          .accesses_per_unmap = 50,
          .accesses_per_protect = 20};
}
L2ProgramOptions BusyL2(const L1HypervisorOptions& hypervisor) {
  return {.hypervisor = hypervisor,
          .pages = 2048,
          .check = ReadCheck::kYes,
          .accesses_per_unmap = 50,
          .accesses_per_protect = 20,
          .accesses_per_remap = 50,
          .accesses_per_promote = 500,
          .accesses_per_demote = 500,
          .accesses_per_take_dirty = 1000};
}

// Expects the VM's memory to equal that of `flat`. In the pages of page tables,
// the bits `ignored` may differ.
void ExpectSameMemory(Vm& vm, const FlatMemory& flat, uint64_t ignored) {
  const std::set<Gfn> tables = flat.tables();
  std::vector<uint64_t> page(kPageSize / 8);
  for (uint64_t gfn = 0; gfn < kPages; ++gfn) {
    const Gpa gpa = ToGpa(Gfn(gfn));
    ASSERT_TRUE(vm.ReadMemory(gpa, absl::MakeSpan(reinterpret_cast<std::byte*>(
                                                      page.data()),
                                                  kPageSize))
                    .ok());
    const uint64_t mask = tables.count(Gfn(gfn)) != 0 ? ~ignored : ~uint64_t{0};
    for (uint64_t i = 0; i < page.size(); ++i) {
      ASSERT_EQ(page[i] & mask, flat.WordAt(gpa + 8 * i) & mask)
          << "gpa 0x" << std::hex << gpa.value() + 8 * i;
    }
  }
}

void ClearLog(Vm& vm, uint64_t epoch, const std::vector<uint64_t>& pages) {
  const auto cleared =
      ClearAndDeliver(vm, 0, epoch, 0, kPages, MaskOf(kPages, pages), nullptr);
  ASSERT_TRUE(cleared.ok()) << cleared.status();
}

// The size of the guest's entries, and the bits in them that the processor
// sets.
struct EntryShape {
  int bytes = 8;
  uint64_t accessed_dirty = 0;

  // These bits in an aligned 8-byte word.
  uint64_t IgnoredBits() const {
    return bytes == 8 ? accessed_dirty : accessed_dirty | accessed_dirty << 32;
  }
};

// Adds the pages that the table at `table` maps, if it is of level 1.
void AddMappedPages(const FlatMemory& flat, Gfn table, const EntryShape& shape,
                    std::set<Gfn>& pages) {
  for (uint64_t at = 0; at < kPageSize; at += 8) {
    const uint64_t word = flat.WordAt(ToGpa(table) + at);
    pages.insert(ToGfn(Gpa(word & guest_entry::kAddress)));
    if (shape.bytes == 8) continue;
    pages.insert(ToGfn(Gpa(word & 0xffff'f000)));
    pages.insert(ToGfn(Gpa(word >> 32 & 0xffff'f000)));
  }
}

// Checks the dirty pages. Each page that software wrote must be dirty. Each
// dirty page was accessed, is a table, or is mapped by a table that changed.
void ExpectDirtyPagesExplained(const std::vector<uint64_t>& dirty,
                               const FlatMemory& flat,
                               const EntryShape& shape) {
  const std::set<Gfn> written = flat.written();
  const std::set<Gfn> accessed = flat.accessed();
  const std::set<Gfn> tables = flat.tables();
  std::set<Gfn> mapped_anew;
  for (const Gfn table : tables) {
    if (written.count(table) != 0) {
      AddMappedPages(flat, table, shape, mapped_anew);
    }
  }
  std::set<Gfn> logged;
  for (const uint64_t page : dirty) {
    const Gfn gfn(page);
    logged.insert(gfn);
    EXPECT_TRUE(accessed.count(gfn) != 0 || tables.count(gfn) != 0 ||
                mapped_anew.count(gfn) != 0)
        << gfn << " is dirty, and nobody was there";
  }
  for (const Gfn gfn : written) {
    EXPECT_TRUE(logged.count(gfn) != 0) << gfn << " was written";
  }
}

// Runs one guest on two processors. The reads must be the same, both guests
// must read what they wrote, and the VM's memory and dirty pages must agree
// with the flat memory.
void RunSideBySide(Vm& vm, VirtualWorkload& program, FlatMemory& flat,
                   VirtualWorkload& reference, const EntryShape& shape) {
  const auto run = [&](uint64_t count) {
    std::vector<uint64_t> reads;
    std::vector<uint64_t> expected;
    const auto source = UniformAccesses(Space(), count);
    const absl::Status status = RunAccesses(program, *source, &reads);
    ASSERT_TRUE(status.ok()) << status;
    const auto same = UniformAccesses(Space(), count);
    ASSERT_TRUE(RunAccesses(reference, *same, &expected).ok());
    ASSERT_EQ(reads, expected);
    ASSERT_EQ(AuditFindings(vm), "");
  };
  run(1500);
  ASSERT_TRUE(StartLog(vm, {}, nullptr).ok());
  for (int pass = 0; pass < 2; ++pass) {
    flat.ForgetAccesses();
    run(800);
    uint64_t epoch = 0;
    const std::vector<uint64_t> dirty = SealAndList(vm, 0, &epoch);
    ExpectDirtyPagesExplained(dirty, flat, shape);
    ClearLog(vm, epoch, dirty);
    ASSERT_EQ(AuditFindings(vm), "");
  }
  const auto stopped =
      StopLog(vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  run(800);
  const absl::Status all = program.Verify();
  EXPECT_TRUE(all.ok()) << all;
  ASSERT_TRUE(reference.Verify().ok());
  ExpectSameMemory(vm, flat, shape.IgnoredBits());
  EXPECT_EQ(AuditFindings(vm), "");
}

// --- Guests that page by themselves ---

struct KernelCase {
  std::string name;
  GuestKernelOptions kernel;
  Level host_page = Level::k4K;
};

class KernelDifferentialTest : public ::testing::TestWithParam<KernelCase> {};

INSTANTIATE_TEST_SUITE_P(
    Geometries, KernelDifferentialTest,
    ::testing::Values(
        KernelCase{"TwoLevel", {PagingGeometry::k32Bit, LargePages::kNo}},
        KernelCase{"TwoLevelLarge",
                   {PagingGeometry::k32Bit, LargePages::kYes},
                   Level::k2M},
        KernelCase{"Pae", {PagingGeometry::kPae, LargePages::kNo}},
        KernelCase{
            "PaeLarge", {PagingGeometry::kPae, LargePages::kYes}, Level::k2M},
        KernelCase{"FourLevel",
                   {PagingGeometry::k4Level, LargePages::kNo},
                   Level::k2M},
        KernelCase{"FourLevelLarge",
                   {PagingGeometry::k4Level, LargePages::kYes}},
        KernelCase{"FiveLevel", {PagingGeometry::k5Level, LargePages::kNo}},
        KernelCase{"FiveLevelLarge",
                   {PagingGeometry::k5Level, LargePages::kYes},
                   Level::k2M}),
    [](const auto& row) { return row.param.name; });

// Covers: TST-51
TEST_P(KernelDifferentialTest, AShadowedGuestIsAsOneOnFlatMemory) {
  auto vm =
      MakeMemoryOf(MmuMode::kShadow, EntryFormat::kNpt, GetParam().host_page);
  GuestProcessor cpu(*vm->state().vcpus[0]);
  FakeGuestCpu fake(kMemory);
  const KernelProgramOptions options = BusyProcesses(GetParam().kernel);
  const auto program = KernelProgram::Start(cpu, Space(), options);
  ASSERT_TRUE(program.ok()) << program.status();
  const auto reference = KernelProgram::Start(fake, Space(), options);
  ASSERT_TRUE(reference.ok());
  RunSideBySide(
      *vm, **program, fake.memory(), **reference,
      {.bytes = GetParam().kernel.geometry.entry_bytes,
       .accessed_dirty = guest_entry::kAccessed | guest_entry::kDirty});
  EXPECT_EQ((*program)->contents(), (*reference)->contents());
}

// --- Nested guests ---

struct NestedCase {
  std::string name;
  L1HypervisorOptions l1;
  Level host_page = Level::k4K;
  int root_levels = 4;
};

class NestedDifferentialTest : public ::testing::TestWithParam<NestedCase> {};

INSTANTIATE_TEST_SUITE_P(
    Tables, NestedDifferentialTest,
    ::testing::Values(
        NestedCase{"Ept", {}},
        NestedCase{"EptLarge", {.max_page = Level::k2M}, Level::k2M},
        NestedCase{"EptAccessedDirty", {.ad_bits = true}, Level::k2M},
        NestedCase{"EptAccessedDirtyLarge",
                   {.ad_bits = true, .max_page = Level::k2M}},
        NestedCase{"EptExecOnlyFiveLevels",
                   {.root_level = Level::k256T, .exec_only = true},
                   Level::k4K,
                   5},
        NestedCase{"Npt", {.tables = GuestTables::kNpt}},
        NestedCase{"NptLarge",
                   {.tables = GuestTables::kNpt, .max_page = Level::k2M},
                   Level::k2M},
        NestedCase{
            "NptUnderFiveLevels", {.tables = GuestTables::kNpt}, Level::k4K, 5},
        NestedCase{"NptFiveLevels",
                   {.tables = GuestTables::kNpt, .root_level = Level::k256T},
                   Level::k4K,
                   5}),
    [](const auto& row) { return row.param.name; });

std::unique_ptr<Vm> MakeNested(const NestedCase& param) {
  return MakeMemoryOf(MmuMode::kNested,
                      param.l1.tables == GuestTables::kEpt ? EntryFormat::kEpt
                                                           : EntryFormat::kNpt,
                      param.host_page, param.root_levels);
}
Level TdpLevelOf(const NestedCase& param) {
  return static_cast<Level>(param.root_levels);
}

// Covers: TST-51
TEST_P(NestedDifferentialTest, AnL2GuestIsAsOneOnFlatMemory) {
  auto vm = MakeNested(GetParam());
  L1Processor cpu(*vm->state().vcpus[0], TdpLevelOf(GetParam()));
  FakeL1Cpu fake(kMemory);
  const L2ProgramOptions options = BusyL2(GetParam().l1);
  const auto program = L2Program::Start(cpu, Space(), options);
  ASSERT_TRUE(program.ok()) << program.status();
  const auto reference = L2Program::Start(fake, Space(), options);
  ASSERT_TRUE(reference.ok());
  const bool ept = GetParam().l1.tables == GuestTables::kEpt;
  RunSideBySide(*vm, **program, fake.memory(), **reference,
                {.accessed_dirty =
                     ept ? guest_entry::kEptAccessed | guest_entry::kEptDirty
                         : guest_entry::kAccessed | guest_entry::kDirty});
  EXPECT_EQ((*program)->contents(), (*reference)->contents());
}

// --- Guests without tables of their own ---

// Accesses by gpa, without tables. Remembers the value of each written word.
class FlatProgram final : public VirtualWorkload {
 public:
  explicit FlatProgram(Vm& vm, uint64_t pages = kPages)
      : vm_(vm), pages_(pages) {}

  absl::Status Access(const GuestAccess& access, uint64_t* word) override {
    const uint64_t address =
        access.address_bytes % (pages_ * kPageSize) & ~uint64_t{7};
    if (vm_.state().vcpus[0]->Access(Gpa(address), access.kind, word) !=
        AccessOutcome::kDone) {
      return absl::InternalError("not done");
    }
    accessed_.insert(address >> kPageShift);
    if (access.kind != AccessKind::kWrite) {
      return contents_.Check("the guest", address, *word);
    }
    written_.insert(address >> kPageShift);
    contents_.Write(address, *word);
    return absl::OkStatus();
  }
  uint64_t program_pages() const override { return pages_; }
  absl::Status Verify() override {
    for (const auto& [address, expected] : contents_.words()) {
      const absl::Status status =
          contents_.Check("the guest", address, ReadValue(vm_, address));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // The pages accessed since the last call.
  std::set<uint64_t> TakeAccessedPages() {
    return std::exchange(accessed_, {});
  }
  // The pages written since the last call.
  std::set<uint64_t> TakeWrittenPages() { return std::exchange(written_, {}); }

 private:
  Vm& vm_;
  const uint64_t pages_;
  ReferenceMemory contents_;
  std::set<uint64_t> accessed_;
  std::set<uint64_t> written_;
};

struct SecondStage {
  std::string name;
  EntryFormat format;
  Level host_page;
};

class SecondStageTest : public ::testing::TestWithParam<SecondStage> {};

INSTANTIATE_TEST_SUITE_P(
    Formats, SecondStageTest,
    ::testing::Values(SecondStage{"Ept", EntryFormat::kEpt, Level::k4K},
                      SecondStage{"EptHuge", EntryFormat::kEpt, Level::k2M},
                      SecondStage{"Npt", EntryFormat::kNpt, Level::k4K},
                      SecondStage{"NptHuge", EntryFormat::kNpt, Level::k2M}),
    [](const auto& row) { return row.param.name; });

// Covers: TST-51
TEST_P(SecondStageTest, ShadowPagesTranslateAndLogAsTheTdpMmu) {
  auto tdp =
      MakeMemoryOf(MmuMode::kTdp, GetParam().format, GetParam().host_page);
  auto shadow = MakeMemoryOf(MmuMode::kTdpShadow, GetParam().format,
                             GetParam().host_page);
  FlatProgram on_tdp(*tdp);
  FlatProgram on_shadow(*shadow);
  const auto run = [&](uint64_t count) {
    for (FlatProgram* program : {&on_tdp, &on_shadow}) {
      const auto source = UniformAccesses(Space(), count);
      const absl::Status status = RunAccesses(*program, *source);
      ASSERT_TRUE(status.ok()) << status;
    }
    ASSERT_EQ(AuditFindings(*tdp), "");
    ASSERT_EQ(AuditFindings(*shadow), "");
  };
  // Touches all pages, so that the number of pages per fault does not matter.
  run(20 * kPages);
  EXPECT_EQ(shadow->Stats().pages_4k, tdp->Stats().pages_4k);
  EXPECT_EQ(shadow->Stats().pages_2m, tdp->Stats().pages_2m);
  for (Vm* vm : {tdp.get(), shadow.get()}) {
    ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  }
  on_shadow.TakeAccessedPages();
  for (int pass = 0; pass < 2; ++pass) {
    run(500);
    uint64_t epoch = 0;
    uint64_t shadow_epoch = 0;
    const std::vector<uint64_t> on_tdp_dirty = SealAndList(*tdp, 0, &epoch);
    const std::vector<uint64_t> dirty = SealAndList(*shadow, 0, &shadow_epoch);
    EXPECT_FALSE(on_tdp_dirty.empty());
    if (GetParam().host_page == Level::k4K) {
      EXPECT_EQ(dirty, on_tdp_dirty);
      EXPECT_EQ(shadow->Stats().pages_4k, tdp->Stats().pages_4k);
    } else {
      // On a write to a huge page the TDP MMU splits the page, and the shadow
      // MMU drops it. With the shadow MMU, later reads there fault and make
      // their pages dirty, too (DL-18).
      const std::set<uint64_t> accessed = on_shadow.TakeAccessedPages();
      EXPECT_TRUE(std::includes(dirty.begin(), dirty.end(),
                                on_tdp_dirty.begin(), on_tdp_dirty.end()));
      EXPECT_TRUE(std::includes(accessed.begin(), accessed.end(), dirty.begin(),
                                dirty.end()));
    }
    ClearLog(*tdp, epoch, on_tdp_dirty);
    ClearLog(*shadow, shadow_epoch, dirty);
  }
  EXPECT_TRUE(on_tdp.Verify().ok());
  EXPECT_TRUE(on_shadow.Verify().ok());
  for (uint64_t gpa = 0; gpa < kMemory; gpa += kPageSize) {
    ASSERT_EQ(ReadValue(*shadow, gpa), ReadValue(*tdp, gpa)) << gpa;
  }
}

// --- Stage-2 tables ---

enum class Split : uint8_t { kByFault, kAhead };

struct Stage2Kind {
  std::string name;
  uint32_t granule_bytes;
  int bbm_level = 0;
  Split split = Split::kByFault;
  Level host_page = Level::k4K;
};

std::vector<Stage2Kind> Stage2Kinds() {
  std::vector<Stage2Kind> kinds;
  for (const uint32_t granule : {4096u, 16384u, 65536u}) {
    for (const int bbm : {0, 2}) {
      const std::string name =
          absl::StrCat("Granule", granule >> 10, "KBbm", bbm);
      kinds.push_back({absl::StrCat(name, "Pages"), granule, bbm});
      for (const Split split : {Split::kByFault, Split::kAhead}) {
        kinds.push_back({absl::StrCat(name, "Blocks",
                                      split == Split::kAhead ? "SplitAhead"
                                                             : "SplitByFault"),
                         granule, bbm, split, Level::k1G});
      }
    }
  }
  return kinds;
}

std::unique_ptr<Vm> MakeStage2(const Stage2Kind& kind) {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.stage2.granule_bytes = kind.granule_bytes;
  config.stage2.bbm_level = kind.bbm_level;
  if (kind.split == Split::kAhead) {
    // The smallest blocks.
    config.stage2.eager_split_chunk_bytes =
        Stage2LeafSizes(kind.granule_bytes)[1];
  }
  const bool blocks = kind.host_page != Level::k4K;
  config.memslots = {
      Slot(0, 0, blocks ? 1024 * kMiB : kMemory, kind.host_page)};
  return MakeVmFrom(config);
}

// All pages of the granules that have one of `pages`.
std::vector<uint64_t> WholeGranules(const std::set<uint64_t>& pages,
                                    uint32_t granule_bytes) {
  const uint64_t per_granule = granule_bytes / kPageSize;
  std::set<uint64_t> whole;
  for (const uint64_t page : pages) {
    for (uint64_t i = 0; i < per_granule; ++i) {
      whole.insert(page / per_granule * per_granule + i);
    }
  }
  return {whole.begin(), whole.end()};
}

class Stage2DifferentialTest : public ::testing::TestWithParam<Stage2Kind> {};

INSTANTIATE_TEST_SUITE_P(Kinds, Stage2DifferentialTest,
                         ::testing::ValuesIn(Stage2Kinds()),
                         [](const auto& row) { return row.param.name; });

// Here the dirty pages are exactly those that the guest wrote, a granule at a
// time: a read never makes its page dirty.
TEST_P(Stage2DifferentialTest, AccessesReadAndLogAsOnFlatMemory) {
  auto vm = MakeStage2(GetParam());
  FlatProgram program(*vm);
  const auto run = [&](uint64_t count) {
    const auto source = UniformAccesses(Space(), count);
    const absl::Status status = RunAccesses(program, *source);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(AuditFindings(*vm), "");
  };
  run(2 * kPages);
  DirtyLogConfig log;
  log.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*vm, log).ok());
  program.TakeWrittenPages();
  for (int pass = 0; pass < 3; ++pass) {
    run(500);
    uint64_t epoch = 0;
    const std::vector<uint64_t> dirty = SealAndList(*vm, 0, &epoch);
    EXPECT_EQ(dirty, WholeGranules(program.TakeWrittenPages(),
                                   GetParam().granule_bytes));
    ClearLog(*vm, epoch, dirty);
  }
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr).ok());
  run(500);
  EXPECT_TRUE(program.Verify().ok());
}

// --- One program on all of them ---

// The program's addresses are those of the guest, of its one process, or of L2.
// Memory that is never unmapped reads the same everywhere.
// Covers: TST-51
TEST(DifferentialTest, AProgramReadsTheSameOnEveryMmu) {
  constexpr uint64_t kProgramPages = 1024;
  const auto reads_of = [&](VirtualWorkload& program) {
    std::vector<uint64_t> reads;
    const auto source = UniformAccesses(Space(), 6000);
    const absl::Status status = RunAccesses(program, *source, &reads);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(program.Verify().ok());
    return reads;
  };
  auto tdp = MakeMemoryOf(MmuMode::kTdp, EntryFormat::kEpt);
  FlatProgram flat(*tdp, kProgramPages);
  const std::vector<uint64_t> expected = reads_of(flat);
  ASSERT_FALSE(expected.empty());

  auto tdp_shadow = MakeMemoryOf(MmuMode::kTdpShadow, EntryFormat::kEpt);
  FlatProgram flat_on_shadow(*tdp_shadow, kProgramPages);
  EXPECT_EQ(reads_of(flat_on_shadow), expected) << "direct shadow pages";

  for (const Stage2Kind& kind : Stage2Kinds()) {
    auto stage2 = MakeStage2(kind);
    FlatProgram flat_on_stage2(*stage2, kProgramPages);
    EXPECT_EQ(reads_of(flat_on_stage2), expected) << kind.name;
  }

  for (const PagingGeometry& geometry :
       {PagingGeometry::k32Bit, PagingGeometry::kPae, PagingGeometry::k4Level,
        PagingGeometry::k5Level}) {
    auto vm = MakeMemoryOf(MmuMode::kShadow, EntryFormat::kNpt);
    GuestProcessor cpu(*vm->state().vcpus[0]);
    KernelProgramOptions options = BusyProcesses({.geometry = geometry});
    options.processes = 1;
    options.pages = kProgramPages;
    options.accesses_per_unmap = 0;
    const auto program = KernelProgram::Start(cpu, Space(), options);
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_EQ(reads_of(**program), expected) << geometry.name;
  }

  for (const GuestTables tables : {GuestTables::kEpt, GuestTables::kNpt}) {
    auto vm = MakeMemoryOf(MmuMode::kNested, tables == GuestTables::kEpt
                                                 ? EntryFormat::kEpt
                                                 : EntryFormat::kNpt);
    L1Processor cpu(*vm->state().vcpus[0], Level::k512G);
    L2ProgramOptions options = BusyL2({.tables = tables});
    options.pages = kProgramPages;
    options.accesses_per_unmap = 0;
    const auto program = L2Program::Start(cpu, Space(), options);
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_EQ(reads_of(**program), expected) << "an L2 guest";
  }
}

}  // namespace
}  // namespace mmu::testing
