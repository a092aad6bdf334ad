#include "bench/shadow_guest.h"

#include <utility>

#include "absl/status/statusor.h"
#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/vcpu/shadow_fault.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kTableBytes = uint64_t{16} << 20;
// Large enough that no row reaches the limit.
constexpr uint64_t kShadowPages = uint64_t{1} << 20;

std::unique_ptr<Vm> MakeShadowVm(ShadowGuest::Kind kind, uint64_t data_bytes,
                                 Level host_page_level, int vcpus) {
  VmConfig config;
  config.shadow_page_limit = kShadowPages;
  config.vcpu_count = vcpus;
  switch (kind) {
    case ShadowGuest::Kind::kGuestTables:
      config.mmu = MmuMode::kShadow;
      config.format = EntryFormat::kNpt;
      break;
    case ShadowGuest::Kind::kEpt:
      config.mmu = MmuMode::kNested;
      break;
    case ShadowGuest::Kind::kDirect:
      config.mmu = MmuMode::kTdpShadow;
      break;
  }
  MemslotConfig tables;
  tables.size_bytes = kTableBytes;
  MemslotConfig data;
  data.slot = 1;
  data.gpa = ShadowGuest::kData;
  data.size_bytes = data_bytes;
  data.backing = BackingKind::kMetadataOnly;
  data.host_page_level = host_page_level;
  config.memslots = {tables, data};
  absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
  BENCH_CHECK(vm.ok());
  return *std::move(vm);
}

// The frames for tables. Frame 0 is left out, so that no table is at address 0.
FrameAllocator TableFrames() {
  absl::StatusOr<GpaSpace> space =
      GpaSpace::Create({{Gfn(1), Gfn(kTableBytes >> kPageShift)}});
  BENCH_CHECK(space.ok());
  return FrameAllocator(*space);
}

}  // namespace

absl::Status ShadowGuest::Memory::Access(Gpa gpa, int size_bytes,
                                         AccessKind kind, uint64_t* word) {
  BENCH_CHECK(size_bytes == 8);
  if (kind == AccessKind::kWrite) {
    guest_.Poke(gpa, *word);
  } else {
    *word = guest_.Peek(gpa);
  }
  return absl::OkStatus();
}

ShadowGuest::ShadowGuest(Kind kind, uint64_t data_bytes, Level host_page_level,
                         int vcpus)
    : kind_(kind),
      data_{ToGfn(kData), ToGfn(kData + data_bytes)},
      vm_(MakeShadowVm(kind, data_bytes, host_page_level, vcpus)),
      // NPT has the layout of a guest's own tables of four levels.
      format_(kind == Kind::kEpt ? NestedEntryFormat::kEpt
                                 : NestedEntryFormat::kNpt),
      frames_(TableFrames()),
      tables_(format_, Level::k512G, memory_, frames_) {
  BENCH_CHECK(tables_.Create());
  if (kind_ != Kind::kDirect) root_.table = ToGfn(tables_.root());
}

void ShadowGuest::Map(uint64_t address, Gpa gpa, Level level) {
  const uint64_t entry = tables_.MakeLeaf(ToGfn(gpa), level, format_.full) |
                         format_.accessed | format_.dirty;
  BENCH_CHECK(tables_.Set(Gpa(address), level, entry));
}

Gpa ShadowGuest::TableOf(uint64_t address, Level level) {
  return ToGpa(ToGfn(tables_.Find(Gpa(address), level).where));
}

void ShadowGuest::Poke(Gpa gpa, uint64_t value) {
  const uint64_t old = Peek(gpa);
  BENCH_CHECK(shadow().memory().CompareExchange(
                  gpa, WordSize::k8, old, value) == GuestWordResult::kDone);
}

uint64_t ShadowGuest::Peek(Gpa gpa) {
  uint64_t value = 0;
  BENCH_CHECK(shadow().memory().Read(gpa, WordSize::k8, &value) ==
              GuestWordResult::kDone);
  return value;
}

const uint64_t* ShadowGuest::HostTable(Gpa gpa) {
  MutexLock slots(state().slots.slots_lock);
  const Memslot& slot = *state().slots.Active(0).FindById(0);
  return reinterpret_cast<const uint64_t*>(
      slot.backing->PointerTo(slot.HvaOf(ToGfn(gpa))));
}

void ShadowGuest::Start() {
  for (int vcpu = 0; vcpu < static_cast<int>(state().vcpus.size()); ++vcpu) {
    switch (kind_) {
      case Kind::kGuestTables: {
        GuestPagingState state;
        state.cr0 = kCr0Pg | kCr0Wp;
        state.cr4 = kCr4Pae;
        state.efer = kEferNx | kEferLma;
        shadow(vcpu).SetPaging(ShadowPaging::OfGuest(state));
        break;
      }
      case Kind::kEpt:
        shadow(vcpu).SetPaging(ShadowPaging::OfEpt({.ad_bits = true}));
        break;
      case Kind::kDirect:
        break;  // the vCPU's initial state
    }
    ReloadRoot(ShadowVcpu::Flush::kYes, vcpu);
  }
}

void ShadowGuest::Access(uint64_t address, AccessKind kind, uint64_t word,
                         int vcpu) {
  GuestFault fault;
  BENCH_CHECK(shadow(vcpu).Access(address, 8, AccessOf(kind), &word, &fault) ==
              AccessOutcome::kDone);
}

void ShadowGuest::Fault(uint64_t address, AccessKind kind, int vcpu) {
  const ShadowFaultOutcome outcome =
      HandleShadowFault(state(), *state().vcpus[vcpu], shadow(vcpu), address,
                        AccessOf(kind), WalkResult());
  BENCH_CHECK(outcome.result == FaultResult::kFixed);
}

SpteSlot& ShadowGuest::WalkShadow(uint64_t address) {
  return WalkTo(shadow().roots().table(), shadow().roots().level(),
                Gfn(address >> kPageShift));
}

const Memslot& ShadowGuest::data_slot() {
  MutexLock slots(state().slots.slots_lock);
  return *state().slots.Active(0).FindById(1);
}

void ShadowGuest::ZapData() {
  const Memslot& slot = data_slot();
  MmuWriteLocked lock(state().mmu_lock, LockOp::kZap);
  mmu().unmap().ZapLeafs(lock, slot, data_, FlushReason::kZap, nullptr);
}

void ShadowGuest::ZapEverything() {
  {
    MutexLock slots(state().slots.slots_lock);
    state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  shadow().ReleaseRoots();
  RcuBarrier();
}

}  // namespace mmu::bench
