#include "tests/stress/stressed_guest.h"

#include <algorithm>
#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vcpu/pre_fault.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::stress {
namespace {

// Accesses between two checks whether to pause or stop.
constexpr int kBatch = 64;
// Pages of the huge range that are accessed.
constexpr uint64_t kUsedOfHuge = 16;

}  // namespace

StressedGuest::StressedGuest(Vm& vm, const GuestSpaces& spaces, uint64_t seed)
    : GuestThreads(vm), spaces_(spaces), seed_(seed) {
  Start();
}

void StressedGuest::Run(int index) {
  std::mt19937_64 random(seed_ * 64 + static_cast<uint64_t>(index));
  Vcpu& vcpu = VcpuAt(index);
  Expectations expect;
  expect.own.resize(spaces_.stable.pages() + kUsedOfHuge);
  expect.neighbour.resize(expect.own.size());
  expect.changing.resize(spaces_.changing->all().pages());
  const bool maps_ahead = RunsOnTdp(vm().config());
  bool well = true;
  while (well && !stopping()) {
    if (pausing()) WaitWhilePaused();
    vcpu.EnterGuest();
    for (int i = 0; i < kBatch && well; ++i) {
      well = Step(index, random, expect);
    }
    vcpu.ExitGuest();
    CountAccesses(kBatch);
    if (random() % 256 == 0) FlushUnasked(vcpu);
    if (random() % 1024 == 0) ReleaseRootUnasked(vcpu);
    if (well && maps_ahead && random() % 64 == 0) {
      well = PreFault(index, random);
    }
  }
}

AccessOutcome StressedGuest::Access(Vcpu& vcpu, Gpa gpa, AccessKind kind,
                                    uint64_t* word) {
  AccessOutcome outcome = vcpu.Access(gpa, kind, word);
  for (;;) {
    const bool ring_full = outcome == AccessOutcome::kDirtyRingFull;
    // The host forbids writes to the page for a while.
    const bool forbidden = outcome == AccessOutcome::kError &&
                           DetailOf(vcpu.status()).kvm_errno == EFAULT;
    if (!ring_full && !forbidden) return outcome;
    if (ring_full) AwaitRingRoom(vcpu);
    if (forbidden) WaitOutside(vcpu);
    outcome = vcpu.ContinueAccess(gpa, kind, word);
  }
}

bool StressedGuest::PreFault(int index, std::mt19937_64& random) {
  const bool stable = random() % 2 == 0;
  const int region = static_cast<int>(random() % ChangingRegions::kRegions);
  const GfnRange space =
      stable ? spaces_.stable : spaces_.changing->range(region);
  const uint64_t first = random() % space.pages();
  PreFaultRange range;
  range.gpa = ToGpa(space.start + first);
  range.size_bytes =
      (1 + random() % std::min<uint64_t>(space.pages() - first, 256)) *
      kPageSize;
  const ChangingRegions::Stamp before = spaces_.changing->Look(region);
  const absl::Status status =
      PreFaultMemory(vm().state(), VcpuAt(index), range,
                     [this] { return pausing() || stopping(); });
  const ChangingRegions::Stamp after = spaces_.changing->Look(region);
  CountPreFault();
  const Reason reason = DetailOf(status).reason;
  if (reason == Reason::kInterrupted || reason == Reason::kDirtyRingFull) {
    return true;
  }
  Reason expected = Reason::kNone;
  if (!stable) {
    if (before != after) return true;
    switch (ChangingRegions::StateOf(before)) {
      case ChangingRegions::State::kChanging:
        return true;
      case ChangingRegions::State::kMemory:
        break;
      case ChangingRegions::State::kNothing:
        expected = Reason::kNoMemoryThere;
    }
  }
  if (reason == expected) return true;
  Report(absl::StrFormat("vCPU %d maps ahead at gpa %#x: '%s' expected, got %s",
                         index, range.gpa.value(),
                         std::string(ToString(expected)), status.ToString()));
  return false;
}

bool StressedGuest::Step(int index, std::mt19937_64& random,
                         Expectations& expect) {
  const uint64_t dice = random();
  return dice % 8 == 0 ? StepChanging(index, dice / 8, random, expect)
                       : StepStable(index, dice / 8, random, expect);
}

bool StressedGuest::StepChanging(int index, uint64_t dice,
                                 std::mt19937_64& random,
                                 Expectations& expect) {
  Vcpu& vcpu = VcpuAt(index);
  const ChangingRegions& regions = *spaces_.changing;
  const uint64_t page = random() % regions.all().pages();
  const Gfn gfn = regions.all().start + page;
  const int region = regions.RegionOf(gfn);
  const auto kind = static_cast<AccessKind>(dice % 3);
  uint64_t word = ++expect.last_value;
  const ChangingRegions::Stamp before = regions.Look(region);
  const AccessOutcome outcome =
      Access(vcpu, ToGpa(gfn) + static_cast<uint64_t>(index) * 8, kind, &word);
  const ChangingRegions::Stamp after = regions.Look(region);
  if (outcome == AccessOutcome::kEmulated) {
    CountEmulated();
  }
  if (outcome == AccessOutcome::kError) {
    Report(absl::StrFormat("vCPU %d, gfn %#x of the changing range: %s", index,
                           gfn.value(), vcpu.status().ToString()));
    return false;
  }
  const auto state = ChangingRegions::StateOf(before);
  if (before != after || state == ChangingRegions::State::kChanging) {
    return true;
  }
  if ((outcome == AccessOutcome::kDone) !=
      (state == ChangingRegions::State::kMemory)) {
    Report(absl::StrFormat(
        "vCPU %d, gfn %#x of the changing range: %s, but the access was %s",
        index, gfn.value(),
        state == ChangingRegions::State::kMemory ? "a slot is there"
                                                 : "no slot is there",
        outcome == AccessOutcome::kDone ? "done" : "emulated"));
    return false;
  }
  if (state == ChangingRegions::State::kNothing) return true;
  Expectations::Word& own = expect.changing[page];
  if (kind == AccessKind::kWrite) {
    own = {before, word};
  } else if (own.stamp == before && own.value != word) {
    Report(absl::StrFormat(
        "vCPU %d reads %d in its own word of gfn %#x, after it wrote %d", index,
        word, gfn.value(), own.value));
    return false;
  }
  return true;
}

bool StressedGuest::StepStable(int index, uint64_t dice,
                               std::mt19937_64& random, Expectations& expect) {
  Vcpu& vcpu = VcpuAt(index);
  // Half of the accesses go to a sixteenth of the pages.
  uint64_t page = random() % spaces_.stable.pages();
  if (dice % 2 == 0) page /= 16;
  if (!spaces_.huge.empty() && dice / 64 % spaces_.huge_every == 0) {
    page = spaces_.stable.pages() + page % kUsedOfHuge;
  }
  const Gpa base = ToGpa(GfnOf(page));
  const int neighbour = (index + 1) % vcpus();
  const auto access = [&](int word_of, AccessKind kind, uint64_t* word) {
    const AccessOutcome outcome =
        Access(vcpu, base + static_cast<uint64_t>(word_of) * 8, kind, word);
    if (outcome == AccessOutcome::kDone) return true;
    Report(absl::StrFormat("vCPU %d, page %d of the stable range: not done: %s",
                           index, page, vcpu.status().ToString()));
    return false;
  };
  uint64_t word = 0;
  switch (dice / 2 % 4) {
    case 0:
    case 1:
      word = expect.own[page] + 1;
      if (!access(index, AccessKind::kWrite, &word)) return false;
      ++expect.own[page];
      return true;
    case 2:
      if (!access(index,
                  dice / 8 % 8 == 0 ? AccessKind::kExec : AccessKind::kRead,
                  &word)) {
        return false;
      }
      return CheckWord(index, page, word, expect.own[page], expect.own[page],
                       "its own");
    default:
      if (vcpus() == 1) return true;
      if (!access(neighbour, AccessKind::kRead, &word)) return false;
      if (!CheckWord(index, page, word, expect.neighbour[page], UINT64_MAX,
                     "its neighbour's")) {
        return false;
      }
      expect.neighbour[page] = word;
      return true;
  }
}

Gfn StressedGuest::GfnOf(uint64_t page) const {
  const uint64_t stable = spaces_.stable.pages();
  if (page < stable) return spaces_.stable.start + page;
  return spaces_.huge.start +
         (page - stable) * (spaces_.huge.pages() / kUsedOfHuge);
}

bool StressedGuest::CheckWord(int index, uint64_t page, uint64_t seen,
                              uint64_t at_least, uint64_t at_most,
                              const char* whose) {
  if (at_least <= seen && seen <= at_most) return true;
  Report(absl::StrFormat(
      "vCPU %d reads %d in %s word of page %d of the stable range, after %d",
      index, seen, whose, page, at_least));
  return false;
}

}  // namespace mmu::stress
