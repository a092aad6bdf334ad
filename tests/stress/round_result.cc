#include "tests/stress/round_result.h"

namespace mmu::stress {

std::string_view ToString(Operation operation) {
  switch (operation) {
    case Operation::kMigrate:
      return "migrate";
    case Operation::kHarvest:
      return "harvest";
    case Operation::kSplit:
      return "split";
    case Operation::kRecover:
      return "recover";
    case Operation::kAge:
      return "age";
    case Operation::kGeneration:
      return "generation";
    case Operation::kZap:
      return "zap";
    case Operation::kInvalidate:
      return "host unmap";
    case Operation::kProtect:
      return "host protect";
    case Operation::kResetRings:
      return "reset rings";
    case Operation::kChangeNx:
      return "change NX";
    case Operation::kLogOther:
      return "log on/off";
    case Operation::kClearOther:
      return "clear";
    case Operation::kDeviceWrite:
      return "device write";
    case Operation::kSlotCreate:
      return "slot create";
    case Operation::kSlotDelete:
      return "slot delete";
    case Operation::kSlotMove:
      return "slot move";
    case Operation::kZapAll:
      return "zap all";
    case Operation::kChangeLimit:
      return "change limit";
    case Operation::kChangeChunk:
      return "change chunk";
    case Operation::kAudit:
      return "audit";
  }
  return "?";
}

void NestedResult::Add(const NestedResult& other) {
  kept_roots += other.kept_roots;
  missed_roots += other.missed_roots;
  interrupts += other.interrupts;
  invalidations += other.invalidations;
  arrivals += other.arrivals;
  tables_freed += other.tables_freed;
}

void Stage2Result::Add(const Stage2Result& other) {
  conflict_aborts += other.conflict_aborts;
  split_by_faults += other.split_by_faults;
  split_eagerly += other.split_eagerly;
  split_for_clears += other.split_for_clears;
  split_on_request += other.split_on_request;
  recovered += other.recovered;
}

void RoundResult::Add(const RoundResult& other) {
  if (violation.empty()) violation = other.violation;
  for (int i = 0; i < kOperations; ++i) done[i] += other.done[i];
  accesses += other.accesses;
  faults += other.faults;
  flushes += other.flushes;
  pages_compared += other.pages_compared;
  emulated += other.emulated;
  pre_faults += other.pre_faults;
  ring_full += other.ring_full;
  unsyncs += other.unsyncs;
  pte_writes += other.pte_writes;
  recycled += other.recycled;
  nested_zapped += other.nested_zapped;
  nested_recycled += other.nested_recycled;
  nested_unlinked += other.nested_unlinked;
  nested.Add(other.nested);
  stage2.Add(other.stage2);
  moved.Add(other.moved);
}

}  // namespace mmu::stress
