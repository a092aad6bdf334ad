// Measures the cost of page faults that the shadow MMU resolves.

#include <cstdint>
#include <vector>

#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/shadow_guest.h"
#include "benchmark/benchmark.h"

namespace mmu::bench {
namespace {

using Kind = ShadowGuest::Kind;

// The number of pages in the aligned block that is mapped around a fault
// (SHD-53).
constexpr uint64_t kBlock = 8;

// Value: a fault on one page of each block, while the shadow tables exist.
// Limit: walks the guest's tables, walks the shadow tables, and stores the
// SPTEs that the fault made. The tables of a guest map only that page of the
// block, so a fault makes one SPTE. A direct fault makes an SPTE for each page
// of the block.
Measured ShadowFault(const Effort& effort, Kind kind) {
  const uint64_t pages = effort.Scale(PagesPer(Level::k1G));
  ShadowGuest guest(kind, pages << kPageShift, Level::k4K);
  std::vector<uint64_t> addresses;
  for (uint64_t page = 0; page < pages; page += kBlock) {
    const Gpa gpa = ShadowGuest::kData + (page << kPageShift);
    const uint64_t address =
        kind == Kind::kDirect ? gpa.value() : page << kPageShift;
    if (kind != Kind::kDirect) guest.Map(address, gpa);
    addresses.push_back(address);
  }
  guest.Start();
  for (const uint64_t address : addresses) {
    guest.Access(address, AccessKind::kWrite);
  }
  const uint64_t leafs = guest.Leafs(Level::k4K);
  const uint64_t mapped_each = leafs / addresses.size();
  BENCH_CHECK(leafs == mapped_each * addresses.size() && mapped_each > 0);
  const Spte leaf = guest.WalkShadow(addresses[0]).Load();

  const auto fault = [&] {
    guest.ZapData();
    BENCH_CHECK(guest.Leafs(Level::k4K) == 0);
    const double nanos = Nanos([&] {
      for (const uint64_t address : addresses) {
        guest.Fault(address, AccessKind::kWrite);
      }
    });
    BENCH_CHECK(guest.Leafs(Level::k4K) == leafs);
    return nanos / addresses.size();
  };
  const auto walk_store = [&] {
    guest.ZapData();
    const Spte empty = guest.WalkShadow(addresses[0]).Load();
    const GuestWalker& walker = guest.shadow().guest().walker;
    uint64_t translated = 0;
    const double nanos = Nanos([&] {
      for (const uint64_t address : addresses) {
        uint64_t moved = 0;
        if (kind != Kind::kDirect) {
          const GuestWalkResult walk =
              walker.Walk(guest.shadow().memory(), guest.root(), address,
                          guest.AccessOf(AccessKind::kWrite));
          translated += walk.translated();
          moved = walk.gfn.value() << kPageShift;
        }
        SpteSlot* const slots = &guest.WalkShadow(address);
        for (uint64_t i = 0; i < mapped_each; ++i) {
          slots[i].Store(Spte(leaf.bits() + moved + (i << kPageShift)));
        }
      }
      benchmark::DoNotOptimize(translated);
    });
    BENCH_CHECK(kind == Kind::kDirect || translated == addresses.size());
    for (const uint64_t address : addresses) {
      SpteSlot* const slots = &guest.WalkShadow(address);
      for (uint64_t i = 0; i < mapped_each; ++i) slots[i].Store(empty);
    }
    return nanos / addresses.size();
  };
  const Pair pair = Alternate(effort, fault, walk_store);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> ShadowFaultRows() {
  const auto of = [](Kind kind) {
    return [kind](const Effort& effort) { return ShadowFault(effort, kind); };
  };
  return {{"shadow_fault", 3, Goal::kAtMost, of(Kind::kGuestTables)},
          {"shadow_fault_direct", 3, Goal::kAtMost, of(Kind::kDirect)},
          {"nested_fault", 3, Goal::kAtMost, of(Kind::kEpt)}};
}

}  // namespace mmu::bench
