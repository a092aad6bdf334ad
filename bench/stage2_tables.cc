#include "bench/stage2_tables.h"

#include <utility>

#include "absl/status/statusor.h"
#include "bench/harness.h"
#include "mmu_core/stage2/s2_walk.h"
#include "mmu_core/stage2/stage2_split.h"
#include "mmu_core/stage2/stage2_unmap.h"
#include "mmu_core/vm/vcpu/stage2_fault_handler.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kChunkBytes = BytesPer<Arm4K>(Level{3});

std::unique_ptr<Vm> Make(uint64_t bytes, Level host_page_level, BbmLevel bbm) {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.stage2.bbm_level = static_cast<int>(bbm);
  config.stage2.tlbi_range = Stage2Config::TlbiRange::kYes;
  config.stage2.eager_split_chunk_bytes = kChunkBytes;
  MemslotConfig slot;
  slot.size_bytes = bytes;
  slot.backing = BackingKind::kMetadataOnly;
  slot.host_page_level = host_page_level;
  config.memslots = {slot};
  absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
  BENCH_CHECK(vm.ok());
  return *std::move(vm);
}

}  // namespace

Stage2Tables::Stage2Tables(uint64_t bytes, Level host_page_level, BbmLevel bbm)
    : vm_(Make(bytes, host_page_level, bbm)),
      state_(&vm_->state().stage2->of<Arm4K>()),
      cache_(S2Pool<Arm4K>::Process()) {}

Stage2State<Arm4K>& Stage2Tables::state() { return *state_; }

void Stage2Tables::FaultRange(uint64_t first, uint64_t pages, AccessKind kind) {
  VmState& vm = vm_->state();
  for (uint64_t i = 0; i < pages; ++i) {
    const absl::StatusOr<FaultResult> result =
        Stage2FaultHandler<Arm4K>(vm, *vm.vcpus[0], *state_, cache_)
            .Handle(Gfn(first + i), kind,
                    S2WalkResult::Kind::kTranslationFault);
    BENCH_CHECK(result.ok() && *result == FaultResult::kFixed);
  }
}

void Stage2Tables::Unmap(uint64_t first, uint64_t pages) {
  MmuWriteLocked lock(state_->parts.lock, LockOp::kZap);
  UnmapStage2(*state_, lock, /*slot=*/nullptr, GfnRange::Of(Gfn(first), pages),
              FlushReason::kZap, MayYield::kYes, nullptr);
}

void Stage2Tables::Split(uint64_t pages, S2Cache<Arm4K>& cache) {
  MmuWriteLocked lock(state_->parts.lock, LockOp::kSplit);
  SplitStage2(*state_, lock, {Gfn(0), Gfn(pages)},
              {.target = Level{1},
               .trigger = SplitTrigger::kRequest,
               .chunk_bytes = kChunkBytes,
               .limit = {}},
              cache, nullptr);
}

void Stage2Tables::MapSmall(uint64_t pages) {
  for (uint64_t gfn = 0; gfn < pages; gfn += PagesPer<Arm4K>(Level{3})) {
    FaultRange(gfn, 1, AccessKind::kWrite);
  }
  S2Cache<Arm4K> cache(S2Pool<Arm4K>::Process());
  Split(pages, cache);
  BENCH_CHECK(state_->parts.counters.Leafs(Level{1}) == pages);
}

std::vector<S2Table<Arm4K>*> Stage2Tables::SmallTables(uint64_t pages) {
  std::vector<S2Table<Arm4K>*> tables;
  for (uint64_t gfn = 0; gfn < pages; gfn += Arm4K::kEntriesPerTable) {
    tables.push_back(reinterpret_cast<S2Table<Arm4K>*>(&WalkTo(Gfn(gfn))));
  }
  return tables;
}

}  // namespace mmu::bench
